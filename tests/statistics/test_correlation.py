"""Correlations, their permutation tests and partial correlation."""

import itertools
import math

import numpy as np
import pytest
from evenbits.statistics import (
    binomial_band,
    cluster_means,
    leave_group_out,
    partial_correlation,
    pearson,
    permutation_p,
    rearrangements,
    sign_flips,
    spearman,
)
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

CHEAP = {"resamples": 200, "permutations": 199}
SMALL = some.integers(-50, 50).map(float)


def rng(seed=0):
    return np.random.default_rng(seed)


def pair(n, seed=0, slope=0.5):
    source = rng(seed)
    x = source.normal(size=n)
    return x, slope * x + source.normal(size=n)


@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
def test_coefficients_equal_scipy_with_and_without_ties(ours, theirs):
    x, y = pair(30)
    assert ours(x, y, rng=rng(), **CHEAP).estimate.value == pytest.approx(theirs(x, y).statistic, abs=1e-9)
    x, y = np.round(x), np.round(y)
    assert ours(x, y, rng=rng(), **CHEAP).estimate.value == pytest.approx(theirs(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
def test_bca_intervals_equal_scipy_draw_by_draw(ours, theirs):
    x, y = pair(12, seed=3)
    found = ours(x, y, rng=rng(5), resamples=300, permutations=9).estimate
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: theirs(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=300,
        method="BCa",
        rng=rng(5),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_exact_p_of_small_samples_is_the_share_of_all_orders():
    x, y = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 5.0, 9.0]
    products = [sum(a * b for a, b in zip(x, order, strict=True)) for order in itertools.permutations(y)]
    # sum xy is 2 + 2 + 15 + 36 = 55; only the sorted order reaches more (1 + 4 + 15 + 36 = 56): 2 of 24 orders
    assert sum(product >= 55 for product in products) == 2
    assert pearson(x, y, rng=rng(), alternative="greater").p_value == pytest.approx(2 / 24)
    centred = np.abs(np.array(products) - 10 * 17 / 4)  # n x mean x mean
    found = pearson(x, y, rng=rng())
    assert found.p_value == pytest.approx((centred >= 55 - 42.5 - 1e-9).sum() / 24)
    assert "exact permutation, 24 arrangements" in found.p_method


def test_exact_p_equals_scipy_permutation_test():
    x, y = pair(6, seed=2)
    theirs = stats.permutation_test(
        (x,),
        lambda a: stats.pearsonr(a, y).statistic,
        permutation_type="pairings",
        vectorized=False,
        n_resamples=np.inf,
        alternative="greater",
    )
    assert pearson(x, y, rng=rng(), alternative="greater").p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_p_agrees_with_the_t_test_within_monte_carlo_error():
    x, y = pair(40, seed=4, slope=0.25)
    p = stats.pearsonr(x, y).pvalue
    found = pearson(x, y, rng=rng(1), permutations=9999).p_value
    # standard error of a share p of 9999 draws; 4 of them, and the t-test is itself an approximation of order 1/n
    assert found == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 9999) + 0.003)


def test_the_smallest_random_p_is_one_in_m_plus_one():
    x = np.arange(30.0)
    assert pearson(x, x, rng=rng(), permutations=99, resamples=100).p_value == pytest.approx(1 / 100)


def test_stratified_rearrangements_keep_every_unit_in_its_stratum():
    strata = ["a", "b", "a", "c", "b", "a"]
    exact = rearrangements(6, rng=rng(), strata=strata)
    assert len(exact.rows) == 3 * 2 * 2 * 1  # 3! x 2! x 1!
    assert len({tuple(row) for row in exact.rows.tolist()}) == 12
    drawn = rearrangements(6, rng=rng(), strata=strata, permutations=11)
    for row in (*exact.rows, *drawn.rows):
        assert sorted(row.tolist()) == list(range(6))
        assert [strata[i] for i in row] == strata


