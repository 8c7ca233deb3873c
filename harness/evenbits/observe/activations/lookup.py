"""Activation statistics by language, from the store, or measured into it. What is stored is read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from evenbits.models.records import Loadable
from evenbits.observe.activations.statistics import SINK_SEGMENTS, ActivationStatistics, packed, unpacked
from evenbits.progress import Progress, Silent
from evenbits.records import Corpus, text_digest
from evenbits.store import Store

__all__ = [
    "GRADIENTS",
    "GRADIENT_SEGMENTS",
    "HELD_BYTES",
    "KIND",
    "PEAKS",
    "PEAK_TEXTS",
    "activation_key",
    "activation_statistics",
    "activations",
    "gradient_key",
    "peak_key",
]

KIND = "activations"
SCHEMA = 4

GRADIENTS = "gradients"
GRADIENT_SCHEMA = 3
GRADIENT_SEGMENTS = 8
"""Backward passes per language for the importance of weights, the first segments of the text."""

HELD_BYTES = 4 << 30
"""Squared gradients held at once; a larger model takes a round of passes for each part of that size."""

PEAKS = "peaks"
PEAK_SCHEMA = 3
PEAK_TEXTS = 2
"""Segments per language on which spikes are looked for."""


def activations(
    model: Loadable,
    corpus: Corpus,
    *,
    store: Store,
    languages: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, ActivationStatistics]:
    """Return the statistics of every language of `corpus` (or of `languages`), measured or from the store."""
    chosen = corpus.languages if languages is None else tuple(languages)
    found = {}
    with (progress or Silent()).task(f"{model.local.text}  activations", total=len(chosen)) as task:
        for tag in chosen:
            task.doing(tag)
            found[tag] = activation_statistics(model, corpus.texts[tag], language=tag, store=store)
            task.advance()
    return found


def activation_statistics(
    model: Loadable,
    texts: Sequence[str],
    *,
    language: str,
    store: Store,
    sink_segments: int = SINK_SEGMENTS,
) -> ActivationStatistics:
    """Return the activation statistics of `texts`, stored under the digest of model, texts and dtype.

    `sink_segments`: attention to the first token is measured on the first so many segments, which are the same ones in
    every language of an aligned corpus. Activations that are not finite raise `NonFiniteError`.
    """

    def measured() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        from evenbits.observe.activations.collection import measure

        return packed(measure(model.load(), texts, language=language, sink_segments=sink_segments))

    return unpacked(store.compute(KIND, activation_key(model, texts, sink_segments), measured), language=language)


def activation_key(model: Loadable, texts: Sequence[str], sink_segments: int = SINK_SEGMENTS) -> dict[str, Any]:
    """Return what identifies the statistics of `texts` in the store."""
    return {
        "model": model.local.fingerprint,
        "texts": text_digest(texts),
        "dtype": model.arithmetic,
        "sink_segments": sink_segments,
        "schema": SCHEMA,
    }


def gradient_key(model: Loadable, texts: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Return what identifies the mean squared gradients over `texts`, those of a language each."""
    return {
        "model": model.local.fingerprint,
        "texts": [text_digest(lines) for lines in texts],
        "dtype": model.arithmetic,
        "schema": GRADIENT_SCHEMA,
    }


def peak_key(model: Loadable, texts: Sequence[str]) -> dict[str, Any]:
    """Return what identifies the largest activations over `texts`."""
    return {
        "model": model.local.fingerprint,
        "texts": text_digest(texts),
        "dtype": model.arithmetic,
        "schema": PEAK_SCHEMA,
    }
