"""Findings of H-038 on planted and absent effects, and the sentence where there is nothing to find."""

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.statistics import partial_correlation
from evenbits.studies.h038 import (
    EXPECTED,
    FeatureTable,
    Refusal,
    ResilienceGroups,
    ResilienceStudy,
    SettledGroups,
    along_all_languages,
    arrangements,
    beyond_resource_level,
    discriminating_features,
    discrimination,
    gradient,
    more_distributed,
    without_a_family,
    without_likelihood,
)
from evenbits.text.languages import describe
from reference_languages import LANGUAGES

N = len(LANGUAGES)
TIER = tuple(("low", "between", "high")[place % 3] for place in range(N))
LEVEL = np.array([{"low": -1.0, "between": 0.0, "high": 1.0}[tier] for tier in TIER])
DESIGN = np.column_stack([np.ones(N), LEVEL])
SIGNS = np.array(list(EXPECTED.values()))
LARGE = Threshold(metric="largest_cliffs_delta", op=">=", bound=0.474, why="as in the eval")
ABOVE_ZERO = Threshold(metric="x", op=">", bound=0.0, why="as in the eval")
FINDINGS = (
    discriminating_features,
    more_distributed,
    without_likelihood,
    beyond_resource_level,
    without_a_family,
    along_all_languages,
)


@pytest.fixture(autouse=True)
def _few_arrangements(monkeypatch):
    for module in (arrangements, gradient):
        monkeypatch.setattr(module, "ARRANGEMENTS", 1999)
    monkeypatch.setattr(discrimination, "SELECTIONS", 199)


def rng(seed=0):
    return np.random.default_rng(seed)


def groups_of(residual, metric="excess_bits"):
    return ResilienceGroups(
        spec="int4-row",
        metric=metric,
        languages=LANGUAGES,
        tier=TIER,
        resource_name="ln training bytes",
        design=DESIGN,
        residual=residual,
        coefficients={"constant": 1.0, "ln training bytes": 0.5},
        left_out={},
    )


def residuals(seed=21):
    """Half of every tier loses less than expected, half more, whatever family a language is of."""
    residual = rng(seed).permuted(np.tile([-1.0, 1.0], (3, 6))[:, :11], axis=1).T.ravel()
    residual += 0.1 * rng(seed + 1).normal(size=N)
    return residual - DESIGN @ np.linalg.lstsq(DESIGN, residual, rcond=None)[0]


def study_of(columns, *, residual=None, others=None, exposure_only=None):
    groups = groups_of(residuals() if residual is None else residual)
    by_metric = dict.fromkeys(("excess_bits", "relative_increase", "kl"), groups) | (others or {})
    values = {
        name: dict(zip(LANGUAGES, column.tolist(), strict=True))
        for name, column in zip(EXPECTED, columns.T, strict=True)
    }
    return ResilienceStudy(
        groups=SettledGroups(by_metric=by_metric, without_likelihood=exposure_only or groups),
        features=FeatureTable(values=values),
    )


def planted(*, dose=6.0, level=0.0, seed=3):
    """Features that fall with the residual, each by its own expected sign: resilient languages are more distributed."""
    noise = rng(seed).normal(size=(N, len(EXPECTED)))
    return SIGNS * (noise - dose * residuals()[:, None]) + level * LEVEL[:, None]


def verdict_of(finding, threshold=LARGE):
    return judge(finding, threshold, hypothesis="H-038", test="t", role="criterion").verdict


def test_a_planted_effect_is_supported_in_every_finding():
    study = study_of(planted())
    for finding in FINDINGS:
        found = finding(study, rng=rng())
        assert verdict_of(found, ABOVE_ZERO if finding is more_distributed else LARGE) is Verdict.SUPPORTED, (
            found.because
        )
    criterion = discriminating_features(study, rng=rng())
    assert criterion.p_value < 0.05
    assert criterion.estimate.value == pytest.approx(1.0)
    assert criterion.data["search"]["resilient"] >= 5
    assert "Look at" in criterion.action


def test_noise_is_not_supported_in_any_finding():
    study = study_of(planted(dose=0.0))
    for finding in FINDINGS:
        threshold = ABOVE_ZERO if finding is more_distributed else LARGE
        assert verdict_of(finding(study, rng=rng()), threshold) is not Verdict.SUPPORTED
    found = discriminating_features(study, rng=rng())  # ten features of small groups are not all shown to be small
    assert found.verdict is Verdict.UNDERPOWERED
    assert without_a_family(study, rng=rng()).verdict is Verdict.NOT_APPLICABLE


def test_the_opposite_sign_is_no_support_and_refutes_the_prediction():
    study = study_of(planted(dose=-6.0))
    assert verdict_of(discriminating_features(study, rng=rng())) is not Verdict.SUPPORTED
    assert verdict_of(along_all_languages(study, rng=rng())) is not Verdict.SUPPORTED
    prediction = more_distributed(study, rng=rng())
    assert prediction.estimate.value < -0.9
    assert verdict_of(prediction, ABOVE_ZERO) is Verdict.NOT_SUPPORTED
    assert "0 of 10 features" in prediction.because


