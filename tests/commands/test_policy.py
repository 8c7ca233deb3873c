"""`evenbits policy init` from a damage run, and what `protect` and `damage` say of what is undefined or left out."""

from __future__ import annotations

import json
import shutil
import tomllib

import pytest
from evenbits.commands.app import app
from evenbits.commands.protect import _distinct
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("plain_terminal")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def printed(tiny_llama, text_folder, tmp_path):
    """What `evenbits damage --json` prints, in a file."""
    folder = text_folder(["de", "en", "sw"])
    result = run(
        "damage", tiny_llama, "--spec", "int4-g64", "--corpus", f"dir:{folder}", "--dtype", "float32", "--json"
    )
    assert result.exit_code == 0, result.output
    file = tmp_path / "damage.json"
    file.write_text(result.stdout, encoding="utf-8")
    return file


def test_a_policy_is_drafted_from_a_damage_run(printed):
    result = run("policy", "init", printed)
    assert result.exit_code == 0, result.output
    assert set(tomllib.loads(result.stdout)["metric"]["excess_bits"]["language"]) == {"de", "en", "sw"}
    assert "under int4-g64" in result.stdout


NO_REPORTS = [
    "",
    "[]",
    "5",
    "[" * 100_000,
    '{"damage": [], "corpus": {}, "seed": 0}',
    '{"damage": 3, "corpus": 1, "seed": 2}',
    '{"damage": [{"model": "m"}], "corpus": {"text": "t", "digest": "d"}, "seed": 0}',
]


@pytest.mark.parametrize("text", NO_REPORTS, ids=lambda text: text[:20])
def test_another_file_is_refused_with_its_name(tmp_path, text):
    file = tmp_path / "damage.json"
    file.write_text(text, encoding="utf-8")
    result = run("policy", "init", file)
    assert result.exit_code == 2
    assert "evenbits: " in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_rules_of_thumb_that_protect_the_same_are_one_row():
    rows = [{"name": "first+last", "spec": "a"}, {"name": "plan", "spec": "b"}, {"name": "first+last+3/4", "spec": "a"}]
    assert [row["name"] for row in _distinct(rows)] == ["first+last = first+last+3/4", "plan"]


@pytest.mark.slow
def test_protect_names_the_languages_it_leaves_out(tiny_llama, text_folder, tmp_path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    (model / "exposure.json").write_text(json.dumps({"de": 900, "en": 4000}), encoding="utf-8")
    folder = text_folder(["de", "en", "sr_Latn", "pt_BR"])
    result = run(
        "protect", model, "--spec", "int3-row", "--budget", "0.5", "--corpus", f"dir:{folder}", "--dtype", "float32"
    )
    assert result.exit_code == 0, result.output
    assert "2 languages (pt-BR, sr-Latn): not asked for: no model was trained on them" in result.stderr
