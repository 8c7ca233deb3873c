"""Kurtosis overlap: how much of a language's activation energy enters weights with heavy tails. Pure numpy.

Shapes: P decoder layers, L languages, C input channels of all matrix products of a layer, one after the other (a tensor
that q, k and v read counts in each of them).

Energy of a channel is E[x_i^2] over text tokens. Within each decoder layer it is divided by the layer's total, so that
no layer counts for its scale, and layers are summed by their share of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.observe.activations.statistics import ActivationStatistics
from evenbits.observe.weights.statistics import TensorSummary, WeightStatistics

__all__ = ["QUANTILE", "Overlap", "kurtosis_overlap"]

Float64 = NDArray[np.float64]

QUANTILE = 0.9
"""Input columns above this quantile of all columns' kurtosis, and tensors above this quantile of all tensors', are the
high-kurtosis regions: the most heavy-tailed tenth of each. Fixed before anything was correlated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Overlap of every language with the high-kurtosis regions of one model.

    `share` [P]: of parameters. `high[l, k]` [P, P, L]: energy share of layer l that would enter high regions if layer l
    had the kurtosis of layer k; NaN where the two have different shapes. `mean` [P, P, L]: the same for the mean column
    kurtosis weighted by energy. The model itself is the diagonal. `columns` [L]: energy share of high columns alone,
    normalised in each product instead of each layer. `high_columns`, `high_tensors`: how many there are.
    """

    languages: tuple[str, ...]
    share: Float64
    high: Float64
    mean: Float64
    columns: Float64
    high_columns: int
    high_tensors: tuple[str, ...]

    @property
    def quantile_form(self) -> Float64:
        """Share of energy in high-kurtosis regions, [L]: what the criterion uses."""
        return self.permuted(range(len(self.share)))

    @property
    def continuous_form(self) -> Float64:
        """Column kurtosis weighted by energy, [L]."""
        own = np.arange(len(self.share))
        return np.asarray(self.share @ self.mean[own, own])

    def permuted(self, order: Sequence[int]) -> Float64:
        """Return the quantile form if layer l had the kurtosis of layer `order[l]`, [L]."""
        return np.asarray(self.share @ self.high[np.arange(len(self.share)), np.asarray(order)])

    def orders(self, *, rng: np.random.Generator, most: int) -> list[tuple[int, ...]]:
        """Return up to `most` different orders of the layers, none the layers' own, shapes kept; [] where none exists.

        Layers are exchanged with layers of the same shapes only.
        """
        fits = ~np.isnan(self.high[:, :, 0])
        own = tuple(range(len(fits)))
        found: dict[tuple[int, ...], None] = {}
        if fits.sum() == len(fits):
            return []
        for _ in range(20 * most):
            order = np.arange(len(fits))
            for members in {tuple(np.flatnonzero(row)) for row in fits}:
                order[list(members)] = rng.permutation(np.array(members))
            drawn = tuple(int(place) for place in order)
            if drawn != own:
                found[drawn] = None
            if len(found) == most:
                break
        return list(found)


def kurtosis_overlap(
    statistics: Mapping[str, ActivationStatistics], weights: WeightStatistics, *, quantile: float = QUANTILE
) -> Overlap:
    """Return the overlap of each language in `statistics`; only products inside decoder layers take part.

    Columns without spread have kurtosis -2 (nothing stands out there), tensors without spread none at all.
    """
    tensors = [tensor for tensor in weights.tensors if tensor.layer is not None]
    by_column = {tensor.name: weights[tensor.name].column_kurtosis for tensor in tensors}
    columns = np.concatenate(list(by_column.values()))
    column_limit = float(np.quantile(columns, quantile))
    known = [tensor.kurtosis for tensor in tensors if tensor.kurtosis is not None]
    tensor_limit = float(np.quantile(known, quantile)) if known else np.inf
    high_tensors = tuple(t.name for t in tensors if t.kurtosis is not None and t.kurtosis > tensor_limit)
    layers = [[t for t in tensors if t.layer == layer] for layer in sorted({t.layer for t in tensors})]  # type: ignore[type-var]
    energy = [_energy(members, statistics) for members in layers]
    kurtosis = [np.concatenate([by_column[t.name] for t in members]) for members in layers]
    regions = [
        np.concatenate([(by_column[t.name] > column_limit) | (t.name in high_tensors) for t in members]).astype(float)
        for members in layers
    ]
    shapes = [tuple(t.shape for t in members) for members in layers]
    sizes = np.array([sum(t.n for t in members) for members in layers], dtype=np.float64)
    return Overlap(
        languages=tuple(statistics),
        share=sizes / sizes.sum(),
        high=_crossed(energy, regions, shapes),
        mean=_crossed(energy, kurtosis, shapes),
        columns=_by_product(tensors, statistics, {name: values > column_limit for name, values in by_column.items()}),
        high_columns=int((columns > column_limit).sum()),
        high_tensors=high_tensors,
    )


def _energy(members: Sequence[TensorSummary], statistics: Mapping[str, ActivationStatistics]) -> Float64:
    """Return the energy of a layer's channels over its total, [L, C]; equal shares where a language has none."""
    energy_LC = np.stack([np.concatenate([one.channel_square(t.name) for t in members]) for one in statistics.values()])
    total_L1 = energy_LC.sum(axis=1, keepdims=True)
    equal = np.full_like(energy_LC, 1 / energy_LC.shape[1])
    return np.asarray(np.divide(energy_LC, total_L1, out=equal, where=total_L1 > 0))


def _crossed(energy: Sequence[Float64], values: Sequence[Float64], shapes: Sequence[object]) -> Float64:
    """Return energy of layer l over values of layer k, [P, P, L], NaN where shapes differ."""
    crossed = np.full((len(energy), len(energy), len(energy[0])), np.nan)
    for row, energy_LC in enumerate(energy):
        for column, value_C in enumerate(values):
            if shapes[row] == shapes[column]:
                crossed[row, column] = energy_LC @ value_C
    return crossed


def _by_product(
    tensors: Sequence[TensorSummary],
    statistics: Mapping[str, ActivationStatistics],
    high: Mapping[str, NDArray[np.bool_]],
) -> Float64:
    """Return the energy share of high columns, normalised in each product, products by parameter share; [L]."""
    total = sum(tensor.n for tensor in tensors)
    return np.array(
        [
            sum(t.n / total * float(one.energy(t.name)[high[t.name]].sum()) for t in tensors)
            for one in statistics.values()
        ]
    )
