"""Effect sizes, trend, several tests, proportions, stability and paired comparison."""

import itertools
import math

import numpy as np
import pytest
from evenbits.statistics import (
    benjamini_hochberg,
    binomial_band,
    cliffs_delta,
    holm,
    paired_differences,
    stability,
    wilson,
)
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

CHEAP = {"resamples": 200, "permutations": 199}
SMALL = some.integers(-9, 9).map(float)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_cliffs_delta_counts_pairs_and_its_exact_p_counts_labellings():
    # pairs (4,1) (4,3) (4,3) (3,1) win, (3,3) (3,3) tie: delta = 4 / 6
    found = cliffs_delta([4.0, 3.0], [1.0, 3.0, 3.0], rng=rng())
    assert found.estimate.value == pytest.approx(4 / 6)
    assert "10 labellings" in found.p_method  # 5 choose 2
    values = [4.0, 3.0, 1.0, 3.0, 3.0]
    deltas = []
    for chosen in itertools.combinations(range(5), 2):
        a = [values[i] for i in chosen]
        b = [values[i] for i in range(5) if i not in chosen]
        deltas.append(sum(np.sign(p - q) for p in a for q in b) / 6)
    assert found.p_value == pytest.approx(sum(abs(d) >= 4 / 6 - 1e-9 for d in deltas) / 10)


