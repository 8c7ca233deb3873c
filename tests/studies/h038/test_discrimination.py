"""The search of H-038: effects and AUC against references, planted and absent effects, error rates."""

import numpy as np
import pytest
from evenbits.estimates import Verdict
from evenbits.statistics import benjamini_hochberg, binomial_band, nested_selection_auc
from evenbits.studies.h038 import (
    EXPECTED,
    FeatureTable,
    Refusal,
    ResilienceGroups,
    arrangements,
    discriminate,
    discrimination,
)
from evenbits.studies.h038.arrangements import arrange, fewest, standardising
from evenbits.studies.h038.discrimination import deltas, nested_aucs
from evenbits.text.languages import describe
from reference_languages import LANGUAGES
from scipy import stats

# As many languages as the reference family has; tiers are dealt in turn, so that family and tier are unrelated.

N = len(LANGUAGES)
TIER = tuple(("low", "between", "high")[place % 3] for place in range(N))
LEVEL = np.array([{"low": -1.0, "between": 0.0, "high": 1.0}[tier] for tier in TIER])


@pytest.fixture(autouse=True)
def _few_arrangements(monkeypatch):
    monkeypatch.setattr(arrangements, "ARRANGEMENTS", 999)
    monkeypatch.setattr(discrimination, "SELECTIONS", 199)


def rng(seed=0):
    return np.random.default_rng(seed)


def groups_of(residual, *, languages=LANGUAGES, tier=TIER):
    level = np.array([{"low": -1.0, "between": 0.0, "high": 1.0}[one] for one in tier])
    return ResilienceGroups(
        spec="int4-row",
        metric="excess_bits",
        languages=tuple(languages),
        tier=tuple(tier),
        resource_name="ln training bytes",
        design=np.column_stack([np.ones(len(tier)), level]),
        residual=np.asarray(residual, dtype=float),
        coefficients={"constant": 0.0, "ln training bytes": 0.0},
        left_out={},
    )


def random_residual(source):
    """Residuals of chance, free of resource level as a fit leaves them, that put 6 languages or more in each group."""
    design = groups_of(np.zeros(N)).design
    while True:
        residual = source.normal(size=N)
        residual -= design @ np.linalg.lstsq(design, residual, rcond=None)[0]
        resilient, vulnerable = groups_of(residual).masks(residual[None])
        if min(resilient.sum(), vulnerable.sum()) >= 6:
            return residual


def table_of(columns, names=tuple(EXPECTED), languages=LANGUAGES):
    return FeatureTable(
        values={
            name: dict(zip(languages, map(float, column), strict=True))
            for name, column in zip(names, columns.T, strict=True)
        }
    )


def noise(source, features=10):
    return source.normal(size=(N, features))


def test_deltas_in_every_arrangement_are_those_of_the_rank_sum_statistic_and_of_pingouin():
    pingouin = pytest.importorskip("pingouin")
    source = rng(1)
    table = source.integers(0, 9, (N, 3)).astype(float)  # with ties
    label = source.integers(0, 3, (5, N))
    found = deltas(table, label == 0, label == 1)
    for b, k in np.ndindex(found.shape):
        a, c = table[label[b] == 0, k], table[label[b] == 1, k]
        u = stats.mannwhitneyu(a, c).statistic
        assert found[b, k] == pytest.approx(2 * u / (len(a) * len(c)) - 1, abs=1e-12)
        # Vargha and Delaney's A, which pingouin calls CLES, is P(a > c) + P(a = c) / 2 = (delta + 1) / 2
        assert found[b, k] == pytest.approx(2 * pingouin.compute_effsize(a, c, eftype="cles") - 1, abs=1e-6)


def test_nested_aucs_are_those_of_the_selection_in_loops_whatever_the_sizes_of_the_groups():
    source = rng(2)
    table, label = noise(source, 4), source.integers(0, 3, (6, N))
    found = nested_aucs(table, label == 0, label == 1)
    for b, row in enumerate(label):
        inside = row < 2
        one = nested_selection_auc(
            {str(k): column for k, column in enumerate(table[inside].T)},
            (row[inside] == 0).tolist(),
            rng=rng(),
            resamples=100,
            permutations=1,
        )
        assert found[b] == pytest.approx(one.estimate.value, abs=1e-12)


def test_q_values_are_those_of_statsmodels_over_the_features_that_were_searched():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    found = discriminate(groups_of(random_residual(rng(3))), table_of(noise(rng(4))), rng=rng())
    p = [row["p_value"] for row in found.rows]
    assert [row["q"] for row in found.rows] == pytest.approx(multitest.multipletests(p, method="fdr_bh")[1], abs=1e-12)
    assert len(p) == len(benjamini_hochberg(dict(enumerate(p)))) == 10


def test_a_planted_effect_is_found_named_and_turned_to_its_size():
    residual = random_residual(rng(5))
    columns = noise(rng(6))
    columns[:, :5] = -6 * np.sign(residual)[:, None] + noise(rng(7), 5)  # resilient languages have more, as expected
    found = discriminate(groups_of(residual), table_of(columns), rng=rng())
    assert found.discriminates
    assert found.best in list(EXPECTED)[:5]
    assert found.delta.value == found.magnitude.value == 1.0
    assert found.q < 0.05
    assert found.auc_p < 0.05
    assert {row["feature"] for row in found.rows if row["q"] < 0.05} == set(list(EXPECTED)[:5])


