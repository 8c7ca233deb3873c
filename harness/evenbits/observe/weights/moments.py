"""Central moments of a matrix, of its rows and of its columns, in one walk over cached blocks.

Shapes: x_RI is a block of rows; power sums are [4, rows] and [4, columns], orders 1 to 4 about one common shift.
Sums are kept in float64. Moments are the population's, so that excess kurtosis equals
`scipy.stats.kurtosis(fisher=True, bias=True)` and skewness `scipy.stats.skew(bias=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOWEST_KURTOSIS", "Moments", "PowerSums", "matrix_moments", "moments_of"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LOWEST_KURTOSIS = -2.0
"""Smallest excess kurtosis any distribution can have (Pearson: kurtosis >= skewness^2 + 1). Given to rows and columns
without spread, whose kurtosis is 0 / 0: nothing in them stands out."""

UNSTABLE_RATIO = 30.0
"""|mean - shift| / std beyond which power sums about the shift lose more than about 1e-9 and are taken anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Mean, population standard deviation, skewness and excess kurtosis of each line of an array, float64.

    Where `flat` (no spread beyond rounding, the rule of scipy), skewness is 0 and kurtosis `LOWEST_KURTOSIS`.
    """

    mean: Float64
    std: Float64
    skew: Float64
    kurtosis: Float64
    flat: NDArray[np.bool_]


class PowerSums:
    """Sums of (w - shift)^p, p = 1..4, by row and by column; blocks are added from the first row to the last."""

    def __init__(self, shape: tuple[int, int], shift: float) -> None:
        self.shift = shift
        self.rows = np.zeros((4, shape[0]))
        self.columns = np.zeros((4, shape[1]))
        self._done = 0

    def add(self, x_RI: Float32, powers: Float64) -> None:
        """Add a block of rows. `powers` [4, >= R, I] is scratch memory, small enough to stay in the cache."""
        count, ins = x_RI.shape
        p = powers[:, :count]
        np.copyto(p[0], x_RI)
        p[0] -= self.shift
        np.multiply(p[0], p[0], out=p[1])
        np.multiply(p[0], p[1], out=p[2])
        np.multiply(p[1], p[1], out=p[3])
        # Products with ones add up several times faster than sums along an axis; with two columns and one power at a
        # time they are matrix products so small that BLAS keeps them on this thread.
        self.rows[:, self._done : self._done + count] = np.matmul(p, _ones(ins))[..., 0]
        self.columns += np.matmul(_ones(count).T, p)[:, 0]
        self._done += count

    def of_rows(self) -> tuple[Moments, NDArray[np.int64]]:
        """Moments of every row, and the rows whose sums are too far from the shift to be exact."""
        return _finish(self.rows, self.columns.shape[1], self.shift)

    def of_columns(self) -> tuple[Moments, NDArray[np.int64]]:
        """Moments of every column, and the columns whose sums are too far from the shift to be exact."""
        return _finish(self.columns, self.rows.shape[1], self.shift)


@lru_cache(maxsize=16)
def _ones(n: int) -> Float64:
    ones = np.ones((n, 2))
    ones.setflags(write=False)
    return ones


def matrix_moments(rows: Moments) -> Moments:
    """Join the moments of equally long rows into those of the whole matrix; arrays of length 1.

    Chan et al. (1979) generalised to the fourth order (Pebay 2008, SAND2008-6212): stable because every term is
    central, and the large ones have one sign.
    """
    m2, spread = rows.std**2, ~rows.flat
    m3 = np.where(spread, rows.skew, 0.0) * rows.std**3
    m4 = np.where(spread, rows.kurtosis + 3.0, 0.0) * m2**2
    mean = rows.mean.mean()
    d = rows.mean - mean
    total2 = (m2 + d**2).mean()
    total3 = (m3 + 3 * d * m2 + d**3).mean()
    total4 = (m4 + 4 * d * m3 + 6 * d**2 * m2 + d**4).mean()
    return _standardised(*(np.array([value]) for value in (mean, total2, total3, total4)))


def moments_of(x_LN: Float32 | Float64) -> Moments:
    """Moments of each line of `x_LN` about its own mean (two passes, float64)."""
    x = np.asarray(x_LN, dtype=np.float64)
    mean = x.mean(axis=1)
    d = x - mean[:, None]
    square = d * d
    m2 = square.mean(axis=1)
    m3 = (square * d).mean(axis=1)
    m4 = (square * square).mean(axis=1)
    return _standardised(mean, m2, m3, m4)


def _finish(sums: Float64, count: int, shift: float) -> tuple[Moments, NDArray[np.int64]]:
    """Turn power sums [4, K] about `shift` into central moments by the binomial formula."""
    s1, s2, s3, s4 = sums / count
    m2 = np.maximum(s2 - s1**2, 0.0)
    m3 = s3 - 3 * s1 * s2 + 2 * s1**3
    m4 = s4 - 4 * s1 * s3 + 6 * s1**2 * s2 - 3 * s1**4
    unstable = np.flatnonzero(s1**2 > UNSTABLE_RATIO**2 * m2)
    return _standardised(s1 + shift, m2, m3, m4), unstable


def _standardised(mean: Float64, m2: Float64, m3: Float64, m4: Float64) -> Moments:
    # scipy's rule: spread below the resolution of the mean is rounding, not spread.
    flat = m2 <= (np.finfo(np.float64).eps * mean) ** 2
    safe = np.where(flat, 1.0, m2)
    return Moments(
        mean=mean,
        std=np.sqrt(m2),
        skew=np.where(flat, 0.0, m3 / safe**1.5),
        kurtosis=np.where(flat, LOWEST_KURTOSIS, m4 / safe**2 - 3.0),
        flat=flat,
    )