def test_cliffs_delta_equals_the_rank_sum_statistic_and_its_exact_p():
    a, b = rng(1).normal(0.8, 1, size=5), rng(2).normal(size=6)
    theirs = stats.mannwhitneyu(a, b, method="exact")
    found = cliffs_delta(a, b, rng=rng())
    assert found.estimate.value == pytest.approx(2 * theirs.statistic / 30 - 1, abs=1e-12)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_two_sample_bca_interval_equals_scipy():
    a, b = rng(1).normal(0.8, 1, size=9), rng(2).normal(size=11)
    found = cliffs_delta(a, b, rng=rng(3), resamples=500, permutations=9).estimate
    theirs = stats.bootstrap(
        (a, b),
        lambda p, q: np.sign(p[:, None] - q).mean(),
        vectorized=False,
        n_resamples=500,
        method="BCa",
        rng=rng(3),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_complete_separation_is_said_and_constant_groups_are_undefined():
    found = cliffs_delta([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0], rng=rng())
    assert found.estimate.value == 1.0
    assert "no width" in found.estimate.reason
    assert found.p_value == pytest.approx(2 / 70)  # this labelling and its mirror image, of 8 choose 4
    assert cliffs_delta([1.0, 1.0], [1.0, 1.0], rng=rng()).estimate.value is None
    assert "at least 2" in cliffs_delta([1.0], [1.0, 2.0], rng=rng()).estimate.reason


def test_labels_are_exchanged_within_strata_only():
    # inside each family the two groups are the same; the families differ: nothing to see within them
    a, b = [1.0, 1.1, 9.0], [1.05, 9.1, 9.2]
    strata = ["s", "s", "t", "s", "t", "t"]
    found = cliffs_delta(a, b, rng=rng(), strata=strata)
    assert "within 2 strata, 9 labellings" in found.p_method  # a has 2 of 3 units in s, 1 of 3 in t
    assert found.p_value > 0.5


def test_labellings_within_strata_are_counted_however_many_orders_there_are():
    # s: the only unit of b is the smallest of 10; t: the only unit of a is the largest of 3; u holds a alone
    a, b = [*map(float, range(11, 20)), 30.0, 5.0], [10.0, 20.0, 21.0]
    strata = [*"s" * 9, "t", "u", "s", "t", "t"]
    found = cliffs_delta(a, b, rng=rng(), strata=strata, alternative="greater", **CHEAP)
    assert "30 labellings" in found.p_method  # (10 choose 9) x (3 choose 1), of 10! x 3! orders
    assert found.p_value == pytest.approx(1 / 30)


def test_strata_of_one_group_each_leave_no_test():
    found = cliffs_delta([1.0, 2.0], [3.0, 4.0], rng=rng(), strata=["s", "s", "t", "t"])
    assert found.p_value is None
    assert "no stratum holds units of both groups" in found.p_method


@settings(max_examples=40, deadline=None)
@given(some.lists(SMALL, min_size=2, max_size=6), some.lists(SMALL, min_size=2, max_size=6))
def test_effects_change_sign_with_the_groups_and_not_with_the_scale(a, b):
    plain = cliffs_delta(a, b, rng=rng(), resamples=100, permutations=2000)
    swapped = cliffs_delta(b, a, rng=rng(), resamples=100, permutations=2000)
    scaled = cliffs_delta(np.array(a) * 4 + 1, np.array(b) * 4 + 1, rng=rng(), resamples=100, permutations=2000)
    if plain.estimate.value is None:
        assert swapped.estimate.value is None
        return
    assert 0 < plain.p_value <= 1
    assert swapped.estimate.value == pytest.approx(-plain.estimate.value, abs=1e-9)
    assert scaled.estimate.value == pytest.approx(plain.estimate.value, abs=1e-9)
    assert swapped.p_value == pytest.approx(plain.p_value)


def test_adjusted_p_values_keep_their_names_order_and_gaps():
    p = {"kl": 0.04, "parity": None, "overlap": 0.01, "norm": 0.03}
    # Holm: .01 x 3 = .03; .03 x 2 = .06; max(.06, .04 x 1) = .06
    assert list(holm(p)) == list(p)
    assert holm(p) == pytest.approx({"kl": 0.06, "parity": None, "overlap": 0.03, "norm": 0.06})
    # BH: .04 x 3/3 = .04; .03 x 3/2 = .045 -> min .04; .01 x 3/1 = .03
    assert benjamini_hochberg(p) == pytest.approx({"kl": 0.04, "parity": None, "overlap": 0.03, "norm": 0.04})
    assert holm({}) == {}
    assert holm({"x": None}) == {"x": None}
    with pytest.raises(ValueError, match="p_values"):
        holm({"x": 1.2})


@pytest.mark.parametrize("seed", range(4))
def test_adjusted_p_values_equal_statsmodels_ties_included(seed):
    from statsmodels.stats.multitest import multipletests

    values = np.round(rng(seed).uniform(0.001, 0.2, size=10), 2)
    p = {str(i): float(value) for i, value in enumerate(values)}
    assert list(holm(p).values()) == pytest.approx(multipletests(values, method="holm")[1], abs=1e-12)
    assert list(benjamini_hochberg(p).values()) == pytest.approx(multipletests(values, method="fdr_bh")[1], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(some.lists(some.floats(1e-6, 1), min_size=1, max_size=12))
def test_adjusting_never_lowers_a_p_value_nor_changes_their_order(values):
    p = {str(i): value for i, value in enumerate(values)}
    family, discovery = holm(p), benjamini_hochberg(p)
    for name, value in p.items():
        assert value - 1e-12 <= discovery[name] <= family[name] + 1e-12 <= 1 + 2e-12
    assert [family[k] for k in sorted(p, key=p.get)] == sorted(family.values())


def test_wilson_interval_equals_statsmodels_and_keeps_its_value():
    from statsmodels.stats.proportion import proportion_confint

    for successes, n in ((0, 10), (3, 10), (10, 10), (190, 200)):
        found = wilson(successes, n)
        low, high = proportion_confint(successes, n, method="wilson")
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        assert found.low <= found.value <= found.high
    assert wilson(0, 0).value is None
    with pytest.raises(ValueError, match="successes"):
        wilson(4, 3)


def test_binomial_band_holds_at_least_its_probability():
    low, high = binomial_band(200, 0.05)
    assert (low, high) == (4, 16)
    assert stats.binom.cdf(high, 200, 0.05) - stats.binom.cdf(low - 1, 200, 0.05) >= 0.95
    with pytest.raises(ValueError, match="rate"):
        binomial_band(200, 5)


def test_stability_is_the_share_of_resamples_with_the_same_class():
    # majority of 3 items a, a, b is a in a resample with at least two a: 3 (2/3)^2 (1/3) + (2/3)^3 = 20/27
    def majority(items):
        return max("ab", key=items.count)

    found = stability(majority, ["a", "a", "b"], rng=rng(), resamples=4000)
    assert found.label == "a"
    assert found.estimate.value == pytest.approx(20 / 27, abs=4 * math.sqrt(20 / 27 * 7 / 27 / 4000))
    assert found.estimate.low < 20 / 27 < found.estimate.high
    assert found.estimate.n == 3
    assert sum(found.shares.values()) == pytest.approx(1)
    assert stability(majority, np.array(["a", "b"]), rng=rng(), resamples=10).estimate.n == 2
    assert "single item" in stability(majority, ["a"], rng=rng()).estimate.reason
    with pytest.raises(ValueError, match="items is empty"):
        stability(majority, [], rng=rng())


def paired_difference(after, before, **options):
    return paired_differences({"": after}, {"": before}, **options)[""]


def test_paired_difference_has_an_exact_sign_permutation_p():
    # differences 1, 2, 3: of 8 sign patterns only + + + and - - - reach |mean| 2
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], rng=rng())
    assert found.estimate.value == pytest.approx(2.0)
    assert found.p_value == pytest.approx(2 / 8)
    theirs = stats.permutation_test(
        ([2.0, 4.0, 6.0, 1.0], [1.0, 2.0, 3.0, 2.0]),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        vectorized=False,
        alternative="greater",
    )
    ours = paired_difference([2.0, 4.0, 6.0, 1.0], [1.0, 2.0, 3.0, 2.0], rng=rng(), alternative="greater")
    assert ours.p_value == pytest.approx(theirs.pvalue)