def test_power_grows_with_the_dose():
    def found(dose):
        count = 0
        for seed in range(8):
            residual = random_residual(rng(100 + seed))
            columns = noise(rng(200 + seed))
            columns[:, :5] -= dose * residual[:, None]
            count += discriminate(groups_of(residual), table_of(columns), rng=rng(seed)).discriminates
        return count

    weak, strong = found(0.5), found(8.0)
    assert weak < strong
    assert strong >= 6


def test_a_feature_that_only_follows_resource_level_is_not_found_though_it_splits_the_groups_perfectly():
    columns = 6 * LEVEL[:, None] + noise(rng(8))
    found = discriminate(groups_of(random_residual(rng(9))), table_of(columns), rng=rng())
    assert abs(found.delta.value) > 0.9
    assert found.rows[0]["expected_delta"] < -0.9
    assert not found.discriminates


def test_a_feature_of_one_family_is_not_found_where_that_family_is_resilient():
    """Residual and feature both belong to the family and script: within it, they are unrelated."""
    inside = np.array([describe(tag).family == "Indo-European" and describe(tag).script == "Latn" for tag in LANGUAGES])
    residual = np.where(inside, -1.0, 1.0) + 0.2 * rng(10).normal(size=N)
    columns = np.where(inside, 3.0, -3.0)[:, None] + noise(rng(11))
    groups = groups_of(residual)
    resilient, vulnerable = (mask[0] for mask in groups.masks(residual[None]))
    if min(resilient.sum(), vulnerable.sum()) < 2:
        pytest.fail("the plant has no groups")
    found = discriminate(groups, table_of(columns), rng=rng())
    assert isinstance(found, Refusal) or not found.discriminates


def test_false_positives_of_one_feature_stay_in_the_binomial_band():
    hits = 0
    for seed in range(200):
        source = rng([12, seed])
        groups = groups_of(random_residual(source))
        # What follows resource level may not count as a finding.
        column = 0.5 * LEVEL + source.normal(size=N)
        null = arrange(groups, features=10, rng=source, count=199)
        own = groups.masks(groups.residual[None])
        observed = float(deltas(column[:, None], *own)[0, 0] * standardising(*own)[0])
        among = deltas(column[:, None], null.resilient, null.vulnerable)[:, 0] * null.scale
        hits += null.p_value(observed, among) <= 0.05
    low, high = binomial_band(200, 0.05)
    assert low <= hits <= high


@pytest.mark.slow
def test_false_positives_of_the_whole_search_stay_below_the_upper_edge_of_the_band():
    searches = [
        discriminate(groups_of(random_residual(rng([13, seed]))), table_of(noise(rng([14, seed]))), rng=rng(seed))
        for seed in range(200)
    ]
    # Of 999 arrangements only some have groups as large as these: where fewer than 200 have, no q can be small.
    made = [found for found in searches if not isinstance(found, Refusal)]
    assert len(made) > 100
    hits = sum(found.discriminates for found in made)
    assert hits <= binomial_band(len(made), 0.05)[1]


def test_the_fewest_languages_follow_from_the_number_of_labellings():
    # A perfect split of 6 and 6 has p = 2 / C(12, 6) = 2 / 924; times 10 features .0216. Of 5 and 5: 20 / 252 = .079.
    assert fewest(10) == 6
    # One feature: 2 / C(8, 4) = .0286; of 3 and 3: .1
    assert fewest(1) == 4


def test_too_small_groups_are_underpowered_and_the_sentence_says_how_many_are_needed():
    residual = np.where(LEVEL == 0, 0.0, -1.0)
    residual[[2, 5, 8, 11, 14]] = 1.0  # five of eleven high-resource languages lose more than expected
    residual[[0, 3, 6, 9, 12, 15, 18]] = 1.0  # and seven low-resource ones: four resilient are left
    found = discriminate(groups_of(residual), table_of(noise(rng(15))), rng=rng())
    assert isinstance(found, Refusal)
    assert found.verdict is Verdict.UNDERPOWERED
    # C(9, 4) = 126 labellings: 10 features x 2 / 126 = .16
    assert found.lacking == (
        "4 resilient of 11 low-resource and 5 vulnerable of 11 high-resource languages, needed 6 of each"
    )


def test_no_low_resource_language_is_underpowered():
    found = discriminate(groups_of(random_residual(rng(16)), tier=["high"] * N), table_of(noise(rng(17))), rng=rng())
    assert found.verdict is Verdict.UNDERPOWERED
    assert "0 resilient of 0 low-resource" in found.because


def test_constant_and_undefined_features_are_left_out_and_none_left_is_not_applicable():
    groups = groups_of(random_residual(rng(18)))
    columns = noise(rng(19), 3)
    columns[:, 1] = 2.0
    table = table_of(columns, names=("channel_entropy", "half_prediction", "participation_late"))
    holed = FeatureTable(
        values={**table.values, "participation_late": {**table.values["participation_late"], "ar": None}}
    )
    usable = holed.over(LANGUAGES)
    assert usable.names == ("channel_entropy",)
    assert usable.left_out == {"half_prediction": "constant", "participation_late": "undefined in ar"}
    found = discriminate(groups, table_of(np.ones((N, 10))), rng=rng())
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert "channel_entropy is constant" in found.because
