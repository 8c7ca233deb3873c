"""Segments until decided: which languages get more, in what order, and that no look is dearer than its share."""

import datetime as dt

import numpy as np
import pytest
from evenbits.cells.damage import Column, Damage
from evenbits.errors import UsageError
from evenbits.estimates import Estimate, Finding, Verdict
from evenbits.records import Losses
from evenbits.statistics import FEWEST_FOR_PASS, binomial_band
from evenbits.studies.gate.decision import Outcome, decide_language
from evenbits.studies.gate.policy import Policy
from evenbits.studies.sequential import Until, measured_until_decided, planned_looks

LN2 = np.log(2)
LIMIT = 10.0
POLICY = Policy.parse({"metric": {"excess_bits": {"limit": LIMIT}}})
MOST = 60
PLANNED = planned_looks(MOST, 200, by="means")


class Text:
    """Languages with a mean damage each; notes what was measured."""

    def __init__(self, means, *, seed=0, spread=3.0):
        draw = np.random.default_rng(seed)
        self.bits = {tag: mean + spread * draw.standard_normal(200) for tag, mean in means.items()}
        self.asked = []

    def measure(self, languages, places):
        self.asked.append((tuple(languages), tuple(places)))
        ids = tuple(f"s{place}" for place in places)
        count = np.full(len(places), 50, dtype=np.int64)

        def losses(tag, bits):
            return Losses(language=tag, segment_ids=ids, nll=bits * LN2, tokens=count, utf8_bytes=count)

        full = np.full(len(places), 200.0)
        column = Column(
            spec="int4-row",
            dtype="float32",
            bits_per_weight=4.25,
            floor_bits=Estimate(value=0.01, n=8, method="given"),
            full={tag: losses(tag, full) for tag in languages},
            quantized={tag: losses(tag, full + self.bits[tag][list(places)]) for tag in languages},
        )
        return Damage(
            model="m",
            fingerprint="f",
            corpus_digest="c",
            languages=tuple(languages),
            segment_ids=ids,
            columns={"int4-row": column},
        )


def outcome(tag, row):
    (found,) = decide_language(POLICY, row, language=tag, model="m", spec="int4-row", today=dt.date(2026, 1, 1))
    return found.outcome


def undecided(rows):
    return [tag for tag, row in rows.items() if outcome(tag, row) is Outcome.INCONCLUSIVE]


def run(text, seed=0):
    return measured_until_decided(
        list(text.bits), PLANNED, available=200, measure=text.measure, undecided=undecided, seed=seed
    )


def test_clear_languages_end_with_the_first_look_and_only_the_others_get_more():
    text = Text({"de": 1.0, "sw": 40.0, "yo": 10.0}, spread=1.0)
    rows = run(text)
    assert {tag: outcome(tag, row) for tag, row in rows.items()}["de"] is Outcome.PASS
    assert outcome("sw", rows["sw"]) is Outcome.FAIL
    assert [rows[tag]["segments"] for tag in ("de", "sw", "yo")] == [PLANNED.sizes[0], PLANNED.sizes[0], MOST]
    assert text.asked[0][0] == ("de", "sw", "yo")
    assert {languages for languages, _ in text.asked[1:]} == {("yo",)}


def test_no_segment_is_measured_twice_and_the_order_is_drawn_from_the_seed():
    text, other = Text({"yo": 10.0}), Text({"yo": 10.0})
    run(text)
    run(other, seed=1)
    places = [place for _, some in text.asked for place in some]
    assert len(set(places)) == len(places) == MOST
    assert places != sorted(places)
    assert places != [place for _, some in other.asked for place in some]


def test_the_row_of_a_look_says_how_sure_its_interval_is():
    row = run(Text({"de": 1.0}, spread=1.0))["de"]
    assert f"{100 * PLANNED.confidence[0]:.6g}% interval" in row["excess_bits"]["method"]


def test_a_language_at_its_limit_passes_or_fails_no_more_often_than_by_one_look():
    found = []
    for seed in range(60):
        text = Text({"yo": LIMIT}, seed=seed, spread=8.0)
        found.append(outcome("yo", run(text, seed)["yo"]))
    for side in (Outcome.PASS, Outcome.FAIL):
        assert found.count(side) <= binomial_band(60, 0.025, confidence=0.999)[1]


def test_the_first_look_is_at_a_fifth_of_the_text_and_at_no_fewer_than_a_pass_needs():
    assert [planned_looks(most, 500, by="means").sizes[0] for most in (10, 49, 60, 500)] == [10, 10, 12, 100]
    assert planned_looks(None, 500, by="means").confidence[0] < 1


def test_too_little_text_to_begin_with_is_a_usage_error():
    with pytest.raises(UsageError, match=f"starts with {FEWEST_FOR_PASS} segments, and there are only 4"):
        planned_looks(None, 4, by="means")
    assert planned_looks(30, 200, by="means").sizes[-1] == 30


VALUE = Estimate(value=1.0, low=0.0, high=2.0, n=10, method="given")


@pytest.mark.parametrize(
    ("finding", "looks"),
    [
        (Finding(estimate=VALUE, shown=True), 1),
        (Finding(estimate=VALUE, shown=False), len(PLANNED.sizes)),
        (Finding(estimate=VALUE, verdict=Verdict.NOT_SUPPORTED, because="so it is", shown=False), 1),
        (Finding(estimate=VALUE, verdict=Verdict.UNDERPOWERED, because="so it is"), len(PLANNED.sizes)),
        (Finding(estimate=Estimate.undefined("2 languages"), verdict=Verdict.UNDERPOWERED, because="so it is"), 1),
        (
            Finding(estimate=VALUE, verdict=Verdict.NOT_APPLICABLE, because="so it is"),
            1,
        ),  # parity is shown where nothing is kept
        (
            Finding(estimate=VALUE, verdict=Verdict.NOT_APPLICABLE, because="so it is", shown=False),
            len(PLANNED.sizes),
        ),  # undefined so far
    ],
)
def test_a_study_gets_segments_until_its_criterion_is_settled(finding, looks):
    text = Text({"de": 1.0, "sw": 40.0})
    until = Until(planned=PLANNED, seed=0, decide=lambda _: finding)
    damage, places, confidence = until.study(
        200, lambda places: text.measure(("de", "sw"), places), lambda *study: study
    )
    assert len(text.asked) == looks
    assert damage.segment_ids == tuple(f"s{place}" for place in places)
    assert damage.languages == ("de", "sw")
    assert (len(places), confidence) == (PLANNED.sizes[looks - 1], PLANNED.confidence[looks - 1])
    assert all(languages == ("de", "sw") for languages, _ in text.asked)
