"""Ablation: what the largest weights carry beyond as many random ones, over the whole model and part by part.

Legend: L languages, S segments, U parts of the model (layers, or kinds of matrices).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import FULL_PRECISION, ModelUnderTest, Variant
from evenbits.records import Corpus, Losses

if TYPE_CHECKING:
    from evenbits.models import LoadedModel

__all__ = [
    "SHARES",
    "Ablation",
    "ablate",
    "ablation_sample",
    "bits_of",
    "normal_energy_ratio",
    "without_largest",
]

SHARES = (1e-4, 1e-2)
"""Zeroed by ablation: super-weight scale and general-outlier scale."""
RANDOM_DRAWS = 3

ABLATION_LANGUAGES = 10
ABLATION_SEGMENTS = 8
"""Ablations compare means over everything, so a sample of the corpus is enough: 80 segments, spread evenly."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Excess bits [L, S] after zeroing a `share` of every linear tensor: the largest, and random ones.

    `random` is the mean of several draws; `floor_bits` the standard deviation of their means.
    """

    share: float
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
        top = float(self.top.mean())
        if top <= self.floor_bits:
            return None
        return top / max(float(self.random.mean()), self.floor_bits) / normal_energy_ratio(self.share)

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


def ablate(model: ModelUnderTest, corpus: Corpus) -> dict[float, Ablation]:
    """Zero the largest and, in three draws, random weights of every linear tensor, and measure what it costs."""
    sample = ablation_sample(corpus)
    full = _stacked(model, FULL_PRECISION, sample)
    return {share: _ablation(model, sample, full, share) for share in SHARES}


def ablation_sample(corpus: Corpus) -> Corpus:
    """Return languages and segments spread evenly over the corpus."""
    languages = np.unique(np.linspace(0, len(corpus.languages) - 1, ABLATION_LANGUAGES).astype(int))
    segments = np.unique(np.linspace(0, len(corpus) - 1, ABLATION_SEGMENTS).astype(int))
    return corpus.select(
        languages=tuple(corpus.languages[i] for i in languages), indices=tuple(int(i) for i in segments)
    )


def _ablation(model: ModelUnderTest, sample: Corpus, full: FloatArray, share: float) -> Ablation:
    def excess(kind: str, draw: int) -> FloatArray:
        key: dict[str, Any] = {"zeroed": kind, "share": share}
        if kind == "random":
            key |= {"seed": model.seed, "draw": draw}
        apply = partial(_zeroing, share=share, kind=kind, seed=[model.seed, draw])
        label = f"{share:.2%} {'largest' if kind == 'top' else 'random'} weights zeroed"
        return _stacked(model, Variant(label=label, key=key, apply=apply, divergence=False), sample) - full

    random = [excess("random", draw) for draw in range(RANDOM_DRAWS)]
    # What one draw moves against another is the noise below which a difference means nothing.
    noise = float(np.std([draw.mean() for draw in random], ddof=1))
    return Ablation(share=share, top=excess("top", 0), random=np.mean(random, axis=0), floor_bits=max(noise, 1e-3))


def _zeroing(
    loaded: LoadedModel, *, share: float, kind: str, seed: Sequence[int], modules: frozenset[str] | None = None
) -> AbstractContextManager[None]:
    """Zero a share of every linear tensor, or of those among `modules` alone."""
    import torch

    from evenbits.observe.weights.outliers import random_positions, top_positions
    from evenbits.variants.quantization import zeroed
    from evenbits.variants.quantization.patching import checkpoint_source

    source = checkpoint_source(loaded)
    places = {}
    for number, linear in enumerate(loaded.anatomy.linears):
        if modules is not None and linear.name not in modules:
            continue
        weight = source(linear.name).numpy()
        top = top_positions(weight, share, name=linear.name)
        rng = np.random.default_rng([*seed, number])
        chosen = top if kind == "top" else random_positions(weight.size, top, rng=rng)
        places[linear.name] = torch.from_numpy(chosen)
    return zeroed(loaded, places)


def without_largest(share: float, where: str, modules: Iterable[str]) -> Variant:
    """Return the variant in which the largest `share` of each of `modules`, the tensors of `where`, is zero."""
    apply = partial(_zeroing, share=share, kind="top", seed=(), modules=frozenset(modules))
    key = {"zeroed": "top", "share": share, "where": where}
    return Variant(label=f"{share:.2%} largest weights of {where} zeroed", key=key, apply=apply, divergence=False)


def _stacked(model: ModelUnderTest, variant: Variant, corpus: Corpus) -> FloatArray:
    return bits_of(model.losses(variant, corpus), corpus)


def bits_of(losses: Mapping[str, Losses], corpus: Corpus) -> FloatArray:
    """Return the NLL of every segment in bits, [L, S]."""
    return np.stack([losses[tag].nll for tag in corpus.languages]) / math.log(2)
