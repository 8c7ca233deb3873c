"""Joint sign flips: exact p, family-wise error, and the sizes at which nothing can be found."""

import itertools

import numpy as np
import pytest
import scipy.stats
from evenbits.statistics import binomial_band, joint_flips


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_single_language_gets_the_exact_sign_flip_p():
    values = np.array([1.0, 2.0, -0.5, 3.0])
    # sums over all 16 sign patterns: 5.5 is reached by the pattern as it is and by flipping -.5 (6.5): 2 of 16
    sums = [float(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=4)]
    assert sum(total >= 5.5 for total in sums) == 2
    found = joint_flips({"a": values}, rng=rng(), alternative="greater")
    assert found.p["a"] == found.adjusted["a"] == pytest.approx(2 / 16)
    assert found.least == pytest.approx(1 / 16)


def test_adjusted_p_is_that_of_the_largest_mean_of_those_not_yet_found():
    table = {"a": [3.0, 4.0, 5.0], "b": [1.0, -2.0, 1.5], "c": [0.2, 0.1, -0.4]}
    found = joint_flips(table, rng=rng(), alternative="greater")
    null = []
    for signs in itertools.product((1, -1), repeat=3):
        flipped = [np.multiply(signs, values) for values in table.values()]
        null.append([one.mean() / one.std(ddof=1) if np.ptp(one) else np.inf for one in flipped])
    null, observed = np.array(null), np.array(null[0])
    order = np.argsort(-observed)
    expected, last = {}, 0.0
    for rank, place in enumerate(order):
        largest = null[:, order[rank:]].max(axis=1)
        last = max(last, float(np.mean(largest >= observed[place] - 1e-9)))
        expected[list(table)[place]] = last
    assert found.adjusted == pytest.approx(expected)


def test_the_least_p_depends_on_segments_and_not_on_languages():
    tables = [{f"l{i}": np.full(6, 100.0) for i in range(count)} for count in (1, 33)]
    for table in tables:
        found = joint_flips(table, rng=rng(), alternative="greater")
        assert found.least == 2**-6
        assert set(found.adjusted.values()) == {2**-6}


def test_no_p_is_below_the_least_however_nearly_equal_the_values_are():
    """Rounded otherwise, the arrangement as it was measured fell short of itself, and p came out as 0."""
    for seed in range(40):
        draw = rng(seed)
        found = joint_flips({f"l{i}": 100 + 0.01 * draw.standard_normal(8) for i in range(3)}, rng=draw)
        assert set(found.p.values()) == set(found.adjusted.values()) == {found.least}


def test_the_statistic_is_halls_from_ten_values_on():
    values = np.array([3.0, 1.0, 2.5, 0.2, 4.0, 1.5, -6.0, 2.2, 0.9, 1.1])

    def hall(x):
        t, a = x.mean() / (x.std(ddof=1) / np.sqrt(len(x))), scipy.stats.skew(x) / np.sqrt(len(x))
        return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6

    null = np.array([hall(np.multiply(signs, values)) for signs in itertools.product((1, -1), repeat=10)])
    found = joint_flips({"a": values}, rng=rng(), alternative="greater")
    assert found.p["a"] == np.mean(null >= hall(values) - 1e-9)
    assert "t corrected for skewness" in found.method
    assert "skewness" not in joint_flips({"a": values[:9]}, rng=rng(), alternative="greater").method


def test_equal_measurements_are_no_evidence():
    found = joint_flips({"a": np.zeros(6), "b": np.arange(1.0, 7.0)}, rng=rng())
    assert found.p["a"] == found.adjusted["a"] == 1.0
    assert found.adjusted["b"] == pytest.approx(2 / 2**6)


def test_a_language_with_fewer_segments_takes_part_with_those_it_has():
    found = joint_flips({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0, 4.0]}, rng=rng(), alternative="greater")
    assert found.p["a"] == pytest.approx(1 / 4)
    assert found.p["b"] == pytest.approx(1 / 16)


@pytest.mark.parametrize("bad", [{}, {"a": []}])
def test_nothing_to_compare_is_refused(bad):
    with pytest.raises(ValueError, match="at least one language"):
        joint_flips(bad, rng=rng())


def test_random_flips_keep_the_family_wise_error_of_correlated_languages():
    draw, wrong, trials = rng(3), 0, 120
    for _ in range(trials):
        shared = draw.standard_normal(20)
        table = {f"l{i}": shared + draw.standard_normal(20) for i in range(12)}
        found = joint_flips(table, rng=draw, alternative="greater", permutations=499)
        wrong += min(found.adjusted.values()) < 0.05
    low, high = binomial_band(trials, 0.05, confidence=0.999)
    assert low <= wrong <= high
