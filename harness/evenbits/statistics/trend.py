"""Trend over ordered conditions: does damage, or disparity, fall step by step?

Shapes: L languages (rows), K conditions (columns, in their order).
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from evenbits.estimates import Estimate
from evenbits.statistics.bootstrap import RESAMPLES, mean_interval
from evenbits.statistics.outcomes import Outcome
from evenbits.statistics.samples import finite

__all__ = ["page_trend"]


def page_trend(
    values: ArrayLike,
    *,
    rng: np.random.Generator,
    direction: Literal["increasing", "decreasing"],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Outcome:
    """Return Page's trend test of `values` [L, K] with the mean rank correlation as its effect size.

    Null hypothesis: within each language every order of the conditions is equally likely; alternative: they follow
    `direction`. `statistic` is Page's L (scipy.stats.page_trend_test; exact for few rows and columns, else normal).
    The estimate is the mean over languages of the rank correlation between conditions and the predicted order,
    12 L / (rows K (K^2 - 1)) - 3 (K + 1) / (K - 1) (Page 1963): 1 where every language follows it step by step;
    its BCa interval is over languages. Ties count as no order, which makes p conservative.
    """
    from scipy.stats import page_trend_test, rankdata  # noqa: PLC0415 - half a second at import, which collecting evals must not pay

    if direction not in {"increasing", "decreasing"}:
        raise ValueError(f"direction must be increasing or decreasing, got {direction!r}")
    table = finite(values, "values", ndim=2)
    rows, count = table.shape
    what = f"mean rank correlation with the {direction} order of {count} conditions"
    if count < 3 or rows < 2:
        reason = f"{rows} languages x {count} conditions: Page's test needs at least 2 x 3"
        return Outcome.undefined(reason, n=rows, method=what)
    if (np.ptp(table, axis=1) == 0).all():
        return Outcome.undefined("every language is constant over the conditions", n=rows, method=what)
    predicted = np.arange(1, count + 1) if direction == "increasing" else np.arange(count, 0, -1)
    ranks = rankdata(table, axis=1)
    effects = 12 * (ranks @ predicted) / (count * (count**2 - 1)) - 3 * (count + 1) / (count - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns that ties make p conservative: said above
        found = page_trend_test(ranks, ranked=True, predicted_ranks=predicted)
    mean = mean_interval(effects, rng=rng, confidence=confidence, resamples=resamples)
    estimate = Estimate(
        value=mean.value, low=mean.low, high=mean.high, n=rows, method=f"{what}; {mean.method}", reason=mean.reason
    )  # fmt: skip
    p = min(1.0, max(float(found.pvalue), np.finfo(float).tiny))
    return Outcome(
        estimate=estimate, p_value=p, p_method=f"Page's trend test, {found.method}", statistic=float(found.statistic)
    )  # fmt: skip
