"""Bootstrap: resamples of units, bias-corrected accelerated intervals, and what they give for means and ratios.

Sources: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, sections 14.3 and 15.4; the arithmetic is that of
`scipy.stats.bootstrap(method="BCa")`, with which the tests compare it draw by draw.
Shapes: B resamples, N units, L languages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.samples import FloatArray, IntArray, checked_confidence, paired, spread_of, vector

__all__ = [
    "RESAMPLES",
    "bootstrap_estimate",
    "mean_interval",
    "mean_intervals",
    "percentile_interval",
    "ratio_of_sums",
    "relative_increase",
    "t_interval",
]

RESAMPLES = 2000
FEWEST_RESAMPLES = 100  # fewer cannot place a 95 % limit: 2.5 resamples would lie beyond it
UNDEFINED_SHARE = 0.05  # more undefined resamples than this and the rest no longer stand for the whole
CHUNK = 2_000_000  # entries of one index block: 16 MB

IndexStatistic = Callable[[IntArray], FloatArray]
"""Maps resamples, given as unit indices [B, n], to one number each [B]; NaN where a resample leaves it undefined."""


def checked_resamples(resamples: int) -> int:
    """Return `resamples` if there are enough of them to place an interval."""
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"resamples must be at least {FEWEST_RESAMPLES}, got {resamples}")
    return resamples


def replicates_of(
    statistic: IndexStatistic, n: int, *, rng: np.random.Generator, resamples: int, width: int = 1
) -> FloatArray:
    """Return `statistic` on `resamples` draws of `n` units with replacement, in blocks of bounded memory.

    `width`: numbers that the statistic gathers per drawn unit.
    """
    block = max(1, CHUNK // max(1, n * width))
    parts = [statistic(rng.integers(0, n, (min(block, resamples - start), n))) for start in range(0, resamples, block)]
    return np.concatenate(parts)


def jackknife_of(statistic: IndexStatistic, n: int) -> FloatArray:
    """Return `statistic` with each of `n` units left out in turn."""
    everyone = np.arange(n - 1)
    block = max(1, CHUNK // max(1, n - 1))
    parts = []
    for start in range(0, n, block):
        left_out = np.arange(start, min(n, start + block))
        parts.append(statistic(everyone + (everyone >= left_out[:, None])))
    return np.concatenate(parts)


def resample_counts(n: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each of `n` units is drawn in each resample: [B, N], rows sum to `n`."""
    drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def bca_limits(
    value: float, replicates: FloatArray, jackknives: Sequence[FloatArray], confidence: float
) -> tuple[float, float]:
    """Return the BCa limits; `jackknives` holds the leave-one-out values of each independent sample.

    Raises `ArithmeticError` where the bias correction is infinite (the value lies beyond every replicate).
    """
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 - a third of a second at import, which collecting evals must not pay

    # a resample that only reorders the units equals the estimate up to rounding: a tie, half below and half above
    tie = 1e-12 * max(abs(value), float(np.abs(replicates).max()))
    below = (np.count_nonzero(replicates < value - tie) + np.count_nonzero(replicates <= value + tie)) / 2
    below /= len(replicates)
    if not 0 < below < 1:
        raise ArithmeticError("the estimate lies beyond every resample")
    bias = float(ndtri(below))
    influences = [(len(values) - 1) * (values.mean() - values) for values in jackknives]
    scale = sum(float((u**2).sum()) / len(u) ** 2 for u in influences)
    skew = sum(float((u**3).sum()) / len(u) ** 3 for u in influences)
    acceleration = skew / (6 * scale**1.5) if scale > 0 else 0.0
    tail = (1 - confidence) / 2
    shifted = bias + np.array([ndtri(tail), -ndtri(tail)])
    levels = ndtr(bias + shifted / (1 - acceleration * shifted))
    if not np.isfinite(levels).all():
        raise ArithmeticError("the acceleration is too large")
    low, high = np.quantile(replicates, levels)
    return float(low), float(high)


