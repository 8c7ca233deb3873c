"""Group-sequential looks: what each may spend, and the error of all of them together."""

import numpy as np
import pytest
from evenbits.statistics import binomial_band, looks, schedule
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal


def test_one_look_is_the_fixed_design():
    assert looks([40], by="means").confidence == pytest.approx((0.95,), abs=1e-6)


@pytest.mark.parametrize(
    ("by", "share", "correlation"),
    [("means", 1 / 256, 0.5**0.5), ("resamples", 1 / 4, 0.5**0.5), ("squares", 1 / 4, 0.5)],
)
def test_of_two_equal_looks_the_first_spends_its_power_of_a_half(by, share, correlation):
    first, second = (float(ndtri((1 + one) / 2)) for one in looks([50, 100], by=by).confidence)
    assert 1 - ndtr(first) == pytest.approx(0.025 * share, abs=1e-5)  # a side
    # and what is not beyond its limit at the first spends the rest at the second
    both = multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    assert ndtr(first) - both.cdf([first, second]) == pytest.approx(0.025 * (1 - share), abs=1e-4)


@pytest.mark.parametrize("by", ["means", "resamples"])
@pytest.mark.parametrize("most", [40, 100])
def test_a_mean_is_missed_at_some_look_as_often_as_at_the_last_of_a_fixed_design(most, by):
    planned = looks(schedule(most, first=10), by=by)
    limits = ndtri((1 + np.array(planned.confidence)) / 2)
    sizes = np.array(planned.sizes)
    walks = np.random.default_rng(5).standard_normal((8000, most)).cumsum(axis=1)[:, sizes - 1] / np.sqrt(sizes)
    missed = int((np.abs(walks) > limits).any(axis=1).sum())
    low, high = binomial_band(8000, 0.05, confidence=0.999)
    assert low <= missed <= high


def test_sizes_grow_to_the_most_and_no_step_is_left_for_a_few():
    assert schedule(10, first=10) == (10,)
    assert schedule(40, first=10) == (10, 15, 22, 40)
    for most in range(10, 300):
        sizes = schedule(most, first=10)
        assert sizes[-1] == most
        assert sorted(set(sizes)) == list(sizes)


@pytest.mark.parametrize("bad", [[], [10, 10], [0, 5]])
def test_looks_must_ascend(bad):
    with pytest.raises(ValueError, match="ascending"):
        looks(bad, by="means")


def test_more_to_begin_with_than_to_end_with_is_refused():
    with pytest.raises(ValueError, match="first must lie"):
        schedule(5, first=10)
