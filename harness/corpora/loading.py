"""Loading a corpus by its text form."""

from __future__ import annotations

from collections.abc import Sequence

from harness.corpora.references import parse_corpus, parse_languages
from harness.corpora.sampling import sample
from harness.errors import UsageError
from harness.records import Corpus
from harness.store import Store

__all__ = ["load_corpus"]


def load_corpus(
    text: str,
    *,
    languages: Sequence[str] | str | None = None,
    segments: int | None = None,
    seed: int = 0,
    store: Store | None = None,
    offline: bool = False,
) -> Corpus:
    """Return the corpus `text` names, aligned over the chosen languages.

    `languages`: None for the corpus's default, `all`, a number, or tags (a sequence, or text with commas).
    `segments`: draw that many by `seed`, the same ids in every language; None takes all. `store` keeps parsed message
    catalogues, so that a second run is quick. `offline`: nothing is downloaded. What is not used is counted in
    `left_out`. Raises `UsageError` for an unknown form, `CorpusError` for text that is missing or not aligned.
    """
    ref = parse_corpus(text)
    choice = parse_languages(languages)
    if segments is not None and segments < 1:
        raise UsageError(f"--segments {segments}: at least one segment is needed")
    # Each reader is imported only when it is needed: `datasets` alone takes a second.
    if ref.kind == "gettext":
        from harness.corpora.catalogues import read_catalogues  # noqa: PLC0415

        corpus = read_catalogues(ref, choice, store=store)
    elif ref.kind == "dir":
        from harness.corpora.folders import read_folder  # noqa: PLC0415

        corpus = read_folder(ref, choice)
    else:
        from harness.corpora.hub import read_dataset  # noqa: PLC0415

        corpus = read_dataset(ref, choice, offline=offline)
    return corpus if segments is None else sample(corpus, segments, seed=seed)
