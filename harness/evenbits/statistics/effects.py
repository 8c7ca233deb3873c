"""Effect size of two independent groups: Cliff's delta.

Null hypothesis of the p-values: group labels are random, within each stratum where strata are given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, checked_resamples, interval_estimate, jackknife_of
from evenbits.statistics.clusters import drawn_units
from evenbits.statistics.outcomes import Alternative, Outcome, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, rearrangements
from evenbits.statistics.samples import FloatArray, IntArray, checked_confidence, group_codes, spread_of, vector

__all__ = ["LARGE_DELTA", "cliffs_delta"]

LARGE_DELTA = 0.474
"""|Cliff's delta| from which an effect is called large (Romano et al. 2006)."""

Pairwise = Callable[[FloatArray, FloatArray], FloatArray]
"""Maps resampled groups [B, n] and [B, m] to values [B]."""


def cliffs_delta(
    a: ArrayLike,
    b: ArrayLike,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    clusters: Sequence[Hashable] | None = None,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Outcome:
    """Return P(a > b) - P(a < b) over all pairs, with its BCa interval (both groups resampled) and permutation p.

    `strata`, `clusters`: labels of the units of a, then of b; clusters of a group are drawn before their units, one
    that has units in both is drawn apart in each. p is exact where there are at most `permutations` ways to label.
    """
    return _two_groups(
        a,
        b,
        "Cliff's delta",
        _delta_rows,
        rng=rng,
        strata=strata,
        clusters=clusters,
        alternative=alternative,
        confidence=confidence,
        resamples=resamples,
        permutations=permutations,
    )


def _delta_rows(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.sign(a[:, :, None] - b[:, None, :]).mean(axis=(1, 2)))


def _two_groups(
    a: ArrayLike,
    b: ArrayLike,
    what: str,
    rows: Pairwise,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None,
    clusters: Sequence[Hashable] | None,
    alternative: Alternative,
    confidence: float,
    resamples: int,
    permutations: int,
) -> Outcome:
    checked_alternative(alternative)
    checked_confidence(confidence)
    checked_resamples(resamples)
    first, second = vector(a, "a"), vector(b, "b")
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return Outcome.undefined(f"groups of {n} and {m}: at least 2 values are needed in each", n=n + m, method=what)
    both = np.concatenate([first, second])
    if spread_of(both) == 0:
        return Outcome.undefined(f"all {n + m} values are equal", n=n + m, method=what)
    value = float(rows(first[None], second[None])[0])
    if not math.isfinite(value):
        return Outcome.undefined("no spread within the groups", n=n + m, method=what)
    estimate = _interval(
        first, second, value, what, rows, clusters=clusters, rng=rng, confidence=confidence, resamples=resamples
    )
    labelled = _labellings(n, m, rng=rng, strata=strata, permutations=permutations)
    if labelled is None:
        return Outcome(estimate=estimate, p_value=None, p_method="none: no stratum holds units of both groups")
    places, exact, centred, method = labelled
    null = np.concatenate(
        [
            rows(both[part[:, :n]], both[part[:, n:]])
            for part in np.array_split(places, max(1, places.shape[0] * n * m // 2_000_000))
        ]
    )
    # a labelling without spread inside both groups is a perfect split: as extreme as can be
    p = permutation_p(value, np.nan_to_num(null, nan=np.inf), exact=exact, alternative=alternative, centred=centred)
    return Outcome(estimate=estimate, p_value=p, p_method=f"{method}, {alternative}")


def _interval(
    a: FloatArray,
    b: FloatArray,
    value: float,
    what: str,
    rows: Pairwise,
    *,
    clusters: Sequence[Hashable] | None,
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> Estimate:
    n, m = len(a), len(b)
    block = max(1, 2_000_000 // (n * m))
    if clusters is None:
        drawn_a, drawn_b = rng.integers(0, n, (resamples, n)), rng.integers(0, m, (resamples, m))
    else:
        drawn_a, drawn_b = (drawn_units(own, rng=rng, resamples=resamples) for own in (clusters[:n], clusters[n:]))
    replicates = np.concatenate(
        [
            rows(a[drawn_a[start : start + block]], b[drawn_b[start : start + block]])
            for start in range(0, resamples, block)
        ]
    )

    def without_a(index: IntArray) -> FloatArray:
        return rows(a[index], np.broadcast_to(b, (len(index), m)))

    def without_b(index: IntArray) -> FloatArray:
        return rows(np.broadcast_to(a, (len(index), n)), b[index])

    knives = [jackknife_of(without_a, n), jackknife_of(without_b, m)] if min(n, m) > 2 else []
    return interval_estimate(value, replicates, knives, n=n + m, what=what, confidence=confidence)


def _labellings(
    n: int, m: int, *, rng: np.random.Generator, strata: Sequence[Hashable] | None, permutations: int
) -> tuple[IntArray, bool, bool, str] | None:
    """Return orders [M, n + m] whose first n places are group a; whether exact, centred; and the method.

    Units of a group are exchangeable, so different orders may be one labelling: where labellings are few enough to be
    counted they are, also within strata. None where there is only one.
    """
    codes = np.zeros(n + m, dtype=np.int64) if strata is None else group_codes(strata, n + m, "strata")
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
    total = math.prod(math.comb(len(group), int((group < n).sum())) for group in members)
    if total <= 1:
        return None
    if total <= permutations:
        within = "" if strata is None else f" within {len(members)} strata"
        rows = _all_labellings(members, n, n + m)
        return rows, True, len(members) == 1, f"exact permutation{within}, {total} labellings"
    orders = rearrangements(n + m, rng=rng, strata=strata, permutations=permutations)
    return None if orders is None else (orders.rows, orders.exact, orders.centred, orders.method)


def _all_labellings(members: Sequence[IntArray], n: int, units: int) -> IntArray:
    """Return every order [M, units] that differs in which units come first; each stratum keeps its number of them."""
    choices = [list(itertools.combinations(group.tolist(), int((group < n).sum()))) for group in members]
    first = np.array([list(itertools.chain(*chosen)) for chosen in itertools.product(*choices)], dtype=np.int64)
    others = np.ones((len(first), units), dtype=bool)
    np.put_along_axis(others, first, values=False, axis=1)
    rest = np.broadcast_to(np.arange(units), others.shape)[others].reshape(len(first), units - n)
    return np.concatenate([first, rest], axis=1)
