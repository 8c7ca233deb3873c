"""Loading a corpus by its text form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from evenbits.errors import UsageError
from evenbits.records import Corpus, LeftOut
from evenbits.store import Store
from evenbits.text.alignment import UNASKED
from evenbits.text.references import READERS, CorpusRef, LanguageChoice, parse_corpus, parse_languages
from evenbits.text.sampling import sample

__all__ = ["load_corpus"]

NAMED = 8
"""Languages that models were not trained on that are named one by one."""


def load_corpus(
    text: str,
    *,
    languages: Sequence[str] | str | None = None,
    trained: Sequence[str] | None = None,
    segments: int | None = None,
    seed: int = 0,
    store: Store | None = None,
    offline: bool = False,
) -> Corpus:
    """Return the corpus `text` names, aligned over the chosen languages.

    `languages`: None for the default, `all`, a number, or tags (a sequence, or text with commas). The default is what
    the models were `trained` on, where that is known and the corpus has text in it, else the corpus's own.
    `segments`: draw that many by `seed`, the same ids in every language; None takes all. `store` keeps parsed message
    catalogues, so that a second run is quick. `offline`: nothing is downloaded. What is not used is counted in
    `left_out`. Raises `UsageError` for an unknown form, `CorpusError` for text that is missing or not aligned.
    """
    ref = parse_corpus(text)
    choice = parse_languages(languages)
    if segments is not None and segments < 1:
        raise UsageError(f"--segments {segments}: at least one segment is needed")
    if languages is None and trained is not None:
        corpus = _in_trained(ref, trained, store=store, offline=offline)
    else:
        corpus = _read(ref, choice, store=store, offline=offline)
    return corpus if segments is None else sample(corpus, segments, seed=seed)


def _in_trained(ref: CorpusRef, trained: Sequence[str], *, store: Store | None, offline: bool) -> Corpus:
    """Return the text in the languages that models were trained on; what that leaves out says so."""
    reader = _reader(ref)
    if hasattr(reader, "languages"):
        present = reader.languages(ref)  # text in a language that is not wanted is not even opened
    else:
        present = _read(ref, parse_languages("all"), store=store, offline=offline).languages
    known = [tag for tag in trained if tag in present]
    if not known:
        return _read(ref, parse_languages(None), store=store, offline=offline)
    corpus = _read(ref, parse_languages(known), store=store, offline=offline)
    untrained = f"{UNASKED}: no model was trained on them; --languages all takes them"
    others = sorted(set(present) - set(known))
    left_out = [replace(one, reason=untrained) for one in corpus.left_out if one.reason == UNASKED]
    if len(others) <= NAMED:  # few may be missed by somebody; dozens are what every corpus has beside a model
        left_out = [LeftOut(what="language", language=tag, count=1, reason=untrained) for tag in others]
    left_out += [one for one in corpus.left_out if one.reason != UNASKED]
    absent = [
        LeftOut(what="language", language=tag, count=1, reason="trained on, but the corpus has no text in it")
        for tag in trained
        if tag not in present
    ]
    return replace(corpus, left_out=(*left_out, *absent))


def _read(ref: CorpusRef, choice: LanguageChoice, *, store: Store | None, offline: bool) -> Corpus:
    corpus: Corpus = _reader(ref).read(ref, choice, store=store, offline=offline)
    return corpus


def _reader(ref: CorpusRef) -> ModuleType:
    """Return the module that reads this kind, imported only now: `datasets` alone takes a second."""
    return import_module(READERS[ref.kind])
