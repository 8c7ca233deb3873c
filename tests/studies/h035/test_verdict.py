"""Findings of H-035 on synthetic studies: a planted correlation is found, an absent one is not, some get no number."""

from __future__ import annotations

import numpy as np
import pytest
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.statistics import binomial_band
from evenbits.studies.h035.comparators import comparator_table
from evenbits.studies.h035.predictors import METRICS, Predictors
from evenbits.studies.h035.study import PredictionStudy
from evenbits.studies.h035.verdict import (
    NAME,
    _against,
    _verdict,
    adds_held_out,
    beyond_what_is_known,
    overlap_predicts,
    own_layers,
)
from reference_languages import LANGUAGES

ABOVE_HALF = Threshold(metric="r", op=">", bound=0.5, why="test")
ABOVE_ZERO = Threshold(metric="r", op=">", bound=0.0, why="test")


def rng(seed=3):
    return np.random.default_rng(seed)


def study_of(overlap, damage, *, draw=None, languages=LANGUAGES, floor=0.0, relative=None, permuted=None, **metrics):
    """A study in which every metric but those given is noise."""
    draw = draw or rng()
    n = len(languages)
    values = {name: np.exp(draw.normal(size=n)) for name in METRICS} | {NAME: overlap} | metrics
    missing = {name: "not known here" for name, found in values.items() if found is None}
    return PredictionStudy(
        predictors=Predictors(
            model="synthetic",
            spec="int4-row",
            languages=tuple(languages),
            segments=8,
            values={name: found for name, found in values.items() if found is not None},
            missing=missing,
            permuted=draw.normal(size=(20, n)) if permuted is None else permuted,
            columns=draw.normal(size=n),
        ),
        damage={"excess_bits": damage, "relative_increase": damage if relative is None else relative, "kl": damage},
        floor=floor,
    )


def planted(draw, noise=0.5, n=33):
    overlap = draw.normal(size=n)
    return overlap, 20 + overlap + noise * draw.normal(size=n)


def verdict_of(finding, threshold=ABOVE_HALF):
    return judge(finding, threshold, hypothesis="H-035", test="t", role="criterion").verdict


def test_a_planted_correlation_is_supported_with_power_and_comparators_beside_it():
    found = overlap_predicts(study_of(*planted(rng())), rng=rng())
    assert verdict_of(found) is Verdict.SUPPORTED
    assert found.p_value < 0.01
    # signal variance 1, noise variance 1/4: r = 1 / sqrt(1.25) = .89
    assert found.estimate.value == pytest.approx(0.89, abs=0.08)
    assert found.estimate.low < found.estimate.value < found.estimate.high
    # at a true r of .5 the sample's is above .5 about half of the time, and then nearly always significant; the test
    # alone, without strata, would find it in 92 %
    assert found.data["power"]["0.5"] == pytest.approx(0.5, abs=0.1)
    assert found.data["power"]["0.5"] < found.data["power"]["0.6"] < found.data["power"]["0.7"]
    assert "Leaving one family out gives r" in found.because
    assert found.action.startswith("Rank languages before quantizing")
    rows = {row["metric"]: row for row in found.data["comparators"]}
    assert rows[NAME]["r"]["value"] == found.estimate.value
    assert rows[NAME]["r2_language_out"]["value"] > 0.5 > rows["token_parity"]["r2_language_out"]["value"]
    assert rows["kurtosis_permuted"]["r"]["low"] < 0 < rows["kurtosis_permuted"]["r"]["high"]
    assert {"spearman", "energy_weighted_kurtosis", "relative_increase", "kl"} <= set(found.also)


def test_no_metric_is_advised_whose_correlation_is_not_shown_over_all_of_them():
    draw = rng(7)
    for _ in range(10):  # unrelated: at worst the best of eleven looks well on the languages at hand
        overlap, damage = planted(draw)
        found = overlap_predicts(study_of(draw.permutation(overlap), draw.permutation(damage), draw=draw), rng=rng())
        best = max(
            row["r2_language_out"]["value"] for row in found.data["comparators"] if row["metric"] != "kurtosis_permuted"
        )
        start = "No metric known before" if best <= 0 else "Not shown yet, a first look: "
        assert found.action.startswith(start)


def test_where_the_value_alone_exceeds_the_threshold_the_finding_says_so():
    said = "that it is above 0.5 is its value alone"
    weak = overlap_predicts(study_of(*planted(rng(1), noise=1.2)), rng=rng())  # r = .64: its interval holds .5
    assert weak.estimate.low < 0.5 < weak.estimate.value
    assert said in weak.because
    sure = overlap_predicts(study_of(*planted(rng(), noise=0.2)), rng=rng())
    assert sure.estimate.low > 0.5
    assert said not in sure.because


def test_a_correlation_is_refuted_by_its_upper_limit_and_not_by_its_p():
    draw = rng()
    overlap, damage = planted(draw)
    absent = overlap_predicts(study_of(draw.permutation(overlap), damage), rng=rng())
    assert absent.p_value > 0.05
    refuted = absent.estimate.high < 0.5
    assert verdict_of(absent) is (Verdict.NOT_SUPPORTED if refuted else Verdict.UNDERPOWERED)
    weak = overlap_predicts(study_of(*planted(rng(3), noise=2.0)), rng=rng())  # r = 1 / sqrt(5) = .45
    assert weak.estimate.low < 0.5 < weak.estimate.high
    assert verdict_of(weak) is not Verdict.NOT_SUPPORTED
    turned = overlap_predicts(study_of(-overlap, damage), rng=rng())
    assert verdict_of(turned) is Verdict.NOT_SUPPORTED
    assert turned.estimate.value < -0.8