def test_identical_measurements_differ_by_nothing():
    x = rng().normal(size=40)
    found = paired_difference(x, x, rng=rng())
    assert (found.estimate.value, found.estimate.low, found.estimate.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert paired_difference([], [], rng=rng()).estimate.value is None


def test_differences_of_many_languages_are_tested_on_the_same_flips():
    before = {tag: rng(i).normal(size=30) for i, tag in enumerate(("de-Latn", "sr-Cyrl", "ta-Taml"))}
    after = {tag: x + (0.5 if tag == "ta-Taml" else 0.0) * rng(9).gamma(1, size=30) for tag, x in before.items()}
    found = paired_differences(after, before, rng=rng(), permutations=999)
    assert list(found) == list(before)
    assert found["ta-Taml"].p_value == pytest.approx(1 / 1000)
    assert found["ta-Taml"].adjusted_p == pytest.approx(1 / 1000)  # no arrangement has a larger mean in any language
    assert found["de-Latn"].adjusted_p == 1.0
    assert found["de-Latn"].least_p == pytest.approx(1 / 1000)
    with pytest.raises(ValueError, match="differ in sr-Cyrl"):
        paired_differences({"de-Latn": [1.0]}, {"de-Latn": [1.0], "sr-Cyrl": [1.0]}, rng=rng())


def test_false_positives_of_group_and_paired_tests_stay_in_the_binomial_band():
    source = rng(13)
    groups = pairs = 0
    for _ in range(300):
        x, y = source.gamma(1, size=12), source.gamma(1, size=12)
        groups += cliffs_delta(x, y, rng=source, resamples=100, permutations=199).p_value <= 0.05
        pairs += paired_difference(x, y, rng=source, resamples=100, permutations=199).p_value <= 0.05
    low, high = binomial_band(300, 0.05)
    assert low <= groups <= high
    assert low <= pairs <= high
