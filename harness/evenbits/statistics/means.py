"""Means and ratios of few segments with an interval that holds at the sizes people run.

A percentile or BCa interval of five or six segments covers .83 to .65 instead of .95. Student's t holds for symmetric
values, the bootstrap-t (Efron & Tibshirani 1993, section 12.5) for skewed ones; the wider of the two on each side is
taken. Measured over 5 to 50 segments: .94 to .98 for normal and t3 values, .87 to .95 for lognormal ones (.93 and more
from 20). No interval can know what the sample has not seen: where one segment in ten is hit ten times as hard as the
others, six segments show no hit at all in half of the samples. Hence `FEWEST_FOR_PASS`.

Shapes: B resamples, N units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.numbers import percent
from evenbits.statistics.bootstrap import CHUNK, RESAMPLES, checked_resamples, percentile_interval, resample_counts
from evenbits.statistics.samples import (
    RELATIVE_SPREAD,
    FloatArray,
    checked_confidence,
    paired,
    spread_of,
    vector,
)

__all__ = ["FEWEST_FOR_PASS", "mean_interval", "ratio_of_means", "ratio_of_sums", "relative_increase"]

FEWEST_FOR_PASS = 10
"""Segments below which nothing is passed by its interval.

Measured at a true mean exactly on the limit, where 2.5 % may pass: of normal values 2 to 3 % do, of lognormal ones 10 %
at 10 segments as at 5; but a heavy tail of which the sample shows nothing passes in 55 % at 5, 35 % at 10 and 12 % at
20."""


DOUBLINGS = 100
"""How often a search for a limit doubles its reach before the limit is said to be open."""


def mean_interval(
    x: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Return the mean of `x` with the wider of Student's t and the bootstrap-t interval on each side.

    Two values get the t interval alone; a single value has none; equal values have one without width, and say so.
    """
    values = vector(x, "x")
    checked_confidence(confidence)
    checked_resamples(resamples)
    n = len(values)
    if n == 0:
        return Estimate.undefined("no values", method="mean")
    value = float(values.mean())
    if n == 1:
        return Estimate(value=value, n=1, method="mean", reason="no interval: a single value")
    if spread_of(values) == 0:
        return Estimate(
            value=value,
            low=value,
            high=value,
            n=n,
            method=f"mean; constant sample, {percent(confidence)} interval",
            reason=f"all {n} values are equal: the interval has no width",
        )
    low, high = studentised_limits(values - value, rng=rng, confidence=confidence, resamples=resamples)
    kind = "t" if n == 2 else f"the wider of t and bootstrap-t ({resamples} resamples)"
    return Estimate(
        value=value, low=value + low, high=value + high, n=n, method=f"mean; {kind}, {percent(confidence)} interval"
    )


