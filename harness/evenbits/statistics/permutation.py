"""Permutation: rearrangements of units, within strata where units are not exchangeable across them, and p-values.

Shapes: M rearrangements, N units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evenbits.statistics.outcomes import Alternative, checked_alternative
from evenbits.statistics.samples import FloatArray, IntArray, group_codes

__all__ = ["PERMUTATIONS", "Rearrangements", "permutation_p", "rearrangements", "sign_flips"]

PERMUTATIONS = 9999
TIE = 1e-9
"""Relative tolerance within which two values of a statistic are the same: sums in another order round differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rearrangements:
    """Rows of unit indices (or of signs) that are equally likely under the null hypothesis.

    `rows`: [M, N]. `exact`: all of them, the observed order included; else random ones, without the observed.
    `centred`: the null distribution of a product statistic has mean 0 by construction (no strata).
    """

    rows: IntArray
    exact: bool
    centred: bool
    method: str


def rearrangements(
    n: int,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    permutations: int = PERMUTATIONS,
) -> Rearrangements | None:
    """Return orders of `n` units that keep every unit in its stratum; None where only one order exists.

    All orders where there are at most `permutations` of them (n! without strata), else `permutations` random ones.
    Languages are not independent: units within a stratum (family x script) are exchanged, never across.
    """
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    codes = np.zeros(n, dtype=np.int64) if strata is None else group_codes(strata, n, "strata")
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
    total = math.prod(math.factorial(len(group)) for group in members)
    if total <= 1:
        return None
    within = "" if strata is None else f" within {len(members)} strata"
    if total <= permutations:
        rows = np.empty((total, n), dtype=np.int64)
        orders = [list(itertools.permutations(group)) for group in members]
        for row, choice in zip(rows, itertools.product(*orders), strict=True):
            for group, order in zip(members, choice, strict=True):
                row[group] = order
        method = f"exact permutation{within}, {total} arrangements"
    else:
        # random keys, sorted stratum by stratum: a uniform order inside each
        keys = rng.random((permutations, n)) + codes
        rows = np.empty((permutations, n), dtype=np.int64)
        rows[:, np.concatenate(members)] = np.argsort(keys, axis=1)
        method = f"permutation{within}, {permutations} random arrangements"
    return Rearrangements(rows=rows, exact=total <= permutations, centred=len(members) == 1, method=method)


def sign_flips(n: int, *, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> Rearrangements:
    """Return signs [M, n]: all 2^n of them where that is at most `permutations`, else random ones."""
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    exact = n < 63 and 2**n <= permutations
    if exact:
        bits = np.arange(2**n)[:, None] >> np.arange(n)
        rows = 1 - 2 * (bits & 1)
        method = f"exact sign permutation, {2**n} arrangements"
    else:
        rows = 1 - 2 * rng.integers(0, 2, (permutations, n))
        method = f"sign permutation, {permutations} random arrangements"
    return Rearrangements(rows=rows, exact=exact, centred=True, method=method)


def permutation_p(
    observed: float, null: FloatArray, *, exact: bool, alternative: Alternative = "two-sided", centred: bool = True
) -> float:
    """Return the p-value of `observed` among the values `null` [M] of the statistic under rearrangement.

    Exact: the share of arrangements at least as extreme, the observed one among them. Random: (b + 1) / (m + 1)
    (Phipson & Smyth 2010), which is never 0. Two-sided: distance from 0, or from the mean of observed and null where
    strata move the null distribution away from 0 (`centred=False`); a mean over all arrangements is the same in every
    one, so the test stays valid.
    """
    checked_alternative(alternative)
    slack = TIE * max(abs(observed), float(np.abs(null).max(initial=0)))
    if alternative == "greater":
        extreme = null >= observed - slack
    elif alternative == "less":
        extreme = null <= observed + slack
    else:
        centre = 0.0 if centred else _mean_of_all(observed, null, exact=exact)
        extreme = np.abs(null - centre) >= abs(observed - centre) - slack
    count = int(np.count_nonzero(extreme))
    return count / len(null) if exact else (count + 1) / (len(null) + 1)


def _mean_of_all(observed: float, null: FloatArray, *, exact: bool) -> float:
    return float(null.mean()) if exact else float((null.sum() + observed) / (len(null) + 1))
