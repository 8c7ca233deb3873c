"""Planning: what a pilot is made of, power that grows with text, and what no text can decide."""

from functools import partial

import numpy as np
import pytest
from evenbits.errors import ReportError
from evenbits.statistics import power
from evenbits.studies.plan import out_of_reach, pilot_of, planned
from evenbits.studies.plan.decisions import decisions
from reference_languages import LANGUAGES

TAGS = LANGUAGES[:31]


def rows(*, tags=TAGS, segments=6, spread=2.0, noise=5.0, seed=0):
    draw = np.random.default_rng(seed)
    hard = draw.standard_normal(segments)
    return [
        {
            "model": "m",
            "spec": "int4-row",
            "language": tag,
            "excess_bits_by_segment": (
                10 + spread * draw.standard_normal() + hard + noise * draw.standard_normal(segments)
            ).tolist(),
        }
        for tag in tags
    ]


def exposure(tags=TAGS):
    """Training bytes that put a third of the languages into each tier."""
    return {tag: (10_000, 100_000, 1_000_000)[place % 3] for place, tag in enumerate(tags)}


def test_a_pilot_is_the_variance_components_of_its_rows():
    pilot = pilot_of(rows(segments=400), exposure=exposure())
    parts = pilot.components
    assert parts.mean == pytest.approx(10.0, abs=1.2)
    assert parts.segment == pytest.approx(1.0, rel=0.3)
    assert parts.residual == pytest.approx(25.0, rel=0.05)
    assert parts.family + parts.language == pytest.approx(4.0, rel=0.7)
    assert min(len(pilot.members("low")), len(pilot.members("high"))) >= 10


def test_power_of_the_gate_grows_with_segments_and_nothing_passes_below_the_minimum():
    pilot = pilot_of(rows(), exposure=exposure())
    found = {one.decision: one for one in planned(pilot, [5, 20, 80], rng=np.random.default_rng(1), draws=12)}
    passes = found["gate: a language passes"]
    assert passes.power[5].value == 0.0
    assert passes.power[20].value <= passes.power[80].value
    assert passes.power[80].value > 0.9
    assert passes.enough in {20, 80}
    regression = found["gate: a regression fails"]
    assert regression.power[5].value <= regression.power[80].value


def test_what_too_few_languages_cannot_decide_is_said_with_what_is_needed():
    few = pilot_of(rows(tags=TAGS[:12]), exposure=exposure(TAGS[:12]))
    found = {one.decision: one for one in planned(few, [10], rng=np.random.default_rng(1), draws=5)}
    assert "12 languages, needed 30" in found["H-035: overlap predicts damage"].lacking
    assert "needed 5 of each" in found["H-039: parity at k < 1 %"].lacking
    assert found["H-035: overlap predicts damage"].power == {}


def test_a_decision_about_tiers_does_not_gain_from_segments_what_languages_lack():
    # languages differ by far more than their segments add: parity of 10 + 10 of them cannot be shown with any text
    pilot = pilot_of(rows(spread=6.0, noise=1.0), exposure=exposure())
    found = planned(pilot, [80], rng=np.random.default_rng(2), draws=8)
    (parity,) = [one for one in found if one.decision.startswith("H-039: parity")]
    assert parity.enough is None
    assert parity.power[80].value < 0.3


def decision(pilot, name):
    return next(one for one in decisions(pilot) if one.name.startswith(name))


def chance(pilot, name, segments, *, draws=12):
    """Power of one decision, which is quicker than all of them."""
    one = decision(pilot, name)
    assert one.lacking is None
    return power(partial(one.decides, segments=segments), rng=np.random.default_rng(3), draws=draws).value


def test_layers_are_told_apart_more_often_with_more_text_up_to_what_a_sweep_takes():
    pilot = pilot_of(rows(noise=5.0), exposure=exposure(), layers=8)
    assert chance(pilot, "H-036", 6) < 0.7 < chance(pilot, "H-036", 24)
    loud = pilot_of(rows(noise=25.0), exposure=exposure(), layers=8)
    assert chance(loud, "H-036", 24) < 0.7
    swept = decision(pilot, "H-036")
    assert [swept.taken(size) for size in (6, 24, 80)] == [6, 24, 24]


