"""The noise floor: what the arithmetic alone moves the mean damage of a language by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evenbits.cells.spread import spread, spread_of
from evenbits.cells.variants import FULL_PRECISION, Variant
from evenbits.estimates import Estimate
from evenbits.records import Corpus
from evenbits.variants.quantization.spec import QuantSpec

if TYPE_CHECKING:
    from evenbits.cells.bench import ModelUnderTest

__all__ = ["noise_floor"]

FLOOR_LANGUAGES = 8
FLOOR_SEGMENTS = 4
"""The noise floor is measured on this many languages x segments: about a minute of float32 on a small machine."""


def noise_floor(model: ModelUnderTest, spec: QuantSpec, corpus: Corpus) -> Estimate:
    """Return the noise floor of a language's mean excess bits under `spec`, in bits per segment.

    On a sample of languages and segments the excess bits are measured in the run's dtype and again (a) in float32,
    (b) in batches of another composition. With d the differences over the sample and S the segments per language
    of `corpus`, a floor is sqrt(mean(d)^2 + var(d) / S): what the arithmetic alone moves a language's mean by.
    The larger of (a) and (b) is returned.
    """
    sample = _floor_sample(corpus)
    variant = model.spec_variant(spec)
    dtype = variant.dtype or model.dtype
    floors = {"batches": _floor(model, variant, sample, dtype, dtype, segments=len(corpus), small_batches=True)}
    if dtype != "float32":
        floors["float32"] = _floor(model, variant, sample, dtype, "float32", segments=len(corpus), small_batches=False)
    worst = max(floors, key=lambda name: floors[name])
    return Estimate(
        value=floors[worst],
        n=len(sample) * len(sample.languages),
        method=f"{dtype} against {'other batches' if worst == 'batches' else worst}, "
        f"{len(sample.languages)} languages x {len(sample)} segments, root mean square of a language mean",
    )


def _floor(
    model: ModelUnderTest, variant: Variant, sample: Corpus, dtype: str, other: str, *, segments: int,
    small_batches: bool,
) -> float:  # fmt: skip
    """Return what moves a language's mean over `segments` between `dtype` and the `other` arithmetic or batches."""

    def excess(arithmetic: str, *, small: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
        changed = model.losses(_for_floor(variant, arithmetic, small=small), sample)
        full = model.losses(_for_floor(FULL_PRECISION, arithmetic, small=small), sample)
        return np.concatenate([changed[tag].nll - full[tag].nll for tag in sample.languages]) / math.log(2)

    difference = excess(other, small=small_batches) - excess(dtype, small=False)
    return float(np.sqrt(difference.mean() ** 2 + difference.var() / segments))


def _for_floor(variant: Variant, dtype: str, *, small: bool) -> Variant:
    """Return the variant as the noise floor needs it: without KL, and in small batches where asked."""
    key = {**variant.key, "small_batches": True} if small else variant.key
    return replace(variant, dtype=dtype, key=key, divergence=False)


def _floor_sample(corpus: Corpus) -> Corpus:
    """Return a few languages and segments spread evenly over the corpus."""
    languages = spread_of(corpus.languages, FLOOR_LANGUAGES)
    return corpus.select(languages=languages, indices=spread(len(corpus), FLOOR_SEGMENTS))