def test_resource_level_hides_an_effect_in_the_groups_and_not_beyond_it():
    study = study_of(planted(dose=3.0, level=40.0))
    assert verdict_of(discriminating_features(study, rng=rng())) is not Verdict.SUPPORTED
    assert verdict_of(beyond_resource_level(study, rng=rng())) is Verdict.SUPPORTED
    follows = study_of(SIGNS * (40.0 * LEVEL[:, None] + np.zeros((N, 10))))
    assert beyond_resource_level(follows, rng=rng()).verdict is Verdict.NOT_APPLICABLE  # nothing is left of any feature


def test_another_verdict_on_another_metric_makes_the_result_sensitive():
    turned = groups_of(residuals(seed=50), metric="kl")  # other languages are resilient by KL
    found = discriminating_features(study_of(planted(), others={"kl": turned}), rng=rng())
    assert found.sensitive
    assert judge(found, LARGE, hypothesis="H-038", test="t", role="criterion").metric_sensitive
    alike = discriminating_features(study_of(planted()), rng=rng())
    assert alike.sensitive is False  # and not left to the numbers alone, which are no verdict
    assert set(alike.also) == {"relative_increase", "kl"}


def test_a_metric_without_groups_is_said_to_have_none():
    none = Refusal(verdict=Verdict.UNDERPOWERED, lacking="3 languages, needed 10", because="3 languages, needed 10.")
    found = discriminating_features(study_of(planted(), others={"kl": none}), rng=rng())
    assert found.also["kl"].value is None
    assert found.also["kl"].reason == "3 languages, needed 10"
    assert found.data["groups"]["kl"] == {"none": "3 languages, needed 10."}


def test_a_refusal_is_the_verdict_and_the_sentence_of_every_finding():
    refusal = Refusal(verdict=Verdict.NOT_APPLICABLE, lacking="equal exposure", because="equal exposure, so none.")
    study = study_of(
        planted(), others=dict.fromkeys(("excess_bits", "relative_increase", "kl"), refusal), exposure_only=refusal
    )
    for finding in FINDINGS:
        found = finding(study, rng=rng())
        assert found.verdict is Verdict.NOT_APPLICABLE
        assert found.estimate.value is None
        assert found.because.startswith("equal exposure")


def test_the_least_effect_is_that_without_the_family_that_carries_most_of_it():
    study = study_of(planted(dose=2.0))
    found = without_a_family(study, rng=rng())
    values = study.features.values[found.data["feature"]]
    groups = study.groups.primary
    sign = np.sign(discriminating_features(study, rng=rng()).data["search"]["features"][0]["delta"]["value"])

    def without(family):
        kept = [
            [values[t] for t in side if describe(t).family != family] for side in (groups.resilient, groups.vulnerable)
        ]
        return sign * np.mean([np.sign(a - b) for a in kept[0] for b in kept[1]])

    by_hand = {family: without(family) for family in {describe(t).family for t in groups.resilient + groups.vulnerable}}
    assert found.data["without"] == pytest.approx(by_hand)
    assert found.estimate.value == pytest.approx(min(by_hand.values()))


def test_a_family_without_which_no_group_is_left_makes_the_answer_underpowered():
    # Five of the six resilient languages of this draw are Indo-European: one would be left to compare.
    residual = residuals(seed=22)
    columns = SIGNS * (rng(3).normal(size=(N, 10)) - 6 * residual[:, None])
    found = without_a_family(study_of(columns, residual=residual), rng=rng())
    assert found.verdict is Verdict.UNDERPOWERED
    assert "without Indo-European fewer than two languages are left" in found.because


def test_the_correlation_over_all_languages_is_the_partial_one_with_its_sign_read_against_the_prediction():
    study = study_of(planted(dose=1.0))
    found = along_all_languages(study, rng=rng())
    best = found.data["features"][0]
    name = found.summary.split()[0]
    row = next(row for row in found.data["features"] if row["feature"] == name)
    column = list(study.features.values[name].values())
    target = DESIGN @ [1.0, 0.5] + residuals()
    theirs = partial_correlation(column, target, {"level": LEVEL}, rng=rng(), resamples=100, permutations=1)
    assert row["partial_r"] == pytest.approx(theirs.estimate.value, abs=1e-9)
    assert found.estimate.value == pytest.approx(abs(theirs.estimate.value), abs=1e-9)
    assert row["partial_r"] * row["expected"] > 0
    assert best["p_value"] <= row["p_value"]
    assert ", as predicted," in found.because


def test_findings_are_plain_json_and_the_same_for_the_same_seed():
    study = study_of(planted(dose=1.0))
    for finding in FINDINGS:
        rows = [
            judge(finding(study, rng=rng(7)), LARGE, hypothesis="H-038", test="t", role="criterion").to_json()
            for _ in range(2)
        ]
        assert rows[0] == rows[1]
