"""`evenbits rank` as a user types it."""

from __future__ import annotations

import json

import pytest
from evenbits.commands.app import app
from typer.testing import CliRunner

TAGS = ("ca", "de", "en", "fi", "mt", "yo")


pytestmark = pytest.mark.usefixtures("plain_terminal")


@pytest.fixture
def texts(text_folder):
    return text_folder(TAGS, lines=4)


@pytest.fixture
def heavy(tiny_llama, tmp_path):
    """The tiny llama with one weight that is far out."""
    import shutil

    from safetensors.numpy import load_file, save_file

    target = tmp_path / "heavy"
    shutil.copytree(tiny_llama, target)
    tensors = load_file(target / "model.safetensors")
    weight = tensors["model.layers.1.self_attn.q_proj.weight"]
    weight[0, 0] = 60 * weight.std()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def run(*arguments):
    return CliRunner().invoke(app, ["rank", *(str(argument) for argument in arguments)])


def options(texts):
    return ("--spec", "int4-g32", "--corpus", f"dir:{texts}", "--languages", "all", "--dtype", "float32")


def test_measured_models_are_ordered_with_damage_recovery_and_reasons(tiny_llama, heavy, texts):
    result = run(tiny_llama, heavy, *options(texts), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (found["by"], found["spec"], len(found["ranking"])) == ("damage", "int4-g32", 2)
    damage = [row["damage"]["value"] for row in found["ranking"]]
    assert [row["rank"] for row in found["ranking"]] in ([1, 2], [1, 1])
    assert damage == sorted(damage) or found["ranking"][1]["rank"] == 1
    row = next(row for row in found["ranking"] if row["model"] == str(heavy))
    # one weight of 60 standard deviations among 64 x 64: 60^4 / 4,096, less what it adds to the variance
    assert row["largest_kurtosis"] > 500
    assert (row["kurtosis_class"], row["heaviest"]) == ("HEAVY", "model.layers.1.self_attn.q_proj")
    assert any("HEAVY tails" in reason for reason in row["reasons"])
    assert found["worth_of_weights"]["estimate"]["value"] is None  # two models say nothing of others


def test_what_of_the_text_is_left_out_and_what_was_measured_is_said(tiny_llama, text_folder):
    folder = text_folder(TAGS, lines=4)
    of = ("--spec", "int4-g32", "--corpus", f"dir:{folder}", "--languages", "3", "--dtype", "float32")
    result = run(tiny_llama, *of, "--json")
    assert result.exit_code == 0, result.output
    corpus = json.loads(result.stdout)["corpus"]
    assert (corpus["text"], len(corpus["languages"]), corpus["segments"]) == (f"dir:{folder}", 3, 4)
    assert sum(one["count"] for one in corpus["left_out"] if one["what"] == "language") == len(TAGS) - 3
    assert "left out: " in result.stderr
    shown = run(tiny_llama, *of)
    assert "3 languages, 4 segments; 95 % intervals over both" in " ".join(shown.stdout.split())
    assert "left out: " in shown.stderr


def test_one_segment_decides_nothing_and_says_so(tiny_llama, heavy, texts):
    result = run(tiny_llama, heavy, *options(texts), "--segments", "1")
    assert result.exit_code == 0, result.output
    assert "1 segment; models that cannot be told apart share a rank" in " ".join(result.stdout.split())
    assert result.stdout.count("excess bits: no interval: 1 segment, 3 needed") == 2
    assert "recovered % undefined: damage has no interval: 1 segment, 3 needed" in result.stdout


def test_without_measuring_the_weights_decide_and_no_damage_is_shown(tiny_llama, heavy, texts, monkeypatch):
    from evenbits.commands import rank

    monkeypatch.setattr(rank, "_family", list)  # as where the reference models are not installed
    result = run(heavy, tiny_llama, "--no-measure", *options(texts))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    places = [next(n for n, line in enumerate(lines) if str(folder) in line) for folder in (tiny_llama, heavy)]
    assert places == sorted(places)  # the lighter tail first
    assert "nothing was quantized" in result.stdout
    assert "is not known: the reference family is not installed. Use --measure." in " ".join(result.stdout.split())
    assert "excess bits" not in result.stdout


def test_the_table_of_measured_models_has_intervals(tiny_llama, texts):
    result = run(tiny_llama, *options(texts))
    assert result.exit_code == 0, result.output
    assert "recovered %" in result.stdout
    assert "1 measured training runs, needed 8" in result.stdout


def test_what_weights_are_worth_is_known_of_the_family_without_measuring_anything(tiny_llama, monkeypatch):
    from evenbits.cells import Subject

    monkeypatch.setattr(Subject, "measure", lambda *_: pytest.fail("a model was measured"))
    for spec in ("int4-g64", "int3-row"):
        found = run(tiny_llama, "--no-measure", "--spec", spec, "--json")
        assert found.exit_code == 0, found.output
        worth = json.loads(found.stdout)["worth_of_weights"]["estimate"]
        # of these nine the heaviest lose least: what an order by weights would put last
        assert (worth["n"], worth["value"] < -0.5) == (9, True)
    unknown = run(tiny_llama, "--no-measure", "--spec", "int8-row")
    assert "the reference family was measured under int3-row, int4-g64 alone. Use --measure." in " ".join(
        unknown.stdout.split()
    )


@pytest.mark.slow
def test_the_damage_of_the_family_that_is_shipped_is_measured_again(tmp_path):
    from evenbits.studies.h035 import load_calibration

    file = tmp_path / "again.json"
    asked = ("--spec", "int3-row,int4-g64", "--dtype", "float32", "--segments", "32", "-o", str(file))
    made = CliRunner().invoke(app, ["diagnose", "--calibrate", "reference:a1", "reference:eq", *asked])
    assert made.exit_code == 0, made.output
    shipped = {one.text: one for one in load_calibration(None).models}
    for again in load_calibration(file).models:
        for spec, bits in again.excess_bits.items():
            assert bits == pytest.approx(shipped[again.text].excess_bits[spec], abs=0.01)


@pytest.mark.parametrize(("spec", "words"), [("none", "one quantization"), ("int4-g64,int3-row", "one quantization")])
def test_one_quantization_is_ranked_at_a_time(spec, words, tiny_llama):
    result = run(tiny_llama, "--spec", spec)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
