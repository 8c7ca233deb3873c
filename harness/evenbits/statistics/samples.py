"""Samples: numbers checked once, where they enter a statistic."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FloatArray", "IntArray", "checked_confidence", "columns", "group_codes", "paired", "spread_of", "vector"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RELATIVE_SPREAD = 1e-12
"""Below this spread, relative to the largest magnitude, values differ by rounding only: the sample is constant."""


def finite(values: ArrayLike, name: str, *, ndim: int) -> FloatArray:
    """Return `values` as float64 with `ndim` axes; raise `ValueError` naming the first entry that is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        place = ", ".join(str(int(i)) for i in bad[0])
        raise ValueError(
            f"{name}[{place}] is {array[tuple(bad[0])]}: {len(bad)} of {array.size} entries are not finite; "
            "leave them out, with a reason, before a statistic is computed"
        )
    return array


def vector(values: ArrayLike, name: str) -> FloatArray:
    """Return `values` as a finite float64 vector; raise `ValueError` naming `name` otherwise."""
    return finite(values, name, ndim=1)


def paired(x: ArrayLike, y: ArrayLike, x_name: str = "x", y_name: str = "y") -> tuple[FloatArray, FloatArray]:
    """Return two finite vectors of equal length; entry i of both belongs to the same unit."""
    first, second = vector(x, x_name), vector(y, y_name)
    if len(first) != len(second):
        raise ValueError(f"{x_name} has {len(first)} entries and {y_name} has {len(second)}: they must be paired")
    return first, second


def columns(predictors: Mapping[str, ArrayLike], n: int, name: str) -> tuple[tuple[str, ...], FloatArray]:
    """Return the names and the matrix [n, k] of named predictors, each a finite vector of length `n`."""
    names = tuple(predictors)
    checked = [vector(predictors[key], f"{name}[{key!r}]") for key in names]
    for key, column in zip(names, checked, strict=True):
        if len(column) != n:
            raise ValueError(f"{name}[{key!r}] has {len(column)} entries, needed {n}")
    return names, np.column_stack(checked) if checked else np.empty((n, 0))


def group_codes(labels: Sequence[Hashable], n: int, name: str) -> IntArray:
    """Return an integer code per unit: equal labels, equal codes, numbered by first appearance."""
    if len(labels) != n:
        raise ValueError(f"{name} has {len(labels)} entries, needed {n}")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def checked_confidence(confidence: float) -> float:
    """Return `confidence` if it lies strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return confidence


def spread_of(values: FloatArray) -> float:
    """Return the standard deviation (ddof 0) of `values`, exactly 0 where they differ by rounding only."""
    if not len(values):
        return 0.0
    spread = float(values.std())
    return spread if spread > RELATIVE_SPREAD * float(np.abs(values).max()) else 0.0
