"""Held-out R2 and nested selection of a feature."""

import numpy as np
import pytest
from evenbits.statistics import added_r2, binomial_band, held_out_predictions, held_out_r2, nested_selection_auc
from hypothesis import given, settings
from hypothesis import strategies as some


def rng(seed=0):
    return np.random.default_rng(seed)


def test_leave_one_out_r2_equals_the_press_residuals_of_statsmodels():
    import statsmodels.api as sm

    source = rng(1)
    x, z = source.normal(size=20), source.normal(size=20)
    y = x + 0.5 * z + source.normal(size=20)
    residuals = sm.OLS(y, sm.add_constant(np.column_stack([x, z]))).fit().get_influence().resid_press
    baseline = [y[i] - np.delete(y, i).mean() for i in range(20)]
    expected = 1 - (residuals**2).sum() / np.square(baseline).sum()
    found = held_out_r2(y, {"x": x, "z": z}, rng=rng())
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low < found.value < found.high
    assert found.n == 20


def test_leave_one_group_out_predicts_each_group_from_the_others():
    x, y = np.arange(7.0), np.array([0, 2, 4, 6, 9, 11.0, 13.0])
    predicted, means = held_out_predictions(y, {"x": x}, groups=list("aaaabbb"))
    # group b from the line y = 2x through group a, group a from the line y = 2x + 1 through group b
    assert predicted == pytest.approx([1.0, 3.0, 5.0, 7.0, 8.0, 10.0, 12.0])
    assert means == pytest.approx([11.0] * 4 + [3.0] * 3)
    found = held_out_r2(y, {"x": x}, rng=rng(), groups=list("aaaabbb"))
    # every error is 1; deviations of a from 11: 11, 9, 7, 5, of b from 3: 6, 8, 10
    assert found.value == pytest.approx(1 - 7 / (121 + 81 + 49 + 25 + 36 + 64 + 100))
    assert found.low is None
    assert "2 groups" in found.reason


def test_noise_predicts_worse_than_the_mean_and_says_so_below_zero():
    source = rng(3)
    found = held_out_r2(source.normal(size=25), {"noise": source.normal(size=25)}, rng=rng())
    assert found.value < 0


def test_added_r2_is_the_gain_over_the_comparators():
    source = rng(4)
    parity, overlap = source.normal(size=40), source.normal(size=40)
    y = parity + overlap + 0.3 * source.normal(size=40)
    both = held_out_r2(y, {"parity": parity, "overlap": overlap}, rng=rng()).value
    one = held_out_r2(y, {"parity": parity}, rng=rng()).value
    gain = added_r2(y, {"parity": parity}, {"overlap": overlap}, rng=rng())
    assert gain.value == pytest.approx(both - one, abs=1e-9)
    assert gain.low > 0
    copy = added_r2(y, {"parity": parity}, {"noise": source.normal(size=40)}, rng=rng())
    assert copy.value < 0.05
    with pytest.raises(ValueError, match="repeats"):
        added_r2(y, {"parity": parity}, {"parity": parity}, rng=rng())


def test_held_out_r2_says_why_it_is_undefined():
    y = np.arange(6.0)
    assert "constant" in held_out_r2(y, {"x": np.ones(6)}, rng=rng()).reason
    assert "y is constant" in held_out_r2(np.ones(6), {"x": y}, rng=rng()).reason
    assert "collinear" in held_out_r2(y, {"x": y**2, "twice": 2 * y**2}, rng=rng()).reason
    assert "one group" in held_out_r2(y, {"x": y}, rng=rng(), groups=["a"] * 6).reason
    assert "predictors need 3" in held_out_r2(y[:3], {"x": y[:3]}, rng=rng()).reason
    # x varies over all units but not without the last one
    assert "without one fold" in held_out_r2(y, {"x": [0.0, 0, 0, 0, 0, 1]}, rng=rng()).reason
    with pytest.raises(ValueError, match=r"predictors\['x'\] has 2 entries, needed 6"):
        held_out_r2(y, {"x": [1.0, 2.0]}, rng=rng())


@settings(max_examples=30, deadline=None)
@given(some.integers(0, 999), some.floats(0.01, 100), some.floats(-5, 5))
def test_held_out_r2_is_unmoved_by_scale_of_either_side(seed, factor, shift):
    source = rng(seed)
    x = source.normal(size=8)
    y = x + source.normal(size=8)
    plain = held_out_r2(y, {"x": x}, rng=rng(), resamples=100)
    moved = held_out_r2(factor * y + shift, {"x": x / factor - shift}, rng=rng(), resamples=100)
    assert moved.value == pytest.approx(plain.value, abs=1e-6)
    assert plain.value < 1