def percentile_interval(replicates: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return order statistics of `replicates` that hold `confidence` between them; infinite replicates are allowed.

    With B replicates and tail t the limits are the k-th smallest and k-th largest, k = floor(t (B + 1)), so that
    lying inside bounds is the same as two one-sided bootstrap p-values (b + 1) / (B + 1) of at most t.
    """
    tail = (1 - checked_confidence(confidence)) / 2
    rank = max(1, math.floor(tail * (len(replicates) + 1) + 1e-9))  # 1e-9: .05 * 2000 must not fall to 99.99...
    ordered = np.sort(replicates)
    return float(ordered[rank - 1]), float(ordered[len(ordered) - rank])


def interval_estimate(
    value: float,
    replicates: FloatArray,
    jackknives: Sequence[FloatArray],
    *,
    n: int,
    what: str,
    confidence: float,
) -> Estimate:
    """Return `value` with its BCa interval from `replicates`, or with the reason why it has none."""
    held = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(held)
    tried = f"{len(replicates)} resamples"
    if lost > UNDEFINED_SHARE * len(replicates):
        reason = f"no interval: undefined in {lost} of {tried}"
        return Estimate(value=value, n=n, method=what, reason=reason)
    limited = f"undefined in {lost} of {tried}, which are left out" if lost else None
    if np.ptp(held) <= 1e-12 * max(1e-300, float(np.abs(held).max())):
        flat = f"every one of {tried} gives the same value: the interval has no width"
        return Estimate(value=value, low=value, high=value, n=n, method=f"{what}; bootstrap, {tried}", reason=flat)
    finite_knives = [values[np.isfinite(values)] for values in jackknives]
    try:
        low, high = bca_limits(value, held, [values for values in finite_knives if len(values) > 1], confidence)
        kind = "BCa"
    except ArithmeticError as problem:
        low, high = percentile_interval(held, confidence)
        kind, limited = "percentile", f"BCa is undefined ({problem}): percentile interval instead"
    method = f"{what}; {kind} {confidence:.0%} interval, {tried}"
    return Estimate(value=value, low=low, high=high, n=n, method=method, reason=limited)


def bootstrap_estimate(
    statistic: IndexStatistic,
    n: int,
    *,
    what: str,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    width: int = 1,
) -> Estimate:
    """Return any statistic of `n` units with its BCa interval.

    `statistic` maps index rows [B, m] to values [B] (NaN: undefined); `what` names it in `Estimate.method`.
    """
    checked_confidence(confidence)
    checked_resamples(resamples)
    value = float(statistic(np.arange(n)[None, :])[0])
    if not math.isfinite(value):
        return Estimate.undefined(f"{what} is undefined on the {n} units", n=n, method=what)
    replicates = replicates_of(statistic, n, rng=rng, resamples=resamples, width=width)
    knives = jackknife_of(statistic, n)
    return interval_estimate(value, replicates, [knives], n=n, what=what, confidence=confidence)


def t_interval(x: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the mean of `x` with Student's t interval; exact for normal values, needs n >= 2."""
    values = vector(x, "x")
    checked_confidence(confidence)
    return _mean_without_bootstrap(values, confidence) or _mean_by_t(values, confidence)


def mean_interval(
    x: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Return the mean of `x` with its BCa interval; two values get the t interval, one or equal ones say so."""
    return mean_intervals({"x": x}, rng=rng, confidence=confidence, resamples=resamples)["x"]


def mean_intervals(
    samples: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Return the mean of each sample (one per language, say) with its BCa interval.

    Samples of equal length share their draws: entry i is the same aligned segment in all of them. That changes no
    interval, and a later difference between two of them stays paired.
    """
    checked_confidence(confidence)
    checked_resamples(resamples)
    checked = {key: vector(values, key) for key, values in samples.items()}
    replicates = _mean_replicates(checked, rng=rng, resamples=resamples)
    return {key: _mean_estimate(values, replicates[key], confidence) for key, values in checked.items()}


def _mean_replicates(
    samples: Mapping[str, FloatArray], *, rng: np.random.Generator, resamples: int
) -> dict[str, FloatArray]:
    """Return resampled means [B] of each sample, from one set of draws per sample size."""
    replicates: dict[str, FloatArray] = {}
    for n in dict.fromkeys(len(values) for values in samples.values() if len(values)):
        names = [key for key, values in samples.items() if len(values) == n]
        # centred first: a small spread around a large mean would drown in rounding
        centres = np.array([samples[key].mean() for key in names])
        centred = np.column_stack([samples[key] for key in names]) - centres
        block = max(1, CHUNK // n)
        parts = [
            resample_counts(n, min(block, resamples - start), rng) @ centred / n for start in range(0, resamples, block)
        ]
        means = np.concatenate(parts) + centres
        replicates |= {key: means[:, place] for place, key in enumerate(names)}
    return replicates | {key: np.empty(0) for key in samples if key not in replicates}


def _mean_estimate(values: FloatArray, replicates: FloatArray, confidence: float) -> Estimate:
    n = len(values)
    plain = _mean_without_bootstrap(values, confidence)
    if plain is not None:
        return plain
    if n == 2:
        return _mean_by_t(values, confidence)
    knives = (values.sum() - values) / (n - 1)
    return interval_estimate(
        float(values.mean()), replicates, [knives], n=n, what="mean", confidence=confidence
    )  # fmt: skip


def _mean_without_bootstrap(values: FloatArray, confidence: float) -> Estimate | None:
    n = len(values)
    if n == 0:
        return Estimate.undefined("no values", method="mean")
    value = float(values.mean())
    if n == 1:
        return Estimate(value=value, n=1, method="mean", reason="no interval: a single value")
    if spread_of(values) == 0:
        reason = f"all {n} values are equal: the interval has no width"
        method = f"mean; constant sample, {confidence:.0%} interval"
        return Estimate(value=value, low=value, high=value, n=n, method=method, reason=reason)
    return None


def _mean_by_t(values: FloatArray, confidence: float) -> Estimate:
    from scipy.special import stdtrit  # noqa: PLC0415 - a third of a second at import, which collecting evals must not pay

    n = len(values)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(n))
    value = float(values.mean())
    method = f"mean; t {confidence:.0%} interval, {n - 1} degrees of freedom"
    return Estimate(value=value, low=value - half, high=value + half, n=n, method=method)


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
    """Return sum(numerator) / sum(denominator) + `offset` with its BCa interval over paired units.

    Undefined where the denominators do not sum to more than 0.
    """
    a, b = paired(numerator, denominator, "numerator", "denominator")
    n = len(a)
    if n == 0:
        return Estimate.undefined("no values", method=what)
    total = float(b.sum())
    if total <= 0:
        return Estimate.undefined(f"the denominator sums to {total:.6g}, which is not above 0", n=n, method=what)
    value = float(a.sum()) / total + offset
    if n < 3:
        reason = f"no interval: {n} units, at least 3 are needed"
        return Estimate(value=value, n=n, method=what, reason=reason)

    def statistic(rows: IntArray) -> FloatArray:
        below = b[rows].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(below > 0, a[rows].sum(axis=1) / below, np.nan) + offset

    return bootstrap_estimate(statistic, n, what=what, rng=rng, confidence=confidence, resamples=resamples, width=2)


def relative_increase(
    quantized: ArrayLike,
    full: ArrayLike,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return sum NLL quantized / sum NLL full - 1 with its BCa interval over paired segments."""
    return ratio_of_sums(
        quantized, full, rng=rng, offset=-1.0, confidence=confidence, resamples=resamples, what="relative increase"
    )