def test_random_orders_within_a_stratum_are_uniform():
    drawn = rearrangements(8, rng=rng(3), strata=["x", "y", "y", "y", "x", "z", "z", "z"], permutations=6 * 500 - 1)
    assert not rearrangements(8, rng=rng(), permutations=100).exact
    if drawn.exact:  # 2! 3! 3! = 72 orders: all of them where that many are allowed
        assert len(drawn.rows) == 72
    drawn = rearrangements(9, rng=rng(3), strata=["y"] * 4 + ["z"] * 5, permutations=2399)
    counts = np.unique(drawn.rows[:, :4], axis=0, return_counts=True)[1]
    assert len(counts) == 24
    # 2399 draws over 24 orders; chi-square with 23 degrees of freedom stays below 49.7 in 99.9 % of cases
    assert ((counts - 2399 / 24) ** 2 / (2399 / 24)).sum() < 49.7


def test_units_alone_in_their_strata_give_no_p_but_a_reason():
    found = pearson(*pair(5), rng=rng(), strata=list("abcde"), resamples=100)
    assert found.p_value is None
    assert "single unit" in found.p_method
    assert found.estimate.value is not None


def test_a_correlation_that_only_separates_families_is_not_significant_within_them():
    family = np.repeat([0.0, 10.0], 15)
    noise = rng(8)
    x, y = family + noise.normal(size=30), family + noise.normal(size=30)
    labels = [str(value) for value in family]
    assert pearson(x, y, rng=rng(), **CHEAP).p_value <= 0.01
    assert pearson(x, y, rng=rng(), strata=labels, **CHEAP).p_value > 0.05


@pytest.mark.parametrize("strata", [None, ["a"] * 5 + ["b"] * 7])
def test_false_positives_of_the_correlation_test_stay_in_the_binomial_band(strata):
    source = rng(21)
    shift = np.array([0.0] * 5 + [3.0] * 7) if strata else 0.0  # families differ; inside them nothing is related
    rejected = 0
    for _ in range(300):
        x, y = shift + source.normal(size=12), shift + source.normal(size=12)
        rejected += pearson(x, y, rng=source, strata=strata, resamples=100, permutations=199).p_value <= 0.05
    low, high = binomial_band(300, 0.05)
    assert low <= rejected <= high


def test_constant_and_tiny_inputs_are_undefined_with_their_reason():
    assert "y is constant" in pearson([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], rng=rng()).estimate.reason
    assert "at least 3" in spearman([1.0, 2.0], [2.0, 1.0], rng=rng()).estimate.reason
    three = pearson([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], rng=rng()).estimate
    assert three.value == pytest.approx(0.5)  # deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 x 2)
    assert three.low is None
    with pytest.raises(ValueError, match="x has 2 entries and y has 3"):
        pearson([1.0, 2.0], [1.0, 2.0, 3.0], rng=rng())
    with pytest.raises(ValueError, match="alternative"):
        pearson([1.0, 2.0, 3.0], [1.0, 2.0, 2.0], rng=rng(), alternative="bigger")


@settings(max_examples=40, deadline=None)
@given(some.lists(some.tuples(SMALL, SMALL), min_size=3, max_size=9), some.integers(0, 9))
def test_correlations_are_symmetric_and_unmoved_by_scale(points, seed):
    x, y = np.array(points).T
    for measure in (pearson, spearman):
        plain = measure(x, y, rng=rng(seed), resamples=100, permutations=50)
        swapped = measure(y, x, rng=rng(seed), resamples=100, permutations=50)
        moved = measure(3 * x + 1, -0.5 * y, rng=rng(seed), resamples=100, permutations=50)
        if plain.estimate.value is None:
            assert swapped.estimate.value is None
            assert plain.p_value is None
            continue
        assert 0 < plain.p_value <= 1
        assert -1 - 1e-12 <= plain.estimate.value <= 1 + 1e-12
        assert swapped.estimate.value == pytest.approx(plain.estimate.value, abs=1e-9)
        assert moved.estimate.value == pytest.approx(-plain.estimate.value, abs=1e-9)
        assert moved.p_value == pytest.approx(plain.p_value)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_partial_correlation_equals_pingouin(kind):
    import pandas as pd
    import pingouin

    source = rng(6)
    c, d = source.normal(size=30), source.normal(size=30)
    x, y = c + source.normal(size=30), c - d + source.normal(size=30)
    frame = pd.DataFrame({"x": x, "y": y, "c": c, "d": d})
    theirs = pingouin.partial_corr(frame, x="x", y="y", covar=["c", "d"], method=kind)["r"].iloc[0]
    ours = partial_correlation(x, y, {"c": c, "d": d}, kind=kind, rng=rng(), **CHEAP)
    assert ours.estimate.value == pytest.approx(theirs, abs=1e-6)
    assert ours.estimate.low < ours.estimate.value < ours.estimate.high


