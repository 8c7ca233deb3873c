"""Equivalence: two one-sided tests. Parity is shown by them, never by "not significant".

Null hypothesis: the true value lies at or beyond one of the bounds. Schuirmann 1987: reject it at level alpha where the
(1 - 2 alpha) interval lies strictly inside the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.numbers import percent
from evenbits.rows import Row
from evenbits.statistics.bootstrap import percentile_interval
from evenbits.statistics.samples import FloatArray

__all__ = ["LOG_PARITY", "Equivalence", "bootstrap_equivalence"]

LOG_PARITY = math.log(1.25)
"""Bound of the log disparity ratio within which two groups are at parity: ratios from .8 to 1.25."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivalence(Row):
    """Two one-sided tests of `estimate` against -margin and +margin.

    `estimate` carries the (1 - 2 alpha) interval. `p_value`: the larger of the two. `equivalent`: None: undefined.
    """

    estimate: Estimate
    margin: float
    alpha: float
    p_value: float | None
    equivalent: bool | None

    @classmethod
    def undefined(cls, reason: str, *, margin: float, alpha: float, n: int = 0) -> Equivalence:
        """Return an equivalence test that could not be made; `reason` says why."""
        estimate = Estimate.undefined(reason, n=n, method="two one-sided tests")
        return cls(estimate=estimate, margin=margin, alpha=alpha, p_value=None, equivalent=None)


def _check(margin: float, alpha: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be above 0, got {margin}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and .5, got {alpha}")


def bootstrap_equivalence(
    value: float, replicates: ArrayLike, *, n: int, margin: float = LOG_PARITY, alpha: float = 0.05
) -> Equivalence:
    """Return whether `value` lies inside +-margin, from its bootstrap `replicates` [B].

    p per side is (b + 1) / (B + 1), b the replicates at or beyond that bound; the interval is made of the matching
    order statistics, so that p <= alpha and "interval inside the bounds" are one and the same decision. A replicate in
    which the value is undefined (NaN) counts against equivalence on both sides.
    """
    _check(margin, alpha)
    drawn = np.asarray(replicates, dtype=np.float64)
    if drawn.ndim != 1 or len(drawn) * alpha < 1:
        raise ValueError(f"replicates must be a vector of at least {math.ceil(1 / alpha)}, got shape {drawn.shape}")
    down, up = _worst_cases(drawn)
    low, high = percentile_interval(down, 1 - 2 * alpha)[0], percentile_interval(up, 1 - 2 * alpha)[1]
    beyond = max(int(np.count_nonzero(down <= -margin)), int(np.count_nonzero(up >= margin)))
    p = (beyond + 1) / (len(drawn) + 1)
    lost = int(np.count_nonzero(~np.isfinite(drawn)))
    estimate = Estimate(
        value=value,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        n=n,
        method=f"two one-sided tests; {percent(1 - 2 * alpha)} bootstrap interval, {len(drawn)} resamples",
        reason=f"undefined in {lost} of {len(drawn)} resamples, which count against equivalence" if lost else None,
    )
    return Equivalence(
        estimate=estimate, margin=margin, alpha=alpha, p_value=p, equivalent=-margin < low and high < margin
    )


def _worst_cases(replicates: FloatArray) -> tuple[FloatArray, FloatArray]:
    unknown = np.isnan(replicates)
    return np.where(unknown, -np.inf, replicates), np.where(unknown, np.inf, replicates)
