"""Proportions: Wilson intervals, the band a false-positive rate must keep, and the stability of a class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics.samples import checked_confidence

__all__ = ["Stability", "binomial_band", "paired_proportions", "stability", "wilson"]

Item = TypeVar("Item")


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Return successes / n with Wilson's interval; undefined for n = 0."""
    from scipy.stats import binomtest

    checked_confidence(confidence)
    if not 0 <= successes <= max(n, 0):
        raise ValueError(f"successes must lie between 0 and n, got {successes} of {n}")
    method = f"proportion; Wilson {confidence:.0%} interval"
    if n == 0:
        return Estimate.undefined("no trials", method=method)
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    # at 0 or n of n the formula gives the bound up to rounding: it must not cross the value
    low, high = min(interval.low, successes / n), max(interval.high, successes / n)
    return Estimate(value=successes / n, low=max(0.0, low), high=min(1.0, high), n=n, method=method)


def paired_proportions(lost: int, gained: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Return (lost - gained) / n of n pairs, with the interval of Bonett and Price (2012): one pair more of each kind.

    `lost`, `gained`: pairs that differ one way and the other. It covers where few pairs differ, and where none does it
    has a width still; undefined for n = 0.
    """
    checked_confidence(confidence)
    if lost < 0 or gained < 0 or lost + gained > max(n, 0):
        raise ValueError(f"lost and gained must lie between 0 and n together, got {lost} and {gained} of {n}")
    method = f"difference of paired proportions; Bonett-Price {confidence:.0%} interval"
    if n == 0:
        return Estimate.undefined("no pairs", method=method)
    one, other = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((one + other - (one - other) ** 2) / (n + 2))
    value = (lost - gained) / n
    low, high = max(-1.0, one - other - half), min(1.0, one - other + half)
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, method=method)


def binomial_band(trials: int, rate: float, *, confidence: float = 0.95) -> tuple[int, int]:
    """Return the central band of counts that `trials` of chance `rate` give with probability >= `confidence`.

    A control whose test is right rejects that often: 5 to 16 times in 200 at level .05.
    """
    from scipy.stats import binom

    checked_confidence(confidence)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie between 0 and 1, got {rate}")
    low, high = binom.interval(confidence, trials, rate)
    return int(low), int(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability(Row):
    """How firmly a class holds: `label` on all items, `estimate` the share of resamples that agree.

    `shares`: share of resamples per class, most frequent first.
    """

    label: str
    estimate: Estimate
    shares: Mapping[str, float]


def stability(
    classify: Callable[[list[Item]], str],
    items: Sequence[Item],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Stability:
    """Return the share of bootstrap resamples of `items` to which `classify` gives the class it gives to all.

    The interval is Wilson's for the finite number of resamples (Monte-Carlo error); `n` is the number of items.
    """
    if len(items) == 0:
        raise ValueError("items is empty: nothing to classify")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    everything = list(items)
    label = classify(everything)
    drawn = rng.integers(0, len(everything), (resamples, len(everything)))
    counts = Counter(classify([everything[i] for i in row]) for row in drawn)
    share = wilson(counts[label], resamples, confidence=confidence)
    estimate = Estimate(
        value=share.value,
        low=share.low,
        high=share.high,
        n=len(everything),
        method=f"share of {resamples} bootstrap resamples classed {label}; Wilson {confidence:.0%} interval",
        reason="a single item: every resample is the same" if len(everything) == 1 else None,
    )
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Stability(label=label, estimate=estimate, shares={key: count / resamples for key, count in ordered})
