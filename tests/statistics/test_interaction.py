"""The layer x language interaction: sums of squares, effect size, level and power of its test."""

import numpy as np
import pytest
from evenbits.statistics import binomial_band, interaction, layer_language_interaction, sums_of_squares
from evenbits.statistics.bootstrap import resample_counts

P, L, S = 6, 8, 20
FAMILIES = ["slavic"] * 3 + ["turkic"] * 3 + ["bantu"] * 2
CHEAP = {"resamples": 100, "permutations": 99}


def rng(seed=0):
    return np.random.default_rng(seed)


def additive(source, noise=1.0):
    """Every effect but layer x language: layers, languages, segments, and segments with both."""
    shapes = [(P, 1, 1), (1, L, 1), (1, 1, S), (P, 1, S), (1, L, S)]
    return sum(2 * source.normal(size=shape) for shape in shapes) + noise * source.normal(size=(P, L, S))


def rejections(make, count=200, seed=5, **options):
    source = rng(seed)
    return sum(
        layer_language_interaction(make(source), rng=source, **CHEAP, **options).p_value <= 0.05 for _ in range(count)
    )


def test_sums_of_squares_equal_statsmodels_and_add_up():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    y = rng(1).normal(size=(3, 4, 5)) + np.arange(3)[:, None, None]
    p, lang, s = np.indices(y.shape)
    frame = pd.DataFrame({"y": y.ravel(), "p": p.ravel(), "l": lang.ravel(), "s": s.ravel()})
    fit = ols("y ~ C(p) * C(l) + C(s) + C(p):C(s) + C(l):C(s)", data=frame).fit()
    table = anova_lm(fit)["sum_sq"]
    found = sums_of_squares(y)
    names = {
        "layer": "C(p)",
        "language": "C(l)",
        "segment": "C(s)",
        "layer:language": "C(p):C(l)",
        "layer:segment": "C(p):C(s)",
        "language:segment": "C(l):C(s)",
        "layer:language:segment": "Residual",
    }
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(table[theirs], abs=1e-6)
    assert sum(found.values()) == pytest.approx(((y - y.mean()) ** 2).sum())


def test_f_equals_repeated_measures_anova_with_segments_as_subjects():
    import pandas as pd
    from statsmodels.stats.anova import AnovaRM

    y = additive(rng(2))[:4, :3, :9]
    p, lang, s = np.indices(y.shape)
    frame = pd.DataFrame({"y": y.ravel(), "p": p.ravel(), "l": lang.ravel(), "s": s.ravel()})
    row = AnovaRM(frame, "y", "s", within=["p", "l"]).fit().anova_table.loc["p:l"]
    found = layer_language_interaction(y, rng=rng(), **CHEAP)
    assert found.f == pytest.approx(row["F Value"], rel=1e-6)
    assert found.degrees == (row["Num DF"], row["Den DF"]) == (6, 48)
    # partial omega squared from F: df (F - 1) / (df (F - 1) + P L S)
    assert found.estimate.value == pytest.approx(6 * (found.f - 1) / (6 * (found.f - 1) + 4 * 3 * 9))


@pytest.mark.parametrize("scheme", ["labels", "signs"])
def test_false_positives_stay_in_the_binomial_band(scheme):
    low, high = binomial_band(200, 0.05)
    assert low <= rejections(additive, scheme=scheme) <= high


@pytest.mark.parametrize("scheme", ["labels", "signs"])
def test_families_that_differ_give_no_false_positives_within_families(scheme):
    codes = np.unique(FAMILIES, return_inverse=True)[1]

    def families_differ(source):
        return additive(source) + 2 * source.normal(size=(P, 3))[:, codes][:, :, None]

    low, high = binomial_band(200, 0.05)
    assert low <= rejections(families_differ, families=FAMILIES, scheme=scheme) <= high
    assert rejections(families_differ, count=5) == 5  # while among all languages it is an interaction


def test_languages_that_lose_in_proportion_are_an_interaction_in_bits_but_not_in_shares():
    def proportional(source):
        layers, languages = source.gamma(4, size=(P, 1, 1)), np.exp(0.5 * source.normal(size=(1, L, 1)))
        return languages * (layers * np.exp(0.3 * source.normal(size=(1, 1, S))) + source.normal(size=(P, L, S)))

    assert rejections(proportional, count=10) >= 9
    low, high = binomial_band(200, 0.05, confidence=0.99)
    assert low <= rejections(proportional, scale="share") <= high


def test_the_sign_scheme_keeps_its_level_where_languages_spread_unequally():
    def unequal(source):
        return additive(source) + np.linspace(0.2, 4, L)[None, :, None] * source.normal(size=(P, L, S))

    low, high = binomial_band(200, 0.05)
    assert low <= rejections(unequal, scheme="signs") <= high