def test_layers_that_are_no_different_are_seldom_told_apart(monkeypatch):
    monkeypatch.setattr("evenbits.studies.plan.decisions.TOLD_APART", 0.0)
    assert chance(pilot_of(rows(), exposure=exposure(), layers=8), "H-036", 24, draws=60) <= 0.12


def test_layers_that_nobody_counted_are_not_planned_for():
    assert "no sweep over layers" in decision(pilot_of(rows(), exposure=exposure()), "H-036").lacking


def test_ablation_takes_a_sample_that_no_text_makes_larger():
    quiet, loud = (
        pilot_of(rows(spread=spread, noise=noise), exposure=exposure()) for spread, noise in ((1, 1), (9, 9))
    )
    assert decision(quiet, "H-037").taken(80) == 8
    assert chance(quiet, "H-037", 8) == 1.0
    assert chance(loud, "H-037", 8) < 0.8


def test_features_discriminate_where_there_are_languages_enough_and_they_differ_beyond_the_noise():
    apart = pilot_of(rows(spread=4.0, noise=1.0), exposure=exposure())
    assert chance(apart, "H-038", 20) < 0.7 <= chance(apart.times(4), "H-038", 20)
    assert chance(pilot_of(rows(spread=0.2, noise=9.0), exposure=exposure()), "H-038", 20) < 0.2
    few = decision(pilot_of(rows(tags=TAGS[:12]), exposure=exposure(TAGS[:12])), "H-038")
    assert few.lacking == "4 low- and 4 high-resource languages, needed 6 of each"


def test_sizes_of_which_the_same_text_takes_part_have_one_power_and_the_sentence_says_so():
    pilot = pilot_of(rows(tags=TAGS[:12], spread=9.0, noise=9.0), exposure=exposure(TAGS[:12]))
    found = {one.decision: one for one in planned(pilot, [6, 10, 80], rng=np.random.default_rng(4), draws=12)}
    sparse = found["H-037: sparse by ablation"]
    assert sparse.power[10] is sparse.power[80]
    assert "at 80 segments, of which 8 take part" in sparse.sentence()
    assert "a sample of fixed size" in sparse.sentence()


@pytest.mark.parametrize("broken", [rows()[:2], [{**rows()[0], "excess_bits_by_segment": None}, *rows()[1:]]])
def test_a_pilot_needs_values_by_segment_of_several_languages(broken):
    with pytest.raises(ReportError, match="a pilot needs"):
        pilot_of(broken)


def test_sizes_that_can_decide_nothing_are_told_before_a_run():
    tiers = dict.fromkeys(TAGS[:3], "low") | dict.fromkeys(TAGS[3:9], "high")
    asked = {"gate", "H-035", "H-036", "H-037", "H-039", "E-3"}
    said = list(out_of_reach(asked, languages=TAGS[:12], tiers=tiers, segments=5, runs=1))
    assert len(said) == 6
    assert "gate passes nothing with 5 segments, needed 10" in said
    # two of 2^5 arrangements of signs are .0625, of 2^6 .031
    assert "H-036 has no verdict with 5 segments and 12 languages, needed 6 and 10" in said
    enough = dict.fromkeys(TAGS[:10], "low") | dict.fromkeys(TAGS[10:20], "high")
    assert not list(out_of_reach(asked, languages=TAGS, tiers=enough, segments=40, runs=8))


def test_too_small_a_pilot_is_refused_with_what_it_has():
    rows = [{"language": tag, "excess_bits_by_segment": [1.0]} for tag in ("de", "en", "fi", "sw", "yo")]
    with pytest.raises(ReportError, match="needs 3 languages and 2 segments, got 5 languages and 1 segment"):
        pilot_of(rows)
