"""`evenbits diagnose` as a user types it: calibrating, forecasting, and never quantizing a model for a forecast."""

from __future__ import annotations

import json

import pytest
from evenbits.commands.app import app
from evenbits.studies.h035 import load_calibration
from evenbits.variants.variant import Variant
from typer.testing import CliRunner

TAGS = ("ar", "de", "en", "fi", "ja", "mt", "tr", "yo")
RUNS = 4


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for place, tag in enumerate(TAGS):
        lines = [f"{tag} says the {number}th thing {tag * (1 + place)} inner" for number in range(4)]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tiny_model):
    return [tiny_model("llama", seed=seed) for seed in range(RUNS)]


@pytest.fixture(scope="module")
def common(texts, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return ("--corpus", f"dir:{texts}", "--languages", "all", "--dtype", "float32", "--store", store)


def run(*arguments):
    plain = CliRunner(env={"COLUMNS": "220", "NO_COLOR": "1"})
    return plain.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def calibrated(models, common, tmp_path_factory):
    """The file of a calibration on all tiny models but the last, and what making it printed."""
    file = tmp_path_factory.mktemp("calibration") / "mine.json"
    result = run("diagnose", "--calibrate", *models[:-1], "--spec", "int3-g32", "-o", file, *common)
    assert result.exit_code == 0, result.output
    return file, result


def test_calibrating_measures_metrics_and_damage_on_different_segments(calibrated, models):
    file, result = calibrated
    assert f"wrote {file}: 3 models of 3 training runs, int3-g32" in result.stderr
    assert "mean over runs" in result.stdout
    made = load_calibration(file)
    assert made.corpus["segments"] == {"metrics": 2, "damage": 2}
    assert [model.text for model in made.models] == [str(model) for model in models[:-1]]
    assert all(len(model.excess_bits["int3-g32"]) == len(TAGS) for model in made.models)
    assert {"kurtosis_overlap", "first_order", "token_parity"} <= set(made.models[0].metrics["int3-g32"])


def test_a_forecast_never_quantizes_the_model(calibrated, models, common, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a weight of the model was replaced")

    opened = Variant.open

    def only_full(variant, original):
        assert variant.key == {"spec": "full"}
        return opened(variant, original)

    for name in ("quantized", "patched", "zeroed", "_swapped"):
        monkeypatch.setattr(f"evenbits.variants.quantization.patching.{name}", refuse)
    monkeypatch.setattr("evenbits.variants.quantization.patching.quantized", refuse)
    monkeypatch.setattr("evenbits.variants.variant.Variant.open", only_full)
    result = run("diagnose", models[-1], "--calibration", calibrated[0], *common, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert found["spec"] == "int3-g32"
    assert sorted(row["language"] for row in found["languages"]) == list(TAGS)
    bits = [row["excess_bits"] for row in found["languages"]]
    assert bits == sorted(bits, reverse=True)
    # a quarter of eight languages, but none whose metric no calibrated pair has
    flagged = [not row["extrapolated"] for row in found["languages"][:2]] + [False] * 6
    assert [row["flag"] is not None for row in found["languages"]] == flagged
    assert all(row["reason"] for row in found["languages"])
    # three runs hold 3/4 of the mass: no 90 % interval
    assert {row["low"] for row in found["languages"]} == {None}
    assert any("9 are needed" in sentence for sentence in found["warnings"])
    assert set(found["calibration"]["performance"]) == {"best", "token_parity", "nll_full", "kurtosis_overlap"}


def test_a_model_of_the_calibration_is_left_out_of_it(models, common, tmp_path):
    file = tmp_path / "four.json"
    made = run("diagnose", "--calibrate", *models, "--spec", "int3-g32", "-o", file, *common)
    assert made.exit_code == 0, made.output
    result = run("diagnose", models[1], "--calibration", file, *common, "--json")
    found = json.loads(result.stdout)["calibration"]
    assert str(models[1]) not in found["models"]
    assert len(found["models"]) == 3
    assert len(found["left_out"]) == 1


def test_half_trained_models_take_no_part_in_a_calibration(capsys):
    from evenbits.commands.diagnose import _trained

    assert _trained(["a-s0064", "b", "a", "a-s1024"]) == ["a", "b"]
    assert "left out: a-s0064, a-s1024" in capsys.readouterr().err
    assert _trained(["a-s0064"]) == ["a-s0064"]


def test_a_model_unlike_all_calibrated_ones_is_said_to_be_an_extrapolation(calibrated, tiny_model, common):
    result = run("diagnose", tiny_model("gpt2", hidden=64, layers=3), "--calibration", calibrated[0], *common)
    assert result.exit_code == 0, result.output
    assert "beware: no gpt2 model was calibrated, only llama" in result.stderr
    assert "million parameters, calibrated ones" in result.stderr
    assert "bits and intervals are extrapolated" in result.stderr
    assert "neither the size of the damage nor the order of languages is validated" in result.stderr
    assert "nothing was quantized" in result.stdout
    assert "interval" not in result.stdout  # three runs give none, and no caption speaks of any
    assert "token parity: not known" in result.stdout  # two runs are left of three: nothing can be fitted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("MODEL", "--spec", "int8-row"), ("no damage under int8-row", "int3-g32", "--calibrate")),
        (("MODEL", "OTHER"), ("takes one model",)),
        (("MODEL", "--spec", "int3-g32,int4-g32"), ("one quantization at a time",)),
        (("MODEL", "-o", "x.json"), ("-o belong to --calibrate",)),
        (("MODEL", "--calibrate", "--spec", "int4-g32"), ("name the file with -o",)),
    ],
)
def test_diagnose_refuses_in_a_sentence(arguments, words, models, calibrated, common):
    given = [{"MODEL": models[-1], "OTHER": models[0]}.get(argument, argument) for argument in arguments]
    known = () if "--calibrate" in arguments else ("--calibration", calibrated[0])
    result = run("diagnose", *given, *known, *common)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip().splitlines()[-1].startswith("evenbits: ")
    assert all(word in result.stderr for word in words)


def test_calibrating_needs_a_quantization(models, common, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the checkout's [tool.evenbits] names one
    result = run("diagnose", "--calibrate", *models[:2], "-o", tmp_path / "x.json", *common)
    assert result.exit_code == 2
    assert "name the quantizations with --spec" in result.stderr