def test_partial_correlation_without_covariates_is_the_plain_one():
    x, y = pair(20)
    none = partial_correlation(x, y, {}, rng=rng(), **CHEAP)
    plain = pearson(x, y, rng=rng(), **CHEAP)
    assert none.estimate.value == pytest.approx(plain.estimate.value)
    assert none.estimate.low == pytest.approx(plain.estimate.low)
    assert none.p_value == plain.p_value


def test_a_shared_cause_is_removed_and_its_test_keeps_its_level():
    source = rng(31)
    rejected = 0
    for _ in range(200):
        cause = source.normal(size=15)
        x, y = 2 * cause + source.normal(size=15), 2 * cause + source.normal(size=15)
        found = partial_correlation(x, y, {"cause": cause}, rng=source, resamples=100, permutations=99)
        rejected += found.p_value <= 0.05
    low, high = binomial_band(200, 0.05)
    assert low <= rejected <= high


def test_partial_correlation_says_why_it_is_undefined():
    x, y = pair(10)
    assert "explain" in partial_correlation(x, y, {"same": 2 * x}, rng=rng(), **CHEAP).estimate.reason
    assert "at least 4" in partial_correlation(x[:3], y[:3], {"c": y[:3]}, rng=rng(), **CHEAP).estimate.reason
    # a constant or repeated covariate says nothing: it changes nothing
    once = partial_correlation(x, y, {"c": x**2}, rng=rng(), **CHEAP)
    thrice = partial_correlation(x, y, {"c": x**2, "d": x**2, "one": np.ones(10)}, rng=rng(), **CHEAP)
    assert thrice.estimate.value == pytest.approx(once.estimate.value, abs=1e-9)


def test_leaving_families_out_shows_a_correlation_that_rests_on_one():
    x = np.array([0, 1, 2, 3, 20.0, 21.0])
    y = np.array([2, 1, 1, 2, 20.0, 22.0])
    found = leave_group_out(x, y, ["a", "a", "b", "b", "far", "far"])
    assert found["far"].value == pytest.approx(0.0)  # (0..3) against (2, 1, 1, 2)
    assert found["a"].value > 0.99
    assert found["far"].n == 4
    assert leave_group_out([1.0, 2, 3, 9], [1.0, 1, 1, 5], list("aaab"))["b"].value is None


def test_checkpoints_of_one_model_count_once():
    names, means = cluster_means([1.0, 3.0, 10.0], ["pythia", "pythia", "bloom"])
    assert names == ("bloom", "pythia")
    assert means.tolist() == [10.0, 2.0]


def test_p_values_count_ties_as_extreme_and_never_reach_zero():
    null = np.array([1.0, -1.0, 0.5])
    assert permutation_p(1.0 + 1e-13, null, exact=False) == pytest.approx(3 / 4)
    assert permutation_p(1.0, null, exact=True, alternative="greater") == pytest.approx(1 / 3)
    assert permutation_p(5.0, null, exact=False, alternative="greater") == pytest.approx(1 / 4)


def test_sign_flips_are_all_of_them_when_few():
    flips = sign_flips(3, rng=rng())
    assert flips.exact
    assert len({tuple(row) for row in flips.rows.tolist()}) == 8
    assert set(np.unique(sign_flips(40, rng=rng(), permutations=50).rows)) == {-1, 1}
