"""Correlation: Pearson and Spearman with intervals over units and permutation tests.

Null hypothesis of every p-value: within each stratum the pairing of x and y is random.
Shapes: B resamples, N units.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, at_least_jackknife, bootstrap_estimate
from evenbits.statistics.outcomes import Alternative, Outcome, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, rearrangements
from evenbits.statistics.samples import FloatArray, IntArray, paired, spread_of, vector

__all__ = [
    "cluster_means",
    "leave_group_out",
    "pearson",
    "spearman",
]

Kind = Literal["pearson", "spearman"]
FEWEST = 3  # two points always lie on a line
FEWEST_FOR_INTERVAL = 4
NOTHING = 1e-20  # squared spread of standardised values that is rounding only


def pearson(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    clusters: Sequence[str] | None = None,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Outcome:
    """Return Pearson's r with its BCa interval over units and its permutation p.

    `strata`: one label per unit; only units of one stratum are exchanged by the test. `clusters`: one label per unit
    (its family); the interval draws them first. Undefined for fewer than 3 units or a constant input.
    """
    return _correlate(
        x,
        y,
        "pearson",
        rng=rng,
        strata=strata,
        clusters=clusters,
        alternative=alternative,
        confidence=confidence,
        resamples=resamples,
        permutations=permutations,
    )


def spearman(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    clusters: Sequence[str] | None = None,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Outcome:
    """Return Spearman's rho (mid-ranks for ties), as `pearson` does; every resample is ranked anew."""
    return _correlate(
        x,
        y,
        "spearman",
        rng=rng,
        strata=strata,
        clusters=clusters,
        alternative=alternative,
        confidence=confidence,
        resamples=resamples,
        permutations=permutations,
    )


def _correlate(
    x: ArrayLike,
    y: ArrayLike,
    kind: Kind,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None,
    clusters: Sequence[str] | None,
    alternative: Alternative,
    confidence: float,
    resamples: int,
    permutations: int,
) -> Outcome:
    checked_alternative(alternative)
    first, second = paired(x, y)
    what = {"pearson": "Pearson r", "spearman": "Spearman rho"}[kind]
    n = len(first)
    reason = why_uncorrelated({"x": first, "y": second})
    if reason:
        return Outcome.undefined(reason, n=n, method=what)
    rows_statistic, null_statistic = _statistics(first, second, kind)
    estimate = coefficient_estimate(
        rows_statistic, n, what, rng=rng, confidence=confidence, resamples=resamples, clusters=clusters
    )
    orders = rearrangements(n, rng=rng, strata=strata, permutations=permutations)
    if orders is None:
        return Outcome(estimate=estimate, p_value=None, p_method="none: every stratum holds a single unit")
    observed = float(null_statistic(np.arange(n)[None, :])[0])
    p = permutation_p(
        observed, null_statistic(orders.rows), exact=orders.exact, alternative=alternative, centred=orders.centred
    )
    return Outcome(estimate=estimate, p_value=p, p_method=f"{orders.method}, {alternative}", statistic=observed)


Rows = Callable[[IntArray], FloatArray]


def _statistics(x: FloatArray, y: FloatArray, kind: Kind) -> tuple[Rows, Rows]:
    """Return the coefficient of resampled units, and the coefficient with y rearranged against x."""
    from scipy.stats import rankdata

    if kind == "spearman":
        full_x, full_y = standardised(rankdata(x)), standardised(rankdata(y))

        def resampled(rows: IntArray) -> FloatArray:
            return rowwise_pearson(rankdata(x[rows], axis=1), rankdata(y[rows], axis=1))
    else:
        full_x, full_y = standardised(x), standardised(y)

        def resampled(rows: IntArray) -> FloatArray:
            return rowwise_pearson(full_x[rows], full_y[rows])

    def rearranged(rows: IntArray) -> FloatArray:
        return full_y[rows] @ full_x / len(x)

    return resampled, rearranged


def standardised(values: FloatArray) -> FloatArray:
    """Return `values` with mean 0 and standard deviation 1 along the first axis; they must not be constant."""
    centred = values - values.mean(axis=0)
    return np.asarray(centred / centred.std(axis=0))


def rowwise_pearson(x_BN: FloatArray, y_BN: FloatArray) -> FloatArray:
    """Return r of each row; NaN where a row is constant."""
    x = x_BN - x_BN.mean(axis=1, keepdims=True)
    y = y_BN - y_BN.mean(axis=1, keepdims=True)
    x_square, y_square = (x * x).sum(axis=1), (y * y).sum(axis=1)
    known = (x_square > NOTHING) & (y_square > NOTHING)
    below = np.sqrt(np.where(known, x_square * y_square, 1.0))
    return np.where(known, np.clip((x * y).sum(axis=1) / below, -1, 1), np.nan)


def why_uncorrelated(named: Mapping[str, FloatArray]) -> str | None:
    for name, values in named.items():
        if len(values) < FEWEST:
            return f"{len(values)} units: a correlation needs at least {FEWEST}"
        if spread_of(values) == 0:
            return f"{name} is constant over the {len(values)} units"
    return None


def coefficient_estimate(
    statistic: Rows,
    n: int,
    what: str,
    *,
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
    width: int = 1,
    clusters: Sequence[str] | None = None,
) -> Estimate:
    if n < FEWEST_FOR_INTERVAL:
        value = float(statistic(np.arange(n)[None, :])[0])
        return Estimate(value=value, n=n, method=what, reason=f"no interval: {n} units, {FEWEST_FOR_INTERVAL} needed")
    found = bootstrap_estimate(
        statistic, n, what=what, rng=rng, confidence=confidence, resamples=resamples, width=width, clusters=clusters
    )
    return found if clusters is None else at_least_jackknife(found, statistic, clusters, confidence=confidence)


def leave_group_out(
    x: ArrayLike, y: ArrayLike, groups: Sequence[str], *, kind: Kind = "pearson"
) -> dict[str, Estimate]:
    """Return the coefficient with each group (family) left out in turn: what rests on one family alone shows."""
    first, second = paired(x, y)
    if len(groups) != len(first):
        raise ValueError(f"groups has {len(groups)} entries, needed {len(first)}")
    labels = np.array([str(group) for group in groups])
    results = {}
    for label in sorted(set(labels.tolist())):
        kept = labels != label
        method = f"{kind} without {label}"
        reason = why_uncorrelated({"x": first[kept], "y": second[kept]})
        if reason:
            results[label] = Estimate.undefined(reason, n=int(kept.sum()), method=method)
            continue
        resampled, _ = _statistics(first[kept], second[kept], kind)
        value = float(resampled(np.arange(int(kept.sum()))[None, :])[0])
        results[label] = Estimate(value=value, n=int(kept.sum()), method=method)
    return results


def cluster_means(values: ArrayLike, clusters: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
    """Return the cluster names, sorted, and the mean of `values` in each.

    Checkpoints of one model are one cluster: correlating cluster means counts them once.
    """
    checked = vector(values, "values")
    if len(clusters) != len(checked):
        raise ValueError(f"clusters has {len(clusters)} entries, needed {len(checked)}")
    names = tuple(sorted(set(clusters)))
    labels = np.array(clusters)
    return names, np.array([checked[labels == name].mean() for name in names])
