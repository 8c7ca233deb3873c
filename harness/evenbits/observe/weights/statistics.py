"""Records of weight statistics: spread, tails and sparsity of each tensor, row and input column of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import ModelError, NonFiniteError

__all__ = [
    "SIGMAS",
    "KurtosisClass",
    "SigmaCount",
    "TensorStatistics",
    "TensorSummary",
    "WeightStatistics",
    "WeightSummary",
]

Float64 = NDArray[np.float64]

SIGMAS = (3, 5, 10)
"""Distances from the mean, in standard deviations, beyond which weights are counted (METHOD section 2)."""


class KurtosisClass(StrEnum):
    """A model by its largest per-tensor excess kurtosis (METHOD section 2)."""

    HEAVY = "HEAVY"
    MODERATE = "MODERATE"
    MILD = "MILD"
    GAUSSIAN = "GAUSSIAN"

    @classmethod
    def of(cls, kurtosis: float) -> KurtosisClass:
        """Return the class: > 50 heavy, 15 to 50 moderate, 5 to 15 mild, < 5 gaussian."""
        if kurtosis > 50:
            return cls.HEAVY
        if kurtosis >= 15:
            return cls.MODERATE
        return cls.MILD if kurtosis >= 5 else cls.GAUSSIAN


@dataclass(frozen=True, kw_only=True, slots=True)
class SigmaCount:
    """How many weights lie further than `sigma` standard deviations of their tensor from its mean."""

    sigma: int
    count: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSummary:
    """Statistics of one weight matrix W [O, I] (out x in, also where the checkpoint stores it transposed), as scalars.

    `name`: module path; `layer`: index of the decoder layer, None outside; `part`: attention, mlp, head or embedding;
    `role`: last word of the path, such as `q_proj`.
    `std`, `skew`, `kurtosis`: of the population; kurtosis is excess, as `scipy.stats.kurtosis(bias=True)`. `skew` and
    `kurtosis` are None where the matrix has no spread; `reason` then says so.
    `beyond`: counts beyond 3, 5 and 10 standard deviations. `concentration`: sum of the largest 1 % magnitudes over
    that of the largest 10 %. `gini`, `hoyer`: of the magnitudes.
    """

    name: str
    layer: int | None
    part: str
    role: str
    shape: tuple[int, int]
    mean: float
    std: float
    skew: float | None
    kurtosis: float | None
    reason: str | None = None
    absmax: float
    beyond: tuple[SigmaCount, ...]
    concentration: float
    gini: float
    hoyer: float

    SCALARS = (
        "name",
        "layer",
        "part",
        "role",
        "mean",
        "std",
        "skew",
        "kurtosis",
        "reason",
        "absmax",
        "concentration",
        "gini",
        "hoyer",
    )

    def __post_init__(self) -> None:
        if (self.kurtosis is None or self.skew is None) and not self.reason:
            raise ValueError(f"{self.name}: an undefined kurtosis needs a reason")

    @property
    def n(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]

    def share_beyond(self, sigma: int) -> float:
        """Share of weights further than `sigma` (3, 5 or 10) standard deviations from the mean."""
        for count in self.beyond:
            if count.sigma == sigma:
                return count.share
        raise ValueError(f"counts are kept for {SIGMAS} standard deviations, not {sigma}")

    def to_json(self) -> dict[str, Any]:
        """Return the scalars as plain JSON types; arrays stay out."""
        return {field: getattr(self, field) for field in self.SCALARS} | {
            "shape": list(self.shape),
            "beyond": [{"sigma": c.sigma, "count": c.count, "share": c.share} for c in self.beyond],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> Self:
        """Return what `to_json` wrote; full statistics take the `arrays` that stay out of it."""
        fields = {field: row[field] for field in cls.SCALARS} | dict(arrays or {})
        beyond = tuple(SigmaCount(**count) for count in row["beyond"])
        return cls(shape=(row["shape"][0], row["shape"][1]), beyond=beyond, **fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorStatistics(TensorSummary):
    """Scalars of a weight matrix, and statistics of each of its rows and input columns.

    `row_*` [O], `column_*` [I], float64: the same as the scalars of each row and of each input column. Rows and columns
    without spread have kurtosis -2, the lowest there is. `row_beyond` [3, O]: weights of the row beyond 3, 5, 10
    standard deviations of the whole tensor.
    """

    row_std: Float64
    row_absmax: Float64
    row_kurtosis: Float64
    row_concentration: Float64
    row_gini: Float64
    row_hoyer: Float64
    row_beyond: NDArray[np.int64]
    column_std: Float64
    column_kurtosis: Float64

    ARRAYS = (
        "row_std",
        "row_absmax",
        "row_kurtosis",
        "row_concentration",
        "row_gini",
        "row_hoyer",
        "row_beyond",
        "column_std",
        "column_kurtosis",
    )

    def __post_init__(self) -> None:
        TensorSummary.__post_init__(self)  # `super()` does not find itself in a class that slots made anew
        for field in self.ARRAYS:
            array = getattr(self, field)
            length = self.shape[1] if field.startswith("column") else self.shape[0]
            if array.shape[-1] != length:
                raise ValueError(f"{self.name}: {field} has {array.shape[-1]} entries, the matrix {length}")
            if not np.isfinite(array).all():
                raise NonFiniteError(f"{self.name}: {field} is not finite")
            array.setflags(write=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSummary:
    """Scalars of a checkpoint's linear layers inside decoder layers, `tensors`, in order."""

    tensors: tuple[TensorSummary, ...]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ModelError("weight statistics need at least one linear layer; the model has none that is supported.")

    @property
    def n(self) -> int:
        """Number of weights in `tensors`."""
        return sum(tensor.n for tensor in self.tensors)

    @property
    def heaviest(self) -> TensorSummary | None:
        """The tensor of largest kurtosis; None where no tensor has spread."""
        spread = [tensor for tensor in self.tensors if tensor.kurtosis is not None]
        return max(spread, key=lambda tensor: tensor.kurtosis or 0.0, default=None)

    @property
    def largest_kurtosis(self) -> float | None:
        """Largest per-tensor excess kurtosis; None where no tensor has spread."""
        return None if self.heaviest is None else self.heaviest.kurtosis

    @property
    def kurtosis_class(self) -> KurtosisClass | None:
        """HEAVY, MODERATE, MILD or GAUSSIAN; None where no tensor has spread."""
        return None if self.largest_kurtosis is None else KurtosisClass.of(self.largest_kurtosis)

    def beyond(self, sigma: int) -> SigmaCount:
        """Weights of all tensors beyond `sigma` standard deviations of their own tensor."""
        count = sum(c.count for tensor in self.tensors for c in tensor.beyond if c.sigma == sigma)
        return SigmaCount(sigma=sigma, count=count, share=count / self.n)

    def weighted(self, field: str) -> float:
        """Mean of a scalar (`concentration`, `gini`, `hoyer` ...) over tensors, weighted by their size.

        Tensors in which it is undefined are left out of both sums.
        """
        values = [(getattr(tensor, field), tensor.n) for tensor in self.tensors]
        known = [(value, n) for value, n in values if value is not None]
        if not known:
            raise ModelError(f"{field} is undefined in every tensor: the weights have no spread.")
        return float(sum(value * n for value, n in known) / sum(n for _, n in known))

    def to_json(self) -> dict[str, list[Any]]:
        """Return a column for every scalar, with a place for each tensor: short where there are hundreds."""
        rows = [tensor.to_json() for tensor in self.tensors]
        return {field: [row[field] for row in rows] for field in rows[0]}

    @classmethod
    def from_json(cls, columns: Mapping[str, Sequence[Any]]) -> WeightSummary:
        """Return what `to_json` wrote, of a summary or of full statistics, as a summary."""
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return WeightSummary(tensors=tuple(map(TensorSummary.from_json, rows)))


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightStatistics(WeightSummary):
    """Statistics of a whole checkpoint.

    `outside`: matrices that stay in high precision by default (embedding, untied head); they take no part in the class.
    `whole`: reads the statistics of a matrix by its name, those of its rows and columns included, which take a hundred
    megabytes for a model of 8B.
    """

    fingerprint: str
    outside: tuple[TensorSummary, ...] = ()
    whole: Callable[[str], TensorStatistics]

    def __getitem__(self, name: str) -> TensorStatistics:
        if any(tensor.name == name for tensor in (*self.tensors, *self.outside)):
            return self.whole(name)
        raise KeyError(f"no statistics of {name}; there are {', '.join(t.name for t in self.tensors[:3])} ...")

    def layer_kurtosis(self) -> dict[int, float]:
        """Largest kurtosis among the tensors of each decoder layer."""
        layers: dict[int, float] = {}
        for tensor in self.tensors:
            if tensor.layer is not None and tensor.kurtosis is not None:
                layers[tensor.layer] = max(tensor.kurtosis, layers.get(tensor.layer, -np.inf))
        return layers
