"""Ablation: what the largest weights carry beyond as many random ones, over the whole model and part by part.

Legend: L languages, S segments, U parts of the model (layers, or kinds of matrices).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenbits.cells import Subject, measure
from evenbits.records import Corpus
from evenbits.variants.variant import Variant
from evenbits.variants.zeroing import without_largest, without_random

__all__ = [
    "SHARES",
    "Ablation",
    "ablate",
    "ablated",
    "ablation_sample",
    "normal_energy_ratio",
]

SHARES = (1e-4, 1e-2)
"""Zeroed by ablation: super-weight scale and general-outlier scale."""
RANDOM_DRAWS = 3
LARGEST = "largest"

ABLATION_LANGUAGES = 10
ABLATION_SEGMENTS = 8
"""Ablations compare means over everything, so a sample of the corpus is enough: 80 segments, spread evenly."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Excess bits [L, S] of `languages` after zeroing a `share` of every linear tensor: the largest, and random ones.

    `random` is the mean of several draws; `floor_bits` the standard deviation of their means.
    """

    share: float
    languages: tuple[str, ...]
    top: FloatArray
    random: FloatArray
    floor_bits: float

    @property
    def concentration(self) -> float | None:
        """Damage of the largest over damage of random weights, over what a normal distribution would give.

        Damage of zeroing goes with the energy removed. The largest share p of a normal distribution holds
        2 (z phi(z) + p / 2) of its energy, z its quantile at 1 - p / 2; random weights hold p. 1 is normal. Random
        damage counts as at least the noise floor; None where the largest weights do no measurable damage.
        """
        found = float(self.concentrations(self.top.mean(), self.random.mean()))
        return None if math.isnan(found) else found

    def concentrations(self, top: ArrayLike, random: ArrayLike) -> FloatArray:
        """Return the same for other means of the damage than those measured, NaN for None."""
        above, beside = np.asarray(top, dtype=np.float64), np.maximum(random, self.floor_bits)
        measured = above > self.floor_bits
        with np.errstate(divide="ignore"):  # random weights that cost nothing in a resample
            ratio = np.divide(above, beside, out=np.full(above.shape, np.nan), where=measured)
        return np.asarray(ratio / normal_energy_ratio(self.share))

    def to_json(self) -> dict[str, Any]:
        """Return the means as plain JSON types."""
        return {
            "share": self.share,
            "top_bits": float(self.top.mean()),
            "random_bits": float(self.random.mean()),
            "floor_bits": self.floor_bits,
            "concentration": self.concentration,
        }


def normal_energy_ratio(share: float) -> float:
    """Return energy of the largest `share` of a normal distribution over energy of a random `share`: 17.0 at .01 %."""
    z = -NormalDist().inv_cdf(share / 2)
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return 2 * (z * density + share / 2) / share


def ablate(model: Subject, corpus: Corpus) -> dict[float, Ablation]:
    """Zero the largest and, in three draws, random weights of every linear tensor, and measure what it costs."""
    sample = ablation_sample(corpus)
    return {share: _ablation(model, sample, share) for share in SHARES}


def ablation_sample(corpus: Corpus) -> Corpus:
    """Return languages and segments spread evenly over the corpus."""
    languages = np.unique(np.linspace(0, len(corpus.languages) - 1, ABLATION_LANGUAGES).astype(int))
    segments = np.unique(np.linspace(0, len(corpus) - 1, ABLATION_SEGMENTS).astype(int))
    return corpus.select(
        languages=tuple(corpus.languages[i] for i in languages), indices=tuple(int(i) for i in segments)
    )


def ablated(model: Subject, share: float) -> dict[str, Variant]:
    """Return the variants of one share by name: the largest weights zeroed, and random ones in several draws."""
    draws = {f"random {draw}": without_random(share, seed=model.seed, draw=draw) for draw in range(RANDOM_DRAWS)}
    return {LARGEST: without_largest(share), **draws}


def _ablation(model: Subject, sample: Corpus, share: float) -> Ablation:
    variants = ablated(model, share)
    damage = measure(model, variants, sample)
    random = [damage.excess_bits(name) for name in variants if name != LARGEST]
    # What one draw moves against another is the noise below which a difference means nothing.
    noise = float(np.std([draw.mean() for draw in random], ddof=1))
    return Ablation(
        share=share,
        languages=damage.languages,
        top=damage.excess_bits(LARGEST),
        random=np.mean(random, axis=0),
        floor_bits=max(noise, 1e-3),
    )
