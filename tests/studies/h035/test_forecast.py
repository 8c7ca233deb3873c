"""Forecasts on synthetic families: coverage on new models, what is left out, and what a file may hold."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from evenbits.errors import UsageError
from evenbits.studies.h035.calibration import CalibratedModel, Calibration, load_calibration, one_run_by_function
from evenbits.studies.h035.check import forecasts_hold
from evenbits.studies.h035.diagnosis import diagnose, standings
from evenbits.studies.h035.forecast import best_forecaster, forecaster, worst_quarter
from evenbits.studies.h035.performance import BEST, performances
from evenbits.studies.h035.predictors import METRICS, Predictors
from evenbits.studies.h035.study import PredictionStudy

SPEC = "int4-row"
LANGUAGES = ("ar", "de", "en", "es", "fi", "fr", "hu", "ja", "ko", "ru", "tr", "uk")


def model_of(name, draw, *, run=None, shift=0.5, languages=LANGUAGES):
    """Damage is 10 x token parity times a factor of the model and one of the language; other metrics are noise."""
    parity = np.exp(0.6 * draw.normal(size=len(languages)))
    damage = 10 * parity * np.exp(shift * draw.normal() + 0.2 * draw.normal(size=len(languages)))
    noise = {metric: tuple(np.exp(draw.normal(size=len(languages)))) for metric in METRICS}
    return CalibratedModel(
        text=name,
        fingerprint=f"weights of {name}",
        run=run or name,
        model_type="llama",
        parameters=1000,
        resource_kind="class",
        languages=languages,
        metrics={SPEC: noise | {"token_parity": tuple(parity)}},
        excess_bits={SPEC: tuple(damage)},
    )


def family(draw, runs, **options):
    models = tuple(model_of(f"m{number}", draw, **options) for number in range(runs))
    return Calibration(name="test", corpus={"name": "gettext"}, models=models)


def rng(seed=5):
    return np.random.default_rng(seed)


def test_the_line_is_least_squares_on_logarithm_and_asinh():
    made = family(rng(), 6)
    found = forecaster(made.models, SPEC, "token_parity")
    x = [np.log(m.metrics[SPEC]["token_parity"]) for m in made.models]
    mean = np.concatenate([np.full(len(one), one.mean()) for one in x])
    y = np.arcsinh(np.concatenate([m.excess_bits[SPEC] for m in made.models]))
    design = np.stack([np.ones(len(y)), mean, np.concatenate(x) - mean], axis=1)
    expected = np.linalg.solve(design.T @ design, design.T @ y)  # all runs have as many pairs: their weights are equal
    assert found.line == pytest.approx(expected)
    values = found.forecast(np.array([2.0, 8.0])).value
    steps = expected[0] + expected[1] * np.log(4) + expected[2] * np.log([0.5, 2.0])
    assert values == pytest.approx(np.sinh(steps.clip(y.min(), y.max())))


def test_languages_are_ordered_by_what_tells_languages_apart_not_models():
    """Models with more of a metric lose less, languages with more of it more: one slope would order them wrongly."""
    draw, models = rng(), []
    for number in range(10):
        one = model_of(f"m{number}", draw, shift=0.0)
        parity = np.array(one.metrics[SPEC]["token_parity"])
        shifted = tuple(parity * np.exp(3.0 * number))
        damage = tuple(np.array(one.excess_bits[SPEC]) * np.exp(-0.5 * number))
        models.append(
            replace(one, metrics={SPEC: {**one.metrics[SPEC], "token_parity": shifted}}, excess_bits={SPEC: damage})
        )
    found = forecaster(models, SPEC, "token_parity")
    assert found.line[1] < 0 < found.line[2]
    assert found.recall > 0.7


def test_a_run_counts_once_however_many_checkpoints_it_has():
    draw = rng()
    models = [model_of("a", draw), model_of("b", draw), model_of("c", draw)]
    copies = [replace(models[2], text=f"c-{number}") for number in range(5)]
    once, often = (forecaster(chosen, SPEC, "token_parity") for chosen in (models, models[:2] + copies))
    assert often.line == pytest.approx(once.line)
    assert often.skill == pytest.approx(once.skill)
    values = np.array([0.5, 2.0])
    assert forecaster(models, SPEC, "token_parity").forecast(values, confidence=0.7).high == pytest.approx(
        often.forecast(values, confidence=0.7).high
    )


def test_the_interval_covers_the_languages_of_new_models():
    draw, covered = rng(21), []
    for _ in range(60):
        known = forecaster(family(draw, 12).models, SPEC, "token_parity")
        new = model_of("new", draw)
        forecasts = known.forecast(np.array(new.metrics[SPEC]["token_parity"]))
        damage = np.array(new.excess_bits[SPEC])
        covered.append(float(((damage >= forecasts.low) & (damage <= forecasts.high)).mean()))
    # the model's own factor makes languages miss together, so the spread is that of models: .25 / sqrt(60) = .03
    assert np.mean(covered) >= 0.9 - 2 * 0.03
    assert np.mean(covered) < 0.995  # an interval that covers everything says nothing


def test_no_forecast_leaves_the_range_of_damage_that_is_known():
    """A metric far beyond the calibrated ones once forecast 1e83 bits; its languages keep their order."""
    known = family(rng(), 12)
    most = max(max(model.excess_bits[SPEC]) for model in known.models)
    found = forecaster(known.models, SPEC, "token_parity").forecast(np.array([1e30, 1e40, 1.0]))
    assert found.value[:2] == pytest.approx([most, most])
    assert found.high.max() < 100 * most
    assert found.order[1] > found.order[0] > found.order[2]


def test_fewer_than_nine_runs_have_no_90_percent_interval():
    values = np.array([1.0])
    # 8 runs hold 8/9 = .89 of the mass, 9 hold .9
    assert forecaster(family(rng(), 8).models, SPEC, "token_parity").forecast(values).high is None
    assert forecaster(family(rng(), 9).models, SPEC, "token_parity").forecast(values).high is not None
    assert forecaster(family(rng(), 2).models, SPEC, "token_parity") is None


def test_the_metric_is_chosen_without_the_model_it_is_judged_on():
    made = family(rng(), 10)
    assert best_forecaster(made, SPEC, list(METRICS)).metric == "token_parity"
    # one model in which another metric is perfect: the choice for it must not know that
    first = made.models[0]
    odd = replace(first, metrics={SPEC: {**first.metrics[SPEC], "stream_norm": first.excess_bits[SPEC]}})
    found = performances(replace(made, models=(odd, *made.models[1:])), SPEC)
    assert {row.metric for row in found[BEST].models} == {"token_parity"}
    assert found[BEST].coverage == found["token_parity"].coverage
    assert found[BEST].recall > found["nll_full"].recall


def test_a_metric_that_tells_models_apart_but_not_their_languages_is_not_chosen():
    draw, models = rng(), []
    for number in range(10):
        one = model_of(f"m{number}", draw, shift=2.0)
        size = np.median(one.excess_bits[SPEC])  # the same for all languages but for noise
        sizes = tuple(size * np.exp(0.02 * draw.normal(size=len(LANGUAGES))))
        models.append(replace(one, metrics={SPEC: {**one.metrics[SPEC], "quantization_error": sizes}}))
    made = Calibration(name="test", corpus={}, models=tuple(models))
    sizes, parity = (forecaster(models, SPEC, name) for name in ("quantization_error", "token_parity"))
    assert sizes.skill > parity.skill
    assert sizes.recall < parity.recall
    assert best_forecaster(made, SPEC, list(METRICS)).metric == "token_parity"


def test_standings_name_each_metric_once_and_what_chance_finds():
    found = performances(family(rng(), 10), SPEC)
    assert found[BEST].chance == 3 / 12  # a quarter of twelve languages
    lines = standings(found, "token_parity", intervals=True)
    assert [line.partition(":")[0] for line in lines] == [
        "token parity (chosen)",
        "full-precision NLL",
        "kurtosis overlap",
        "drawn by lot",
    ]
    assert "25% of the worst quarter found" in lines[-1]


def test_coverage_is_that_of_the_widest_interval_the_other_runs_give():
    """Nine runs give a 90 % interval; the eight that are left of them when each is judged give one of 8/9."""
    for runs, level in ((9, 8 / 9), (12, 0.9)):
        found = performances(family(rng(), runs), SPEC)[BEST]
        assert found.level == pytest.approx(level)
        assert found.coverage >= level - 0.1
    nine = performances(family(rng(), 9), SPEC)
    assert "89% interval holds for" in standings(nine, "token_parity", intervals=True)[0]
    assert not any("interval" in line for line in standings(nine, "token_parity", intervals=False))


def test_what_lies_outside_the_calibrated_range_is_not_flagged_and_its_order_not_vouched_for():
    made = family(rng(), 12)
    new = model_of("new", rng(1))
    parity = np.array(new.metrics[SPEC]["token_parity"])
    worst, second = np.argsort(-parity)[:2]
    parity[worst] = 1e3  # far beyond anything calibrated
    predictors = study(replace(new, metrics={SPEC: {**new.metrics[SPEC], "token_parity": tuple(parity)}})).predictors
    local = SimpleNamespace(fingerprint="its own", model_type="llama", parameters=1000)
    found = diagnose(predictors, made, local=local, run="new", corpus="gettext")
    first, then = found.languages[:2]
    assert [first.language, then.language] == [LANGUAGES[worst], LANGUAGES[second]]
    assert (first.outside, first.flag) == (True, None)
    assert then.outside or then.flag in {"vulnerable", "severe"}
    assert any(
        "neither the size of the damage nor the order of languages is validated" in one for one in found.warnings
    )


def test_recall_counts_the_worst_quarter():
    assert worst_quarter(np.array([1.0, 9, 2, 8, 3, 7, 4, 6])) == {1, 3}
    assert worst_quarter(np.array([1.0, 1])) == {0}
    assert len(worst_quarter(np.arange(33.0))) == 8


def test_checkpoints_of_a_run_and_the_same_weights_under_another_name_are_left_out():
    draw = rng()
    made = replace(family(draw, 3), models=(*family(draw, 3).models, model_of("x-s20", draw, run="x")))
    assert made.runs_of(fingerprint="other", run="x") == ("x",)
    assert made.runs_of(fingerprint="weights of m1", run="some/folder") == ("m1",)
    assert made.runs_of(fingerprint="other", run="other") == ()
    assert [model.text for model in made.without("x").models] == ["m0", "m1", "m2"]


def test_a_copy_that_computes_the_same_belongs_to_the_run_of_its_original():
    draw = rng()
    first, second = model_of("a", draw), model_of("b", draw)
    nll = first.metrics[SPEC]["nll_full"]
    copy = replace(second, text="copy", run="copy", metrics={SPEC: {**second.metrics[SPEC], "nll_full": nll}})
    assert [model.run for model in one_run_by_function([first, second, copy])] == ["a", "b", "a"]


def study(model):
    predictors = Predictors(
        model=model.text,
        spec=SPEC,
        languages=model.languages,
        segments=8,
        values={name: np.array(values) for name, values in model.metrics[SPEC].items()},
        missing={},
        permuted=np.empty((0, len(model.languages))),
        columns=np.zeros(len(model.languages)),
        resource_kind="class",
    )
    damage = np.array(model.excess_bits[SPEC])
    return PredictionStudy(
        predictors=predictors, damage=dict.fromkeys(("excess_bits", "relative_increase", "kl"), damage), floor=0.0
    )


def test_a_diagnosis_is_held_against_the_damage_of_the_model_itself():
    made = family(rng(), 12)
    found = forecasts_hold(study(made.models[0]), made.without("m0"))
    expected = next(one for one in performances(made, SPEC)[BEST].models if one.model == "m0")
    assert found.estimate.value == expected.coverage
    assert found.data[BEST]["recall"] == expected.recall
    assert "token parity" in found.summary
    few = forecasts_hold(study(made.models[0]), replace(made, models=made.models[1:6]))
    assert few.verdict == "not_applicable"
    assert "5 other training runs give no 90% interval" in few.because
    known = study(made.models[0])
    unknown = forecasts_hold(replace(known, predictors=replace(known.predictors, spec="nf4-b64")), made)
    assert "knows int4-row, not nf4-b64" in unknown.because


def test_a_calibration_survives_its_file(tmp_path):
    made = family(rng(), 3)
    file = tmp_path / "calibration.json"
    file.write_text(made.dump(), encoding="utf-8")
    read = load_calibration(file)
    assert read.models[1].excess_bits[SPEC] == pytest.approx(made.models[1].excess_bits[SPEC], rel=1e-5)
    assert replace(read, name="test").dump() == made.dump()
    assert read.specs == (SPEC,)


ODD = dict.fromkeys(("text", "fingerprint", "run", "model_type"), "a") | {
    "parameters": 1,
    "languages": ["de"],
    "metrics": {"int4-row": {}},
    "excess_bits": {"int4-row": [None]},
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there, so it is no calibration"),
        ("{", "is not JSON at byte 1 .*, so it is no calibration"),
        ("[]", r"must be an object, not \[\], so it is no calibration"),
        ("{}", "is no calibration of version 1"),
        (json.dumps({"schema_version": 1, "corpus": {}}), "has no models, which must be a list"),
        (json.dumps({"schema_version": 1, "corpus": {}, "models": [ODD]}), "int4-row must be a list of numbers up to"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_with_the_remedy(text, words, tmp_path):
    file = tmp_path / "calibration.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words) as refused:
        load_calibration(file)
    assert "--calibrate" in str(refused.value)
