"""Power: the chance that a correlation of a given size is found with a given number of languages or models."""

from __future__ import annotations

import math
from statistics import NormalDist

from evenbits.statistics.outcomes import Alternative, checked_alternative

__all__ = ["correlation_power", "correlation_units"]

NORMAL = NormalDist()


def correlation_power(r: float, n: int, *, alpha: float = 0.05, alternative: Alternative = "two-sided") -> float | None:
    """Return the chance that a test at level `alpha` finds a true correlation `r` with `n` units; None below 4.

    Fisher's z: atanh of the sample r is about normal around atanh(r) + r / (2 (n - 1)) with variance 1 / (n - 3)
    (Fisher 1921; the second term is the bias of atanh, about .02 of power at n = 14).
    """
    checked_alternative(alternative)
    if not -1 < r < 1:
        raise ValueError(f"r must lie between -1 and 1, got {r}")
    if n < 4:
        return None
    shift = (math.atanh(r) + r / (2 * (n - 1))) * math.sqrt(n - 3)
    if alternative == "two-sided":
        needed = -NORMAL.inv_cdf(alpha / 2)
        return NORMAL.cdf(shift - needed) + NORMAL.cdf(-shift - needed)
    needed = -NORMAL.inv_cdf(alpha)
    return NORMAL.cdf((shift if alternative == "greater" else -shift) - needed)


def correlation_units(
    r: float, *, power: float = 0.8, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> int:
    """Return the fewest units at which `correlation_power` reaches `power` for a true correlation `r`."""
    if r == 0 or (alternative == "greater" and r < 0) or (alternative == "less" and r > 0):
        raise ValueError(f"r = {r} is inside the null hypothesis of alternative {alternative!r}: no n is enough")
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha and 1, got {power}")
    n = 4
    while (correlation_power(r, n, alpha=alpha, alternative=alternative) or 0.0) < power:
        n += max(1, n // 1000)
    return n
