"""`evenbits protect` as a user types it."""

from __future__ import annotations

import json

import pytest
from evenbits.commands.app import app
from evenbits.variants.quantization.spec import parse_spec
from typer.testing import CliRunner

TAGS = ("ca", "de", "en", "fi", "mt", "yo")


pytestmark = pytest.mark.usefixtures("plain_terminal")


@pytest.fixture
def texts(text_folder):
    return text_folder(TAGS, lines=8)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_protect_as_json_measures_plans_and_comparators_and_gives_a_spec(tiny_llama, texts):
    result = run(
        "protect",
        tiny_llama,
        "--spec",
        "int4-g32",
        "--budget",
        "3bpw",
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "all",
        "--dtype",
        "float32",
        "--json",
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    names = [row["name"] for row in found["plans"]]
    assert {"none", "plan:worst", "plan:mean", "uniform", "first+last", "highest kurtosis", "random 1"} <= set(names)
    assert all(row["extra_bits_per_weight"] <= 3 for row in found["plans"] if row["within_budget"])
    assert str(parse_spec(found["recipe"]["spec"])) == found["recipe"]["spec"]
    # three layers, each 11.5 / 3 = 3.8 bits per weight; attention is a third of a layer, so two of it cost 2.6
    assert found["layer_language"]["layers"][:2] == ["0.attention", "0.mlp"]
    assert "third" in found["depth"]["sentence"]


def test_protect_prints_a_table_and_the_recipe(tiny_llama, texts):
    result = run(
        "protect",
        tiny_llama,
        "--spec",
        "int4-g32",
        "--budget",
        "8",
        "--unit",
        "layer",
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "all",
        "--dtype",
        "float32",
    )
    assert result.exit_code == 0, result.output
    assert "plan:worst" in result.stdout
    assert "recipe  int" in result.stdout
    assert "chosen on 4 segments, measured on the other 4" in result.stderr


@pytest.mark.parametrize("columns", ["80", "200"])
def test_every_protection_is_named_with_what_it_protects_on_any_terminal(columns, tiny_llama, texts, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    result = run(
        "protect",
        tiny_llama,
        "--spec",
        "int4-g32",
        "--budget",
        "8",
        "--unit",
        "layer",
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "all",
        "--dtype",
        "float32",
    )
    table, _, below = result.stdout.partition("excess bits per segment with")
    named = " ".join(table.split())  # comparators that protect the same share a row, under both names
    for name in ("none", "plan:worst", "uniform", "first+last", "highest kurtosis", "random 1"):
        assert name in named, name
    assert any("first+last" in line and line.split()[-2:] == ["0", "2"] for line in below.splitlines())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--budget", "much"), ("--budget 'much'", "0.25bpw")),
        (("--budget", "-1"), ("above 0 and below 16",)),
        (("--budget", "0.001"), ("buys nothing", "smallest matrix")),
        (("--budget", "1", "--unit", "head"), ("--unit head", "auto")),
        (("--budget", "1", "--spec", "none"), ("nothing is quantized",)),
    ],
)
def test_protect_refuses_in_a_sentence(changes, words, tiny_llama, texts):
    spec = () if "--spec" in changes else ("--spec", "int4-g32")
    result = run("protect", tiny_llama, *spec, "--corpus", f"dir:{texts}", "--languages", "all", *changes)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip().startswith("evenbits: ")
    assert "Traceback" not in result.output
    assert all(word in result.stderr for word in words)
