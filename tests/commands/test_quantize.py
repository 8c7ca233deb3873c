"""`evenbits quantize` as a user types it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from evenbits.cells import Subject
from evenbits.commands.app import app
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.scoring import score
from evenbits.store import Store
from evenbits.text import load_corpus, sample, split
from evenbits.variants.export import load_quantized, read_manifest
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.rounding import rounded
from typer.testing import CliRunner

TAGS = ("ca", "de", "en", "fi", "mt", "yo")


pytestmark = pytest.mark.usefixtures("plain_terminal")


@pytest.fixture
def texts(text_folder):
    return text_folder(TAGS, lines=8)


def run(*arguments):
    return CliRunner().invoke(app, ["quantize", *(str(argument) for argument in arguments)])


def test_quantize_writes_a_model_and_says_what_it_costs(tiny_llama, tmp_path):
    out = tmp_path / "out"
    result = run(tiny_llama, "--spec", "int4-g32+keep1%:magnitude", "-o", out)
    assert result.exit_code == 0, result.output
    assert f"wrote {out}: int4-g32+keep1%:magnitude, " in result.stdout
    assert "weights kept in FP16" in result.stdout
    assert {"config.json", "evenbits.json", "quantized.safetensors", "tokenizer.json"} <= {
        f.name for f in out.iterdir()
    }
    assert read_manifest(out)["base_model"] == str(tiny_llama)


def test_a_spec_with_statistics_gives_the_model_that_was_measured(tiny_llama, texts, tmp_path):
    out, spec = tmp_path / "out", "int3-row+keep1%:activation[mt,yo]+clip:mse[mt,yo]"
    result = run(
        tiny_llama,
        "--spec",
        spec,
        "-o",
        out,
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "all",
        "--segments",
        "3",
        "--json",
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["spec"] == spec
    assert "3 probe segments in 6 languages" in result.stderr
    # as an eval with --segments 3 measures it
    store = Store(tmp_path / "other")
    probe, text = split(load_corpus(f"dir:{texts}", languages="all", seed=0, store=store), seed=0)
    local = resolve(parse_model(str(tiny_llama)), store=store)
    model = Subject(local=local, store=store, probe=sample(probe, 3, seed=0))
    expected = model.losses(rounded(parse_spec(spec), model), text)["yo"].nll
    loaded = load_quantized(out, dtype=torch.bfloat16)
    assert np.array_equal(score(loaded, "yo", text.segment_ids, text.texts["yo"])[0].nll, expected)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("int4-g48", ("48", "inputs")),
        ("int9-row", ("int9-row", "bits must be 2 to 8")),
        ("none", ("name a quantized spec",)),
        ("int4-row,int3-row", ("one quantization at a time, got int4-row, int3-row",)),
    ],
)
def test_quantize_refuses_in_a_sentence_and_writes_nothing(spec, words, tiny_llama, tmp_path):
    result = run(tiny_llama, "--spec", spec, "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert result.stderr.strip().startswith("evenbits: ")
    assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--stream-layers", "--runner=ray", "--ray-address=auto"])
def test_quantize_has_no_options_that_it_would_not_heed(option, tiny_llama, tmp_path):
    """It loads the model into this process and rounds it there."""
    result = run(tiny_llama, "--spec", "int4-g32", option, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert f"No such option: {option.partition('=')[0]}" in result.output
    assert not (tmp_path / "out").exists()


def test_quantize_overwrites_nothing(tiny_llama, tmp_path):
    result = run(tiny_llama, "--spec", "int4-row", "-o", tmp_path)
    assert result.exit_code == 2
    assert "exists" in result.stderr


@pytest.fixture
def trained(tiny_llama, tmp_path):
    """The tiny llama with an `exposure.json` beside its weights: trained on German, Finnish and Irish."""
    target = tmp_path / "trained"
    shutil.copytree(tiny_llama, target)
    (target / "exposure.json").write_text('{"de": 400, "fi": 300, "ga": 200, "yo": 0}', encoding="utf-8")
    return target


@pytest.mark.parametrize("command", ["quantize", "damage", "protect", "rank"])
def test_the_default_languages_are_those_the_model_was_trained_on(command, trained, texts, tmp_path):
    arguments = {
        "quantize": [trained, "--spec", "int3-row+keep1%:activation", "-o", tmp_path / "out"],
        "damage": [trained, "--spec", "int3-row", "--dtype", "float32", "--json"],
        "protect": [trained, "--spec", "int3-row", "--budget", "6", "--unit", "layer", "--dtype", "float32", "--json"],
        "rank": [trained, trained, "--spec", "int3-row", "--dtype", "float32", "--json"],
    }[command]
    result = CliRunner().invoke(app, [command, *map(str, arguments), "--corpus", f"dir:{texts}"])
    assert result.exit_code == 0, result.output
    if command == "quantize":
        assert "probe segments in 2 languages" in result.stderr
    elif command == "damage":
        # the folder is the choice there; of message catalogues it would be what the model was trained on
        assert [row["language"] for row in json.loads(result.stdout)["damage"]] == list(TAGS)
    elif command == "protect":
        assert json.loads(result.stdout)["layer_language"]["languages"] == ["de", "fi"]
    else:
        assert {row["damage"]["n"] for row in json.loads(result.stdout)["ranking"]} == {2}
