"""Proportions of pairs: Bonett and Price's interval by hand, and what it covers where few pairs differ."""

import math

import numpy as np
import pytest
from evenbits.statistics import paired_proportions


def test_the_interval_is_that_of_one_pair_more_of_each_kind():
    found = paired_proportions(6, 1, 20)
    one, other = 7 / 22, 2 / 22
    half = 1.959964 * math.sqrt((one + other - (one - other) ** 2) / 22)
    assert found.value == pytest.approx(5 / 20)
    assert (found.low, found.high) == (pytest.approx(one - other - half), pytest.approx(one - other + half))


def test_where_no_pair_differs_the_next_one_may():
    found = paired_proportions(0, 0, 20)
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(1.959964 * math.sqrt(2 / 22 / 22))


def test_counts_that_cannot_be_are_refused():
    for lost, gained, n in ((-1, 0, 5), (4, 3, 6), (1, 0, 0)):
        with pytest.raises(ValueError, match="must lie between 0 and n"):
            paired_proportions(lost, gained, n)
    assert paired_proportions(0, 0, 0).reason == "no pairs"


@pytest.mark.parametrize("n", [20, 40, 200])
@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.05, 0.01), (0.15, 0.05), (0.3, 0.0)])
def test_it_covers_also_where_few_pairs_differ(n, lost, gained):
    drawn = np.random.default_rng(0).multinomial(n, [lost, gained, 1 - lost - gained], size=2000)
    found = [paired_proportions(int(one), int(other), n) for one, other, _ in drawn]
    share = np.mean([one.low <= lost - gained <= one.high for one in found])
    assert share >= 0.93  # .95 less three standard errors of 2,000 draws, and what a discrete count costs
