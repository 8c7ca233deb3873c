"""The noise floor: what the arithmetic alone moves the mean damage of a language by."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.cell import Cell
from evenbits.cells.damage import LN2
from evenbits.cells.spread import FLOOR_LANGUAGES, spread, spread_of
from evenbits.cells.subject import Subject
from evenbits.estimates import Estimate
from evenbits.records import Corpus
from evenbits.variants.variant import Variant, full_beside

__all__ = ["floor_cells", "floor_of", "noise_floor"]

FLOOR_SEGMENTS = 4
"""The noise floor is measured on 8 languages x so many segments: about a minute of float32 on a small machine."""

Arithmetic = tuple[str, bool]
"""dtype, and whether in batches of another composition."""


def noise_floor(subject: Subject, variant: Variant, corpus: Corpus) -> Estimate:
    """Return the noise floor of a language's mean excess bits under `variant`, in bits per segment.

    On a sample of languages and segments the excess bits are measured in the run's dtype and again (a) in float32,
    (b) in batches of another composition. Of the differences a floor is made (`floor_of`): what the arithmetic alone
    moves a language's mean by. The larger of (a) and (b) is returned. What runs elsewhere has one arithmetic; there it
    is what moves the mean of full precision beside it.
    """
    subject.measure(floor_cells(subject, variant, corpus))  # together: what is read from disk is read once
    sample, (own, *others) = _sample(corpus), _arithmetics(subject, variant)
    measured = _excess(subject, variant, sample, own)
    floors = {}
    for dtype, small in others:
        difference = _excess(subject, variant, sample, (dtype, small)) - measured
        name = "other batches" if small else dtype
        floors[name] = floor_of(difference, len(corpus))
    worst = max(floors, key=lambda name: floors[name])
    return Estimate(
        value=floors[worst],
        n=len(sample) * len(sample.languages),
        method=f"{own[0]} against {worst}{'' if variant.in_memory else ', full precision alone'}, "
        f"{len(sample.languages)} languages x {len(sample)} segments, root mean square of a language mean",
    )


def floor_of(difference_LS: NDArray[np.float64], segments: int) -> float:
    """Return the root mean square of what moves a language's mean over `segments` segments S, in the unit of d [L, S'].

    With m the means of the L languages over the S' segments of the sample, and w the variance of the segments of one
    language, pooled over languages: sqrt(max(0, mean(m^2) - w / S') + w / S). A bias, shared by languages or a
    language's own, stays in a mean, however many segments; only scatter within a language averages out. w / S' is what
    scatter alone adds to m^2 (one-way random effects; Searle, Casella & McCulloch 1992, section 3.6).
    """
    taken = difference_LS.shape[1]
    within = float(difference_LS.var(axis=1, ddof=1).mean()) if taken > 1 else 0.0
    bias = float((difference_LS.mean(axis=1) ** 2).mean()) - within / taken
    return math.sqrt(max(0.0, bias) + within / segments)


def floor_cells(subject: Subject, variant: Variant, corpus: Corpus) -> tuple[Cell, ...]:
    """Return the cells that the noise floor of `variant` on `corpus` is made of."""
    sample, full = _sample(corpus), full_beside(variant, dtype=subject.dtype)
    return tuple(
        cell
        for arithmetic in _arithmetics(subject, variant)
        for one in ((variant, full) if variant.in_memory else (full,))
        for cell in _cells(subject, one, sample, arithmetic)
    )


def _arithmetics(subject: Subject, variant: Variant) -> list[Arithmetic]:
    """Return the run's own arithmetic, then those that it is held against."""
    own = full_beside(variant, dtype=subject.dtype).dtype or subject.dtype
    return [(own, False), (own, True), *([("float32", False)] if own != "float32" else [])]


def _excess(subject: Subject, variant: Variant, sample: Corpus, arithmetic: Arithmetic) -> NDArray[np.float64]:
    """Return excess bits of the sample, [L, S']; of what runs elsewhere, the bits of full precision."""
    beside = full_beside(variant, dtype=subject.dtype)
    full = np.stack([one.nll for one in subject.measure(_cells(subject, beside, sample, arithmetic))]) / LN2
    if not variant.in_memory:
        return full
    changed = subject.measure(_cells(subject, variant, sample, arithmetic))
    return np.stack([one.nll for one in changed]) / LN2 - full


def _cells(subject: Subject, variant: Variant, sample: Corpus, arithmetic: Arithmetic) -> tuple[Cell, ...]:
    dtype, small = arithmetic
    return subject.cells(replace(variant, dtype=dtype, divergence=False), sample, small_batches=small)


def _sample(corpus: Corpus) -> Corpus:
    """Return a few languages and segments spread evenly over the corpus."""
    languages = spread_of(corpus.languages, FLOOR_LANGUAGES)
    return corpus.select(languages=languages, indices=spread(len(corpus), FLOOR_SEGMENTS))
