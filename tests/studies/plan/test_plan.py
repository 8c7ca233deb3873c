"""Planning: what a pilot is made of, power that grows with text, and what no text can decide."""

import numpy as np
import pytest
from evenbits.errors import ReportError
from evenbits.studies.plan import out_of_reach, pilot_of, planned
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
