"""Effects of exposure planted in damage tables by hand must come back; without one there is none."""

from dataclasses import replace

import numpy as np
import pytest
from evenbits.estimates import Estimate, Threshold, Verdict, judge
from evenbits.studies.exposure import SPECS, exposure_effect, exposure_findings
from evenbits.studies.exposure.effect import ExposedModel
from exposed_tables import LANGUAGES, SPEC, TURNED, of_language, tables

LOSES_MORE = Threshold(metric="low_minus_high_bits", op=">", bound=0.0, why="the sign of the claim")


def models(low_adds, **unable):
    """Both models, measured under every spec alike but for those that are `unable`."""
    found = {}
    for name, table in tables(low_adds).items():
        columns = {spec: replace(table.columns[SPEC], spec=spec) for spec in SPECS if spec not in unable}
        found[name] = ExposedModel(table=replace(table, columns=columns), tier=TURNED[name], unable=unable)
    return found


def verdict(finding):
    return judge(finding, LOSES_MORE, hypothesis="X-1", test="t", role="criterion").verdict


@pytest.mark.parametrize("adds", [-3.0, 0.0, 5.0])
def test_the_effect_of_exposure_is_found_whatever_the_languages_are_like(adds):
    found = exposure_effect(tables(adds), SPEC, TURNED, rng=np.random.default_rng(0))
    assert found.excess_bits.value == pytest.approx(adds)
    assert found.excess_bits.n == len(LANGUAGES)
    # bits over 100 bits of full precision are percentage points
    assert found.relative_increase.value == pytest.approx(adds)
    assert found.kl_bits.value == pytest.approx(adds)
    high = np.mean([of_language(at) for at in range(len(LANGUAGES))])
    assert found.excess_ratio.value == pytest.approx((high + adds) / high)


def test_a_language_that_never_changes_its_tier_takes_no_part():
    tiers = {name: tier | {LANGUAGES[0]: "high"} for name, tier in TURNED.items()}
    found = exposure_effect(tables(5.0), SPEC, tiers, rng=np.random.default_rng(0))
    assert found.excess_bits.n == len(LANGUAGES) - 1
    with pytest.raises(ValueError, match="no language is low in one"):
        exposure_effect(tables(5.0), SPEC, {"one": TURNED["one"], "two": TURNED["one"]}, rng=np.random.default_rng(0))


def test_languages_that_are_low_nowhere_and_high_nowhere_need_not_be_measured():
    tiers = {name: tier | {LANGUAGES[0]: "mid"} for name, tier in TURNED.items()} | {"three": {}}
    whole = tables(5.0)
    part = {
        name: table.only([tag for tag, level in tiers[name].items() if level != "mid"]) for name, table in whole.items()
    }
    part["three"] = whole["one"].only([])
    found, expected = (exposure_effect(some, SPEC, tiers, rng=np.random.default_rng(0)) for some in (part, whole))
    assert found == expected
    assert found.excess_bits.n == len(LANGUAGES) - 1


@pytest.mark.parametrize(("adds", "expected"), [(5.0, Verdict.SUPPORTED), (-3.0, Verdict.NOT_SUPPORTED)])
def test_every_spec_has_a_verdict_of_its_own_with_the_ratio_and_the_other_metrics(adds, expected):
    found = exposure_findings(models(adds), seed=0)
    assert list(found) == list(SPECS)
    for finding in found.values():
        assert verdict(finding) is expected
        assert {"low_over_high", "relative_increase", "kl"} == set(finding.also)
        assert finding.estimate.n == len(LANGUAGES)
        assert "10 languages in 2 models" in finding.summary
        assert "Leaving one family out gives" in finding.because


def test_damage_below_three_noise_floors_at_high_exposure_enters_no_ratio():
    high = np.mean([of_language(at) for at in range(len(LANGUAGES))])
    noisy = {
        name: replace(
            one, columns={SPEC: replace(one.columns[SPEC], floor_bits=Estimate(value=high, method="test", n=1))}
        )
        for name, one in tables(5.0).items()
    }
    found = exposure_effect(noisy, SPEC, TURNED, rng=np.random.default_rng(0))
    assert found.excess_ratio.value is None
    assert "is not above its noise floor" in found.excess_ratio.reason
    assert found.excess_bits.value == pytest.approx(5.0)


def test_a_spec_whose_engine_is_not_there_is_not_applicable_and_the_others_are_decided():
    found = exposure_findings(models(5.0, **{"gguf:Q2_K": "libgguf is not installed"}), seed=0)
    assert verdict(found["gguf:Q2_K"]) is Verdict.NOT_APPLICABLE
    assert found["gguf:Q2_K"].because == "libgguf is not installed"
    assert [verdict(found[spec]) for spec in SPECS[:4]] == [Verdict.SUPPORTED] * 4


def test_without_a_language_that_is_low_here_and_high_there_the_question_does_not_arise():
    alone = {"one": models(5.0)["one"]}
    (finding,) = exposure_findings(alone, seed=0).values()
    assert verdict(finding) is Verdict.NOT_APPLICABLE
    assert "no language is low in exposure in one model of this run and high in another" in finding.because
    assert [verdict(one) for one in exposure_findings({}, seed=0).values()] == [Verdict.NOT_APPLICABLE]