def test_false_positives_stay_within_the_band_of_the_nominal_level():
    draw, found = rng(11), 0
    for _ in range(200):
        study = study_of(draw.normal(size=33), 20 + draw.normal(size=33), draw=draw)
        outcome = _against(study, study.predictors.values[NAME], "excess_bits", draw)
        verdict, shown, _ = _verdict(outcome, 33)
        found += verdict is None and shown and outcome.estimate.value > 0.5
    # the criterion asks for r > .5 beside p < .05, so it rejects more seldom than the test alone
    assert found <= binomial_band(200, 0.05)[1]


def test_a_damage_that_depends_on_the_metric_is_marked():
    overlap, damage = planted(rng())
    found = overlap_predicts(study_of(overlap, damage, relative=-overlap), rng=rng())
    assert judge(found, ABOVE_HALF, hypothesis="H-035", test="t", role="criterion").metric_sensitive


INDO_EUROPEAN = ("be", "bg", "da", "de", "en", "es", "fr", "ga", "pl", "ro", "ru", "sv")


@pytest.mark.parametrize("finding", [overlap_predicts, beyond_what_is_known, adds_held_out, own_layers])
@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"languages": LANGUAGES[:9]}, Verdict.UNDERPOWERED, "9 languages, needed 10"),
        ({"languages": INDO_EUROPEAN}, Verdict.UNDERPOWERED, "one family, Indo-European"),
        ({"overlap": "same"}, Verdict.NOT_APPLICABLE, "the same in every language"),
        ({"damage": "same"}, Verdict.NOT_APPLICABLE, "every language loses the same"),
        ({"floor": 100.0}, Verdict.NOT_APPLICABLE, "three noise floors"),
    ],
    ids=["few", "one family", "constant predictor", "identical models", "below the floor"],
)
def test_where_nothing_can_be_said_there_is_a_sentence_and_no_number(finding, changes, verdict, words):
    languages = changes.get("languages", LANGUAGES)
    overlap, damage = planted(rng(), n=len(languages))
    overlap = np.full(len(languages), 0.2) if changes.get("overlap") else overlap
    damage = np.zeros(len(languages)) if changes.get("damage") else damage
    study = study_of(overlap, damage, languages=languages, floor=changes.get("floor", 0.0))
    found = finding(study, rng=rng())
    assert found.estimate.value is None
    assert found.verdict is verdict
    assert words in found.estimate.reason
    assert found.because.endswith(".")


@pytest.mark.parametrize("finding", [overlap_predicts, beyond_what_is_known, adds_held_out, own_layers])
def test_ten_to_twenty_nine_languages_give_a_number_and_no_verdict(finding):
    languages = LANGUAGES[:20]
    found = finding(study_of(*planted(rng(), n=20), languages=languages), rng=rng())
    assert found.estimate.value is not None
    assert found.verdict is Verdict.UNDERPOWERED
    assert "20 languages, needed 30" in found.because


def test_overlap_that_only_follows_token_parity_is_nothing_beyond_it():
    draw = rng()
    parity = np.exp(draw.normal(size=33))
    study = study_of(
        parity + 0.3 * draw.normal(size=33), 20 + 2 * parity + 0.3 * draw.normal(size=33), token_parity=parity
    )
    assert verdict_of(overlap_predicts(study, rng=rng())) is Verdict.SUPPORTED
    assert verdict_of(beyond_what_is_known(study, rng=rng()), ABOVE_ZERO) is not Verdict.SUPPORTED
    assert verdict_of(adds_held_out(study, rng=rng()), ABOVE_ZERO) is not Verdict.SUPPORTED


def test_overlap_of_its_own_holds_beyond_the_comparators():
    study = study_of(*planted(rng()))
    assert verdict_of(beyond_what_is_known(study, rng=rng()), ABOVE_ZERO) is Verdict.SUPPORTED
    added = adds_held_out(study, rng=rng())
    assert verdict_of(added, ABOVE_ZERO) is Verdict.SUPPORTED
    assert {"family_left_out", "beyond_first_order_too", "kl"} <= set(added.also)


def test_metrics_that_are_missing_or_constant_are_named_and_not_held_constant():
    found = beyond_what_is_known(study_of(*planted(rng()), resource=None, nll_full=np.full(33, 9.0)), rng=rng())
    assert found.data["given"] == ["token_parity"]
    assert "full-precision NLL, resource level" in found.because
    row = comparator_table(study_of(*planted(rng()), resource=None), rng=rng())[list(METRICS).index("resource")]
    assert row["r"]["reason"] == "not known here"


def test_any_layers_kurtosis_that_does_as_well_is_no_support_for_the_layers_own():
    overlap, damage = planted(rng())
    copies = overlap + 0.01 * rng(7).normal(size=(20, 33))
    as_good = own_layers(study_of(overlap, damage, permuted=copies), rng=rng())
    assert verdict_of(as_good, ABOVE_ZERO) is Verdict.UNDERPOWERED
    worse = own_layers(study_of(-overlap, damage, permuted=copies), rng=rng())
    assert verdict_of(worse, ABOVE_ZERO) is Verdict.NOT_SUPPORTED
    own = own_layers(study_of(overlap, damage), rng=rng())
    assert verdict_of(own, ABOVE_ZERO) is Verdict.SUPPORTED
    assert own.p_value == pytest.approx(1 / 21)  # none of 20 orders reaches it
    alone = own_layers(study_of(overlap, damage, permuted=np.empty((0, 33))), rng=rng())
    assert alone.verdict is Verdict.NOT_APPLICABLE
