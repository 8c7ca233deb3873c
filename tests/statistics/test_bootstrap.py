"""Intervals of any statistic over units or clusters of them, and percentile limits."""

import math

import numpy as np
import pytest
from evenbits.statistics import bootstrap_estimate, percentile_interval
from scipy import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def limits(estimate):
    return estimate.low, estimate.high


def test_percentile_interval_takes_matching_order_statistics():
    # 999 replicates, tail 2.5 %: k = floor(.025 * 1000) = 25, so the 25th smallest and the 25th largest of 1..999
    assert percentile_interval(np.arange(999, 0, -1.0)) == (25.0, 975.0)
    assert percentile_interval(np.array([*range(998), math.inf]), 0.95)[1] == 974.0


@pytest.mark.parametrize("n", [16, 84])
def test_bca_interval_of_a_mean_equals_scipy_draw_by_draw(n):
    x = np.floor(rng(n).gamma(2, size=n) * 100)  # whole numbers: scipy sees ties with the estimate as well
    ours = bootstrap_estimate(lambda rows: x[rows].mean(axis=1), n, what="mean", rng=rng(7), resamples=1500)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=1500, method="BCa", rng=rng(7)).confidence_interval
    assert limits(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_any_statistic_of_rows_gets_an_interval():
    x = rng(5).normal(size=25)
    found = bootstrap_estimate(lambda rows: np.median(x[rows], axis=1), 25, what="median", rng=rng(1), resamples=800)
    theirs = stats.bootstrap((x,), np.median, n_resamples=800, method="BCa", rng=rng(1)).confidence_interval
    assert limits(found) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.method.startswith("median; BCa")


def test_units_of_one_cluster_are_drawn_and_left_out_together():
    # 8 families of 4 languages that say the same four times over: a quarter of the information
    values = np.repeat(rng(3).normal(size=8), 4)
    families = [f"f{place // 4}" for place in range(32)]

    def mean(rows):
        return values[rows].mean(axis=1)

    singly = bootstrap_estimate(mean, 32, what="mean", rng=rng(1))
    together = bootstrap_estimate(mean, 32, what="mean", rng=rng(1), clusters=families)
    widths = [found.high - found.low for found in (singly, together)]
    assert widths[1] / widths[0] == pytest.approx(2.0, rel=0.2)  # sqrt(4)
    assert "8 families drawn before languages" in together.method


def test_a_statistic_that_is_mostly_undefined_has_a_value_and_no_interval():
    def ratio(rows):
        below = np.array([10.0, -4.0, -5.0])[rows].sum(axis=1)
        return np.where(below > 0, 6.0 / np.where(below > 0, below, 1.0), np.nan)

    found = bootstrap_estimate(ratio, 3, what="ratio", rng=rng())  # only resamples with enough of the 10 are defined
    assert found.value == pytest.approx(6.0)
    assert found.low is None
    assert "undefined in" in found.reason


def test_few_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_estimate(lambda rows: rows.mean(axis=1), 5, what="mean", rng=rng(), resamples=10)