def test_a_planted_interaction_is_found_with_its_size():
    source = rng(9)
    values, found = [], 0
    for _ in range(40):
        y = additive(source) + 0.4 * source.normal(size=(P, L, 1))
        result = layer_language_interaction(y, rng=source, families=FAMILIES, **CHEAP)
        values.append(result.estimate.value)
        found += result.p_value <= 0.05
    assert found >= 38
    # component .16 x (P - 1)(L - 1) / (P L) = .16 x 35 / 48 = .1167; over noise 1: .1167 / 1.1167 = .104
    assert np.mean(values) == pytest.approx(0.104, abs=0.02)


def test_the_effect_size_is_centred_at_nothing_where_there_is_nothing_and_so_is_its_interval():
    source = rng(10)
    results = [layer_language_interaction(additive(source), rng=source, **CHEAP).estimate for _ in range(60)]
    # standard deviation of one is about .008
    assert np.mean([result.value for result in results]) == pytest.approx(0.0, abs=0.004)
    assert np.mean([(result.low + result.high) / 2 for result in results]) == pytest.approx(0.0, abs=0.01)
    assert sum(result.low <= 0 <= result.high for result in results) >= 54


def test_replicates_are_those_of_all_pairs_of_languages_and_segments():
    y = additive(rng(11)) + 40.0 * (np.arange(P) == 0)[:, None, None]  # one layer does nearly everything
    profiles = y - y.mean(axis=0)
    found = interaction._omega_replicates(profiles, None, rng=rng(13), resamples=3)
    source = rng(13)  # the same draws
    times, of_language = resample_counts(S, 3, source), resample_counts(L, 3, source)
    for replicate, w, v in zip(found, times, of_language, strict=True):
        segments, languages = (np.repeat(np.arange(len(counts)), counts.astype(int)) for counts in (w, v))
        pairs = [(a, b) for a in languages for b in languages if a != b]
        # of different profiles l - m, the products of two segments: of the same one, and of two different ones
        d_XPS = np.array([profiles[:, a] - profiles[:, b] for a, b in pairs])[:, :, segments]
        products = np.einsum("xps,xpt->st", d_XPS, d_XPS) / len(pairs)
        apart = segments[:, None] != segments[None, :]
        effect = products[apart].mean() * (L - 1) / 2
        noisy = np.diag(products).mean() * (L - 1) / 2
        component, error = effect / (P * L), (noisy - effect) / ((P - 1) * (L - 1))
        assert replicate == pytest.approx(component / (component + error), rel=1e-9)


def test_intervals_hold_the_planted_size():
    source = rng(12)
    covered = 0
    for _ in range(60):
        y = additive(source) + 0.6 * source.normal(size=(P, L, 1))
        result = layer_language_interaction(y, rng=source, resamples=200, permutations=1).estimate
        # component .36 x 35 / 48 = .2625 over noise 1; languages and layers are redrawn in every study
        covered += result.low <= 0.2625 / 1.2625 <= result.high
    assert covered >= 48  # 80 %: eight languages are few for an interval over languages


def test_permutations_leave_scale_and_level_out_of_the_p_value():
    y = additive(rng(3)) + 0.2 * rng(4).normal(size=(P, L, 1))
    plain = layer_language_interaction(y, rng=rng(), families=FAMILIES, **CHEAP)
    moved = layer_language_interaction(
        3 * y + 100 + rng(5).normal(size=(1, L, S)), rng=rng(), families=FAMILIES, **CHEAP
    )
    assert 0 < plain.p_value <= 1
    assert moved.p_value == plain.p_value
    assert moved.f == pytest.approx(plain.f)
    assert moved.estimate.low == pytest.approx(plain.estimate.low, abs=1e-9)


def test_languages_alone_in_their_families_cannot_be_permuted():
    found = layer_language_interaction(additive(rng()), rng=rng(), families=list(range(L)), **CHEAP)
    assert found.p_value is None
    assert "alone in its family" in found.p_method
    assert found.movable == 0
    assert found.estimate.value is not None
    some = layer_language_interaction(additive(rng()), rng=rng(), families=["a", "a", *range(L - 2)], **CHEAP)
    assert some.movable == 2
    assert some.p_value is not None


def test_the_interaction_says_why_it_is_undefined():
    assert "at least 2 x 2 x 3" in layer_language_interaction(np.ones((1, 2, 9)), rng=rng()).estimate.reason
    assert "same in every cell" in layer_language_interaction(np.ones((2, 2, 9)), rng=rng()).estimate.reason
    exact = np.arange(3.0)[:, None, None] + np.arange(4.0)[:, None] + np.zeros(5)
    assert "additive" in layer_language_interaction(exact, rng=rng()).estimate.reason
    losses = additive(rng())
    losses[:, 2] -= losses[:, 2].mean() + 1
    assert "language" in layer_language_interaction(losses, rng=rng(), scale="share").estimate.reason
    with pytest.raises(ValueError, match="families has 2 entries, needed 8"):
        layer_language_interaction(additive(rng()), rng=rng(), families=["a", "b"])
    with pytest.raises(ValueError, match="scheme"):
        layer_language_interaction(additive(rng()), rng=rng(), scheme="rows")
    with pytest.raises(ValueError, match="not finite"):
        layer_language_interaction(np.full((2, 2, 3), np.nan), rng=rng())