def brute_force_auc(table, labels):
    """The same procedure written as loops: what the vectorised one must equal."""
    names = list(table)
    scores = []
    for i in range(len(labels)):
        kept = [j for j in range(len(labels)) if j != i]
        best, best_sum = None, -np.inf
        for name in names:
            x = table[name]
            total = sum(np.sign(x[a] - x[b]) for a in kept if labels[a] for b in kept if not labels[b])
            if total > best_sum:
                best, best_sum = name, total
        others = np.delete(table[best], i)
        scores.append((table[best][i] - others.mean()) / others.std())
    pairs = [
        (p, q) for p, t in zip(scores, labels, strict=True) if t for q, f in zip(scores, labels, strict=True) if not f
    ]
    return sum((p > q) + 0.5 * (p == q) for p, q in pairs) / len(pairs), scores


@pytest.mark.parametrize("seed", range(4))
def test_nested_selection_equals_the_same_procedure_in_loops(seed):
    source = rng(seed)
    labels = [True] * 5 + [False] * 6
    table = {f"f{k}": source.normal(size=11) + (0.8 * np.array(labels) if k == 2 else 0) for k in range(5)}
    auc, scores = brute_force_auc(table, labels)
    found = nested_selection_auc(table, labels, rng=rng(), permutations=19)
    assert found.estimate.value == pytest.approx(auc)
    assert found.scores == pytest.approx(scores)


def test_a_feature_that_separates_is_found_and_the_selection_is_significant():
    source = rng(5)
    labels = [i < 9 for i in range(20)]
    table = {f"f{k}": source.normal(size=20) for k in range(12)}
    table["ratio"] = source.normal(size=20) + 4 * np.array(labels)
    found = nested_selection_auc(table, labels, rng=rng(), permutations=199)
    assert found.estimate.value > 0.9
    assert found.p_value == pytest.approx(1 / 200)
    assert next(iter(found.frequencies)) == "ratio"
    assert found.frequencies["ratio"] > 0.9
    assert sum(found.frequencies.values()) == pytest.approx(1)


def test_a_feature_that_separates_against_its_sign_is_no_find():
    source = rng(5)
    labels = [i < 9 for i in range(20)]
    found = nested_selection_auc({"x": source.normal(size=20) - 4 * np.array(labels)}, labels, rng=rng())
    assert found.estimate.value < 0.1
    assert found.p_value > 0.95


def test_false_positives_of_the_whole_selection_stay_in_the_binomial_band():
    source = rng(6)
    labels = [i < 12 for i in range(26)]  # in much smaller groups ties of the AUC cost a quarter of the level
    rejected = 0
    for _ in range(400):
        table = {f"f{k}": source.normal(size=26) for k in range(8)}
        rejected += nested_selection_auc(table, labels, rng=source, permutations=99, resamples=100).p_value <= 0.05
    low, high = binomial_band(400, 0.05)
    assert low <= rejected <= high


def test_few_labellings_are_all_tried_and_strata_are_kept():
    table = {"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    labels = [False, False, False, True, True, True]
    found = nested_selection_auc(table, labels, rng=rng())
    assert "20 labellings" in found.p_method  # 6 choose 3
    assert found.estimate.value == 1.0
    assert found.p_value == pytest.approx(1 / 20)  # this one; its mirror image goes against the sign
    within = nested_selection_auc(table, labels, rng=rng(), strata=list("ababab"))
    assert "within 2 strata, 36 arrangements" in within.p_method
    assert nested_selection_auc(table, labels, rng=rng(), strata=list("abcdef")).p_value is None


def test_selection_says_why_it_is_undefined():
    labels = [True, True, False, False]
    assert (
        "at least 2"
        in nested_selection_auc({"x": [1.0, 2, 3, 4]}, [True, False, False, False], rng=rng()).estimate.reason
    )
    assert "constant" in nested_selection_auc({"x": np.ones(4)}, labels, rng=rng()).estimate.reason
    assert "no features" in nested_selection_auc({}, labels, rng=rng()).estimate.reason
    with pytest.raises(ValueError, match="labels"):
        nested_selection_auc({"x": [1.0, 2, 3]}, [0, 1, 2], rng=rng())
