"""Intervals of means and ratios, percentile limits, and what happens where there is no interval."""

import math
import time

import numpy as np
import pytest
from evenbits.estimates import Estimate
from evenbits.statistics import (
    binomial_band,
    bootstrap_estimate,
    mean_interval,
    mean_intervals,
    percentile_interval,
    ratio_of_sums,
    relative_increase,
    t_interval,
)
from hypothesis import example, given, settings
from hypothesis import strategies as some
from scipy import stats

FINITE = some.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


def rng(seed=0):
    return np.random.default_rng(seed)


def limits(estimate):
    return estimate.low, estimate.high


@pytest.mark.parametrize("n", [4, 16, 84])
def test_bca_interval_of_a_mean_equals_scipy_draw_by_draw(n):
    # whole numbers over powers of two: sums are exact, so that scipy sees ties with the estimate as well
    x = np.floor(rng(n).gamma(2, size=n) * 100) if n < 84 else rng(n).gamma(2, size=n)
    ours = mean_interval(x, rng=rng(7), resamples=1500)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=1500, method="BCa", rng=rng(7)).confidence_interval
    assert limits(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.value == pytest.approx(x.mean(), abs=1e-12)


def test_bca_interval_of_a_ratio_of_sums_equals_scipy():
    a, b = rng(1).gamma(3, size=30), rng(2).gamma(5, size=30)
    ours = ratio_of_sums(a, b, rng=rng(7), resamples=1000, confidence=0.9)
    theirs = stats.bootstrap(
        (a, b), lambda p, q, axis: p.sum(axis) / q.sum(axis), paired=True, n_resamples=1000,
        confidence_level=0.9, method="BCa", rng=rng(7),
    ).confidence_interval  # fmt: skip
    assert limits(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_relative_increase_is_the_ratio_of_sums_minus_one():
    # sums 13 and 10: 13 / 10 - 1 = .3; the mean of ratios would be (1.5 + 1 + 1.333) / 3 - 1 = .278
    found = relative_increase([3.0, 2.0, 8.0], [2.0, 2.0, 6.0], rng=rng())
    assert found.value == pytest.approx(0.3)
    assert found.n == 3


def test_t_interval_equals_scipy():
    x = rng(3).normal(size=9)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert limits(t_interval(x, confidence=0.9)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_two_values_get_a_t_interval_and_say_so():
    found = mean_interval([1.0, 3.0], rng=rng())
    # mean 2, standard error sqrt(2) / sqrt(2) = 1, t(.975, 1) = tan(.475 pi) = 12.706
    assert limits(found) == pytest.approx((2 - math.tan(0.475 * math.pi), 2 + math.tan(0.475 * math.pi)))
    assert "t 95%" in found.method


def test_no_value_and_one_value_and_equal_values_have_their_reason():
    assert mean_interval([], rng=rng()).value is None
    one = mean_interval([4.0], rng=rng())
    assert (one.value, one.low, one.reason) == (4.0, None, "no interval: a single value")
    same = mean_interval([0.1] * 7, rng=rng())
    assert same.value == pytest.approx(0.1)
    assert same.low == same.high == same.value
    assert "equal" in same.reason


def test_mean_intervals_of_many_languages_equal_the_single_ones_and_share_draws():
    table = {tag: rng(i).normal(i, 1, size=20) for i, tag in enumerate(("de-Latn", "sr-Cyrl", "ta-Taml"))}
    table["short"] = rng(9).normal(size=5)
    together = mean_intervals(table, rng=rng(4))
    assert list(together) == list(table)
    for tag in ("de-Latn", "sr-Cyrl", "ta-Taml"):
        alone = mean_interval(table[tag], rng=rng(4))
        assert limits(together[tag]) == pytest.approx(limits(alone), abs=1e-9)
    assert together["short"].n == 5


def test_a_denominator_that_is_not_above_zero_is_undefined_not_infinite():
    assert "not above 0" in ratio_of_sums([1.0, 2.0, 3.0], [1.0, -1.0, 0.0], rng=rng()).reason
    often = ratio_of_sums([1.0, 2.0, 3.0], [10.0, -4.0, -5.0], rng=rng())  # only resamples without the 10 fall below 0
    assert often.value == pytest.approx(6.0)
    assert often.low is None
    assert "undefined in" in often.reason


def test_input_that_is_not_finite_or_not_paired_is_named():
    with pytest.raises(ValueError, match=r"x\[1\] is nan"):
        mean_interval([1.0, math.nan], rng=rng())
    with pytest.raises(ValueError, match="numerator has 2 entries and denominator has 3"):
        ratio_of_sums([1.0, 2.0], [1.0, 2.0, 3.0], rng=rng())
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0, 2.0, 3.0], rng=rng(), confidence=95)
    with pytest.raises(ValueError, match="resamples"):
        mean_interval([1.0, 2.0, 3.0], rng=rng(), resamples=10)


def test_percentile_interval_takes_matching_order_statistics():
    # 999 replicates, tail 2.5 %: k = floor(.025 * 1000) = 25, so the 25th smallest and the 25th largest of 1..999
    assert percentile_interval(np.arange(999, 0, -1.0)) == (25.0, 975.0)
    assert percentile_interval(np.array([*range(998), math.inf]), 0.95)[1] == 974.0


def test_ninety_five_per_cent_intervals_cover_about_that_often():
    # 400 samples of 40 skewed values; coverage of BCa at this n is about .93 (theory: error of order 1/n, right tail)
    source = rng(11)
    covered = 0
    for _ in range(400):
        found = mean_interval(source.gamma(2, size=40), rng=source, resamples=500)
        covered += found.low <= 2.0 <= found.high
    assert covered >= 400 - binomial_band(400, 0.07, confidence=0.99)[1]
    assert covered <= 400 - binomial_band(400, 0.05, confidence=0.99)[0]


def test_any_statistic_of_rows_gets_an_interval():
    x = rng(5).normal(size=25)
    found = bootstrap_estimate(lambda rows: np.median(x[rows], axis=1), 25, what="median", rng=rng(1), resamples=800)
    theirs = stats.bootstrap((x,), np.median, n_resamples=800, method="BCa", rng=rng(1)).confidence_interval
    assert limits(found) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.method.startswith("median; BCa")


def test_a_mean_interval_is_fast_enough_to_be_made_for_every_language():
    x = rng().gamma(2, size=84)
    best = min(_seconds(lambda: mean_interval(x, rng=rng())) for _ in range(10))
    assert best < 0.02  # about 2 ms


def _seconds(call):
    start = time.process_time()  # of this process: other work on the machine does not count
    call()
    return time.process_time() - start


def test_a_sample_of_every_token_fits_into_memory():
    import tracemalloc

    x = rng().gamma(2, size=50_000)
    tracemalloc.start()
    found = mean_interval(x, rng=rng(), resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # standard error sqrt(2 / 50000); the whole table of draws would be 200 x 50000 x 8 = 80 MB, three times over
    assert (found.high - found.low) / 3.92 == pytest.approx(x.std() / 50_000**0.5, rel=0.2)
    assert peak < 100e6


@settings(max_examples=40, deadline=None)
@given(some.lists(FINITE, min_size=3, max_size=12), some.floats(0.1, 100), some.integers(0, 5))
@example([0.0, 1.0, 0.0], 0.109375, 0)  # ties with the estimate were lost to rounding
def test_mean_interval_scales_with_its_values_and_never_holds_nan(values, factor, seed):
    plain = mean_interval(values, rng=rng(seed), resamples=200)
    scaled = mean_interval(np.array(values) * factor, rng=rng(seed), resamples=200)
    assert isinstance(plain, Estimate)
    assert plain.low is not None
    assert plain.low <= plain.high
    size = max(1e-9, float(np.abs(values).max())) * factor
    assert np.array(limits(scaled)) == pytest.approx(np.array(limits(plain)) * factor, abs=1e-6 * size)


@settings(max_examples=30, deadline=None)
@given(some.lists(FINITE, min_size=0, max_size=8), some.lists(FINITE, min_size=0, max_size=8))
def test_a_ratio_of_sums_is_a_number_or_a_reason(a, b):
    n = min(len(a), len(b))
    found = ratio_of_sums(a[:n], b[:n], rng=rng(), resamples=100)
    assert (found.value is None) == (n == 0 or sum(b[:n]) <= 0 or np.sum(b[:n]) <= 0)
    assert found.value is not None or found.reason