def studentised_limits(
    centred_N: FloatArray, *, rng: np.random.Generator, confidence: float, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return lower (below 0) and upper distance of the limits from the mean, for values centred on it; n >= 2."""
    from scipy.special import stdtrit

    n = len(centred_N)
    error = float(centred_N.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    if n == 2:
        return -half, half
    means_B2 = _resampled(np.column_stack([centred_N, centred_N**2]), rng=rng, resamples=resamples)
    return _distances(means_B2[:, 0], means_B2[:, 1], n=n, error=error, half=half, confidence=confidence)


def _resampled(columns_NK: FloatArray, *, rng: np.random.Generator, resamples: int) -> FloatArray:
    """Return the mean of each column in each resample of its rows, [B, K]."""
    n = len(columns_NK)
    block = max(1, CHUNK // n)
    return np.concatenate(
        [
            resample_counts(n, min(block, resamples - start), rng) @ columns_NK / n
            for start in range(0, resamples, block)
        ]
    )


def _distances(
    means_B: FloatArray, squares_B: FloatArray, *, n: int, error: float, half: float, confidence: float
) -> tuple[float, float]:
    """Return `studentised_limits` of values with standard error `error` and Student half width `half`.

    `means_B`, `squares_B`: of each resample the mean of the values, which are centred, and that of their squares.
    """
    variances = np.maximum(squares_B - means_B**2, 0.0) * n / (n - 1)
    flat = variances <= 1e-9 * error**2 * (n - 1)  # of what has no spread, or rounding alone: as far out as can be
    t = means_B / np.sqrt(np.where(flat, 1.0, variances) / n)
    t[flat & (means_B != 0)] = np.copysign(np.inf, means_B[flat & (means_B != 0)])
    low, high = percentile_interval(t, confidence)
    # a limit beyond every resample with spread (n = 3, 4) has no bootstrap-t: t alone
    down = half if not math.isfinite(high) else max(half, high * error)
    up = half if not math.isfinite(low) else max(half, -low * error)
    return -down, up


def ratio_of_sums(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    rng: np.random.Generator,
    offset: float = 0.0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    what: str = "ratio of sums",
) -> Estimate:
    """Return sum(numerator) / sum(denominator) + `offset`, with the interval of the mean of its linearised values.

    A unit adds (a - ratio b) / mean(b) to the ratio (delta method; Cochran 1977, section 6.3). Undefined where the
    denominators do not sum to more than 0; fewer than three units have no interval.
    """
    a, b = paired(numerator, denominator, "numerator", "denominator")
    few = _without_interval(a, b, offset=offset, what=what)
    if few is not None:
        return few
    n, ratio = len(a), float(a.sum()) / float(b.sum())
    value = ratio + offset
    mean = mean_interval((a - ratio * b) / b.mean(), rng=rng, confidence=confidence, resamples=resamples)
    low, high = (mean.low or 0.0) - (mean.value or 0.0), (mean.high or 0.0) - (mean.value or 0.0)
    return Estimate(
        value=value,
        low=value + low,
        high=value + high,
        n=n,
        method=mean.method.replace("mean;", f"{what};", 1),
        reason=mean.reason,
    )


def _without_interval(a: FloatArray, b: FloatArray, *, offset: float = 0.0, what: str) -> Estimate | None:
    """Return what there is of sum(a) / sum(b) + `offset` where that is undefined or has too few units, else None."""
    n, total = len(a), float(b.sum())
    if n == 0:
        return Estimate.undefined("no values", method=what)
    if total <= 0:
        return Estimate.undefined(f"the denominator sums to {total:.6g}, which is not above 0", n=n, method=what)
    if n < 3:
        reason = f"no interval: {n} units, at least 3 are needed"
        return Estimate(value=float(a.sum()) / total + offset, n=n, method=what, reason=reason)
    return None


def relative_increase(
    quantized: ArrayLike,
    full: ArrayLike,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return sum NLL quantized / sum NLL full - 1 with its interval over paired segments."""
    return ratio_of_sums(
        quantized, full, rng=rng, offset=-1.0, confidence=confidence, resamples=resamples, what="relative increase"
    )


def ratio_of_means(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    what: str = "ratio of means",
) -> Estimate:
    """Return mean(numerator) / mean(denominator) with Fieller's interval, for denominators that vary.

    The interval holds every B for which that of the mean of a - B b, the wider of t and bootstrap-t as in
    `mean_interval`, holds 0 (Fieller 1954). The variance is that at B, not at the estimate as in `ratio_of_sums`, which
    is too sure on the one side and not sure enough on the other where few noisy units make up the denominator. Where
    its mean is not clear of 0, one limit or both do not exist: None, and `reason` says so.
    Undefined where the denominators do not sum to more than 0; fewer than three units have no interval.
    """
    a, b = paired(numerator, denominator, "numerator", "denominator")
    checked_confidence(confidence)
    checked_resamples(resamples)
    few = _without_interval(a, b, what=what)
    if few is not None:
        return few
    n, value = len(a), float(a.sum()) / float(b.sum())
    left = a - value * b
    if float(left.std()) <= RELATIVE_SPREAD * float(np.abs(a).max()):
        return Estimate(
            value=value,
            low=value,
            high=value,
            n=n,
            method=f"{what}; constant sample, {percent(confidence)} interval",
            reason=f"all {n} units have the same ratio: the interval has no width",
        )
    pairs = _Pairs.drawn(left - left.mean(), b, rng=rng, resamples=resamples, confidence=confidence)
    low, high, reason = _fieller(pairs, value)
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=n,
        method=f"{what}; Fieller's limits by the wider of t and bootstrap-t ({resamples} resamples), "
        f"{percent(confidence)} interval",
        reason=reason,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    """What decides whether 0 lies in the interval of the mean of d = e - x b, for any x, without a new draw.

    `left` e [N] has mean 0; `right` [N] is b less its mean, `mean`. `moments` [B, 5]: of each resample the means of e,
    b, e^2, e b and b^2, with b centred.
    """

    left: FloatArray
    right: FloatArray
    mean: float
    moments: FloatArray
    confidence: float

    @classmethod
    def drawn(
        cls, left_N: FloatArray, b_N: FloatArray, *, rng: np.random.Generator, resamples: int, confidence: float
    ) -> _Pairs:
        """Return the moments of resamples that are drawn once."""
        mean = float(b_N.mean())
        right = b_N - mean
        columns = np.column_stack([left_N, right, left_N**2, left_N * right, right**2])
        moments = _resampled(columns, rng=rng, resamples=resamples)
        return cls(left=left_N, right=right, mean=mean, moments=moments, confidence=confidence)

    def limits(self, e: float, b: float) -> tuple[float, float]:
        """Return the limits of the mean of `e` times e plus `b` times b."""
        from scipy.special import stdtrit

        n = len(self.left)
        error = float((e * self.left + b * self.right).std(ddof=1)) / math.sqrt(n)
        half = float(stdtrit(n - 1, (1 + self.confidence) / 2)) * error
        means_B = self.moments[:, :2] @ np.array([e, b])
        squares_B = self.moments[:, 2:] @ np.array([e * e, 2 * e * b, b * b])
        low, high = _distances(means_B, squares_B, n=n, error=error, half=half, confidence=self.confidence)
        return b * self.mean + low, b * self.mean + high


def _fieller(pairs: _Pairs, ratio: float) -> tuple[float | None, float | None, str | None]:
    """Return the limits of `ratio` and, where one is open, why.

    Both exist where the denominator's interval lies above 0. Where it does not, any ratio large enough is possible, but
    a numerator that is clear of 0 still bounds the ratio on the side of 0: the denominator is above 0 in truth.
    """
    bottom, top = pairs.limits(1.0, ratio)  # of the numerator: a = e + ratio b
    if pairs.limits(0.0, 1.0)[0] > 0:
        step = pairs.limits(1.0, 0.0)[1] / pairs.mean
        low, high = _crossing(pairs, -step), _crossing(pairs, step)
    else:
        low = _crossing(pairs, -ratio, grow=False) if bottom > 0 else None
        high = _crossing(pairs, -ratio, grow=False) if top < 0 else None
    missing = [name for name, limit in (("lower", low), ("upper", high)) if limit is None]
    return (
        None if low is None else ratio + low,
        None if high is None else ratio + high,
        f"no {' and no '.join(missing)} limit: the mean of the denominator, {pairs.mean:.4g}, is not clear of 0"
        if missing
        else None,
    )


def _crossing(pairs: _Pairs, end: float, *, grow: bool = True) -> float | None:
    """Return the x between 0 and `end` at which 0 leaves the interval of the mean of e - x b, None where it stays.

    `grow`: `end` is doubled until 0 lies outside.
    """
    from scipy.optimize import brentq

    def edge(x: float) -> float:  # the mean of e - x b is -x mean(b): the limit on the side of 0
        return pairs.limits(1.0, -x)[0 if end < 0 else 1]

    start = 0.0
    for _ in range(DOUBLINGS if grow else 1):
        if edge(end) * edge(0.0) < 0:
            return float(brentq(edge, start, end, xtol=1e-12 * abs(end)))
        start, end = end, 2 * end
    return None
