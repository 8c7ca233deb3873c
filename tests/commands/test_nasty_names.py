"""Names that are markup, emoji codes or escape codes to a terminal: shown as what they are, by every command."""

from __future__ import annotations

import json
import shutil

import nasty_texts
import pytest
from evenbits.commands.app import app
from evenbits.commands.console import console, say, say_json
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("plain_terminal")

NAME = "my[/i]mo:ok:del[red]\x1b[31m\u202ecba"
SHOWN = "my[/i]mo:ok:del[red]\\x1b[31m\\u202ecba"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tiny_llama, tmp_path):
    return shutil.copytree(tiny_llama, tmp_path / NAME)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / f"te[/bold]xt {NAME}"
    folder.mkdir(parents=True)
    for tag in ("de", "en"):
        (folder / f"{tag}.txt").write_text("".join(f"{tag} says {n} things\n" for n in range(6)), encoding="utf-8")
    (folder / "[link=x]y.pdf").touch()
    return folder


def test_a_table_of_damage_shows_model_spec_and_corpus_as_they_are(model, texts):
    spec = "int4-g64+keep0.5%:activation[de,en]"
    result = run("damage", model, "--spec", spec, "--corpus", f"dir:{texts}", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert nasty_texts.obeyed(result.output) == []
    assert SHOWN in "".join(result.stdout.split())
    assert spec in result.stdout
    assert "[link=x]y.pdf" in result.stderr


def test_corpora_and_models_show_paths_as_they_are(model, texts):
    for arguments in (("corpora", f"dir:{texts}"), ("models", model)):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert nasty_texts.obeyed(result.output) == []
        assert SHOWN in "".join(result.stdout.split())


@pytest.mark.parametrize("command", ["damage", "diagnose", "protect", "quantize", "rank", "models"])
def test_an_error_shows_what_was_typed_as_it_is(command, tmp_path):
    more = {
        "damage": ["--spec", "int4-g64"],
        "protect": ["--spec", "int4-g64", "--budget", "1"],
        "quantize": ["--spec", "int4-g64", "-o", tmp_path / "out"],
    }
    result = run(command, tmp_path / NAME, *more.get(command, []), "--offline")
    assert result.exit_code == 2, result.output
    assert nasty_texts.obeyed(result.output) == []
    assert SHOWN in result.stderr


@pytest.mark.parametrize("text", nasty_texts.NASTY.values(), ids=nasty_texts.NASTY.keys())
def test_tables_lines_and_json_carry_anything(text, capsys):
    from rich.table import Table

    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    shown = console()
    shown.print(table)
    shown.print(text)
    say(text)
    say_json({"text": text})
    written = capsys.readouterr().out
    *_, document = written.partition("{\n")
    assert nasty_texts.obeyed(written.removesuffix(document)) == []
    assert json.loads("{" + document) == {"text": text}
