"""The noise floor: what the arithmetic alone moves the mean damage of a language by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.cell import Cell
from evenbits.cells.damage import LN2
from evenbits.cells.spread import FLOOR_LANGUAGES, spread, spread_of
from evenbits.cells.subject import Subject
from evenbits.estimates import Estimate
from evenbits.records import Corpus
from evenbits.variants.variant import FULL_PRECISION, Variant

__all__ = ["floor_cells", "noise_floor"]

FLOOR_SEGMENTS = 4
"""The noise floor is measured on 8 languages x so many segments: about a minute of float32 on a small machine."""

Arithmetic = tuple[str, bool]
"""dtype, and whether in batches of another composition."""


def noise_floor(subject: Subject, variant: Variant, corpus: Corpus) -> Estimate:
    """Return the noise floor of a language's mean excess bits under `variant`, in bits per segment.

    On a sample of languages and segments the excess bits are measured in the run's dtype and again (a) in float32,
    (b) in batches of another composition. With d the differences over the sample and S the segments per language
    of `corpus`, a floor is sqrt(mean(d)^2 + var(d) / S): what the arithmetic alone moves a language's mean by.
    The larger of (a) and (b) is returned. Undefined for what runs elsewhere, in the one arithmetic that it has.
    """
    if not variant.in_memory:
        return Estimate.undefined("it runs elsewhere, in one arithmetic", method="noise floor")
    subject.measure(floor_cells(subject, variant, corpus))  # together: what is read from disk is read once
    sample, (own, *others) = _sample(corpus), _arithmetics(subject, variant)
    measured = _excess(subject, variant, sample, own)
    floors = {}
    for dtype, small in others:
        difference = _excess(subject, variant, sample, (dtype, small)) - measured
        name = "other batches" if small else dtype
        floors[name] = float(np.sqrt(difference.mean() ** 2 + difference.var() / len(corpus)))
    worst = max(floors, key=lambda name: floors[name])
    return Estimate(
        value=floors[worst],
        n=len(sample) * len(sample.languages),
        method=f"{own[0]} against {worst}, {len(sample.languages)} languages x {len(sample)} segments, "
        "root mean square of a language mean",
    )


def floor_cells(subject: Subject, variant: Variant, corpus: Corpus) -> tuple[Cell, ...]:
    """Return the cells that the noise floor of `variant` on `corpus` is made of."""
    if not variant.in_memory:
        return ()
    sample = _sample(corpus)
    return tuple(
        cell
        for arithmetic in _arithmetics(subject, variant)
        for one in (variant, FULL_PRECISION)
        for cell in _cells(subject, one, sample, arithmetic)
    )


def _arithmetics(subject: Subject, variant: Variant) -> list[Arithmetic]:
    """Return the run's own arithmetic, then those that it is held against."""
    own = variant.dtype or subject.dtype
    return [(own, False), (own, True), *([("float32", False)] if own != "float32" else [])]


def _excess(subject: Subject, variant: Variant, sample: Corpus, arithmetic: Arithmetic) -> NDArray[np.float64]:
    """Return excess bits of all languages and segments of the sample, one after the other."""
    changed = subject.measure(_cells(subject, variant, sample, arithmetic))
    full = subject.measure(_cells(subject, FULL_PRECISION, sample, arithmetic))
    return np.concatenate([one.nll - other.nll for one, other in zip(changed, full, strict=True)]) / LN2


def _cells(subject: Subject, variant: Variant, sample: Corpus, arithmetic: Arithmetic) -> tuple[Cell, ...]:
    dtype, small = arithmetic
    return subject.cells(replace(variant, dtype=dtype, divergence=False), sample, small_batches=small)


def _sample(corpus: Corpus) -> Corpus:
    """Return a few languages and segments spread evenly over the corpus."""
    languages = spread_of(corpus.languages, FLOOR_LANGUAGES)
    return corpus.select(languages=languages, indices=spread(len(corpus), FLOOR_SEGMENTS))
