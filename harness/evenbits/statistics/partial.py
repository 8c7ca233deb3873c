"""Partial correlation: what two quantities share beyond named others.

Shapes: B resamples, N units, K columns: x, y and the covariates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evenbits.statistics.bootstrap import RESAMPLES
from evenbits.statistics.correlation import (
    FEWEST,
    coefficient_estimate,
    rowwise_pearson,
    standardised,
    why_uncorrelated,
)
from evenbits.statistics.outcomes import Alternative, Outcome, checked_alternative
from evenbits.statistics.permutation import PERMUTATIONS, permutation_p, rearrangements
from evenbits.statistics.samples import FloatArray, IntArray, columns, paired, spread_of

__all__ = ["partial_correlation"]


def partial_correlation(
    x: ArrayLike,
    y: ArrayLike,
    covariates: Mapping[str, ArrayLike],
    *,
    rng: np.random.Generator,
    kind: Literal["pearson", "spearman"] = "pearson",
    strata: Sequence[Hashable] | None = None,
    clusters: Sequence[str] | None = None,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Outcome:
    """Return the correlation of x and y after linear regression of both on `covariates` and a constant.

    `kind="spearman"` ranks all columns first, as pingouin does. Interval: BCa over units (clusters of them first, as
    in `pearson`), regressions fitted anew in every resample. p: the residuals of y are rearranged (within strata) and
    regressed anew on the covariates (Freedman & Lane 1983). Undefined where x or y is constant or fully explained, or
    fewer than 3 + K units.
    """
    from scipy.stats import rankdata

    checked_alternative(alternative)
    first, second = paired(x, y)
    n = len(first)
    names, given = columns(covariates, n, "covariates")
    what = f"partial {'Pearson r' if kind == 'pearson' else 'Spearman rho'} given {', '.join(names) or 'nothing'}"
    reason = why_uncorrelated({"x": first, "y": second})
    if n < FEWEST + len(names):
        reason = f"{n} units: {len(names)} covariates need at least {FEWEST + len(names)}"
    if reason:
        return Outcome.undefined(reason, n=n, method=what)
    data = np.column_stack([first, second, given[:, [spread_of(column) > 0 for column in given.T]]])
    ranked = kind == "spearman"
    data = standardised(rankdata(data, axis=0) if ranked else data)

    def statistic(rows: IntArray) -> FloatArray:
        return _partial_of_rows(rankdata(data[rows], axis=1) / len(data) if ranked else data[rows])

    if not math.isfinite(float(statistic(np.arange(n)[None, :])[0])):
        return Outcome.undefined("the covariates explain x or y completely", n=n, method=what)
    estimate = coefficient_estimate(
        statistic,
        n,
        what,
        rng=rng,
        confidence=confidence,
        resamples=resamples,
        width=data.shape[1],
        clusters=clusters,
    )
    orders = rearrangements(n, rng=rng, strata=strata, permutations=permutations)
    if orders is None:
        return Outcome(estimate=estimate, p_value=None, p_method="none: every stratum holds a single unit")
    basis = _orthonormal(np.column_stack([np.ones(n), data[:, 2:]]))
    x_left = data[:, 0] - basis @ (basis.T @ data[:, 0])
    y_left = data[:, 1] - basis @ (basis.T @ data[:, 1])
    moved = y_left[orders.rows]
    null = rowwise_pearson(np.broadcast_to(x_left, moved.shape), moved - (moved @ basis) @ basis.T)
    p = permutation_p(
        float(estimate.value or 0.0),
        np.nan_to_num(null),
        exact=orders.exact,
        alternative=alternative,
        centred=orders.centred,
    )
    return Outcome(estimate=estimate, p_value=p, p_method=f"Freedman-Lane {orders.method}, {alternative}")


def _partial_of_rows(data_BNK: FloatArray) -> FloatArray:
    """Return the correlation of columns 0 and 1 given the others, per row; NaN where nothing is left of either."""
    centred = data_BNK - data_BNK.mean(axis=1, keepdims=True)
    cov = np.einsum("bni,bnj->bij", centred, centred, optimize=True) / data_BNK.shape[1]
    if cov.shape[1] > 2:
        inverse = np.linalg.pinv(cov[:, 2:, 2:], rcond=1e-10, hermitian=True)
        left = cov[:, :2, :2] - cov[:, :2, 2:] @ inverse @ cov[:, 2:, :2]
    else:
        left = cov
    known = (left[:, 0, 0] > 1e-10 * cov[:, 0, 0]) & (left[:, 1, 1] > 1e-10 * cov[:, 1, 1])
    below = np.sqrt(np.where(known, left[:, 0, 0] * left[:, 1, 1], 1.0))
    return np.where(known, np.clip(left[:, 0, 1] / below, -1, 1), np.nan)


def _orthonormal(matrix: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the column space of `matrix` [n, k]."""
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left[:, singular > 1e-10 * singular.max()])
