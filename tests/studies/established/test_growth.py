"""E-3 over checkpoints made by hand."""

import math

import numpy as np
import pytest
import weight_records
from evenbits.estimates import Threshold, Verdict, judge
from evenbits.observe.runs import training_run
from evenbits.studies.established import ModelWeights, outliers_grow
from evenbits.studies.established.records import largest_tail

CLAIM = Threshold(metric="growth", op=">=", bound=10.0, why="test")


def checkpoint(name, kurtosis, *, seen=None, beyond=0, otherwise=0.1):
    statistics = weight_records.model({(0, "o_proj"): kurtosis}, {(0, "o_proj"): beyond}, otherwise=otherwise)
    return ModelWeights(model=name, run=training_run(name), statistics=statistics, trained_bytes=seen)


def course(*tails, name="run", last=None):
    names = [f"{name}-s{20 * 4**i:04d}" for i in range(len(tails) - 1)] + [last or name]
    return [
        checkpoint(text, tail, seen=1000 * 4**i, beyond=i)
        for i, (text, tail) in enumerate(zip(names, tails, strict=True))
    ]


def measured(models):
    finding = outliers_grow(models, rng=np.random.default_rng(0))
    return finding, judge(finding, CLAIM, hypothesis="E-3", test="t", role="established")


def runs(*factors):
    return [one for place, factor in enumerate(factors) for one in course(0.5, 1.0, 0.5 * factor, name=f"run{place}")]


def test_tails_that_grow_in_four_runs_are_supported_with_an_interval_over_runs():
    finding, row = measured(runs(80.0, 90.0, 100.0, 85.0))
    assert row.supported, row.explain()
    assert finding.estimate.value == pytest.approx((80.0 * 90.0 * 100.0 * 85.0) ** 0.25)
    assert finding.estimate.n == 4
    assert finding.p_value is None


def test_one_run_has_no_p_and_no_verdict_however_steep_its_course():
    finding, row = measured(course(0.5, 2.0, 6.0, 20.0, 41.0))
    assert row.verdict is Verdict.UNDERPOWERED
    assert finding.estimate.value == pytest.approx(82.0)
    assert finding.p_value is None
    assert "largest kurtosis 0.5 to 41 over 5 checkpoints" in row.explain()
    assert "1 training run with checkpoints, needed 4" in row.explain()
    assert finding.estimate.n == 1
    assert "one training run" in finding.estimate.reason


def test_the_order_of_the_models_on_the_command_line_does_not_matter():
    models = course(0.5, 2.0, 6.0, 20.0, 41.0)
    assert measured(models[::-1])[0].data == measured(models)[0].data


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ((1.8, 2.0, 2.2, 1.9), Verdict.NOT_SUPPORTED),  # the same in all runs, and less than tenfold
        ((2.0, 200.0, 1.0, 80.0), Verdict.UNDERPOWERED),  # tenfold on average, and runs differ too much to say so
    ],
)
def test_growth_is_decided_by_the_interval_over_runs(factors, verdict):
    assert measured(runs(*factors))[1].verdict is verdict


def test_a_peak_on_the_way_is_told():
    _, row = measured(course(0.5, 2.0, 41.0, 20.0, 10.0))
    assert "0.5 to 10 over 5 checkpoints with a peak of 41 at the 3rd" in row.explain()


def test_the_tail_of_a_start_that_is_normal_is_its_standard_error():
    # 10,000 normal weights: sqrt(24 / 10,000) = .049; the kurtosis of a start may be anything around 0
    models = course(-0.02, 0.1, 0.2, 4.9)
    models[0] = checkpoint(models[0].model, -0.02, seen=1000, otherwise=-0.03)
    assert largest_tail(models[0].statistics.tensors) == pytest.approx(math.sqrt(24 / 10_000))
    assert measured(models)[0].estimate.value == pytest.approx(4.9 / math.sqrt(24 / 10_000))


def test_a_single_checkpoint_is_not_applicable_and_says_what_to_name():
    _, row = measured([checkpoint("a", 5.0), checkpoint("b", 6.0)])
    assert row.verdict is Verdict.NOT_APPLICABLE
    assert "several checkpoints of one run" in row.explain()


def test_the_run_with_most_checkpoints_decides_and_others_stand_beside_it():
    finding, row = measured([*course(0.5, 41.0, name="short"), *course(0.5, 2.0, 6.0, 20.0, 41.0, name="long")])
    assert row.summary.startswith("long")
    assert finding.also["growth of short"].value == pytest.approx(82.0)
    assert [one["run"] for one in finding.data["courses"]] == ["short", "long"]


def test_the_course_is_there_to_be_drawn_over_bytes_or_by_number():
    from evenbits.studies.established.figures import growth

    _, row = measured(course(0.5, 2.0, 6.0, 20.0, 41.0))
    case = growth({**row.to_json(), "model": None}, {})
    assert case.data["x"] == [1000, 4000, 16000, 64000, 256000]
    assert case.data["x_name"] == "bytes of training text"
    assert case.data["series"][0]["y"] == [0.5, 2.0, 6.0, 20.0, 41.0]
    unknown = [checkpoint(f"r-s{i}", 1.0 + i) for i in range(4)]
    assert measured(unknown)[0].data["growth"]["x"] == [1.0, 2.0, 3.0, 4.0]


def test_the_interval_is_over_the_tensors():
    finding, _ = measured(course(0.5, 2.0, 6.0, 20.0, 41.0))
    # resamples without the one heavy tensor (chance (13/14)^14 = .35) see nothing grow
    assert finding.estimate.low == pytest.approx(1.0)
    assert finding.estimate.high == pytest.approx(82.0)
