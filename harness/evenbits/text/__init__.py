"""Aligned text in many languages: where it comes from, how it is checked, and how it is divided.

`parse_corpus` and `describe_corpora` are cheap and serve the option parser; `load_corpus` reads and checks the text;
`split` divides the segments once into a probe and an evaluation half.
"""

from evenbits.text.loading import load_corpus
from evenbits.text.references import (
    CorpusForm,
    CorpusRef,
    LanguageChoice,
    describe_corpora,
    parse_corpus,
    parse_languages,
)
from evenbits.text.sampling import sample, split

__all__ = [
    "CorpusForm",
    "CorpusRef",
    "LanguageChoice",
    "describe_corpora",
    "load_corpus",
    "parse_corpus",
    "parse_languages",
    "sample",
    "split",
]
