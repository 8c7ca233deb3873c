"""`evenbits corpora` and `evenbits models`: what there is, before anything is measured."""

from __future__ import annotations

import json

import pytest
from evenbits.commands.app import app
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("plain_terminal")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for tag, name in (("de", "Deutsch"), ("en", "English"), ("yo", "Yorùbá"), ("mt", "Malti")):
        lines = [f"{name} says the {number}th thing" for number in range(5)]
        if tag == "mt":
            lines[2] = "English says the 2th thing"  # a copy of the source is no translation
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_corpora_shows_languages_with_their_text_and_what_is_left_out(texts):
    result = run("corpora", f"dir:{texts}", "--languages", "all")
    assert result.exit_code == 0, result.output
    assert "4 languages, 4 aligned segments each" in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert all(word in rows["yo"] for word in ("Yoruba", "Latn", "low"))
    assert "left out: " in result.stdout
    assert "(mt)" in result.stdout


def test_corpora_as_json_has_every_count_and_the_digest(texts):
    found = json.loads(run("corpora", f"dir:{texts}", "--languages", "all", "--json").stdout)
    assert found["segments"] == 4
    by_tag = {row["tag"]: row for row in found["languages"]}
    # four lines of "Yorùbá says the Nth thing": 6 letters, two of them of 2 bytes, and 19 more of ASCII
    assert by_tag["yo"]["utf8_bytes"] == 4 * (8 + 19)
    assert by_tag["de"]["tier"] == "high"
    assert len(found["digest"]) == 64
    assert any(one["language"] == "mt" for one in found["left_out"])


def test_what_is_left_out_is_summed_by_reason_and_names_a_few_languages():
    from evenbits.commands.corpora import left_out
    from evenbits.records import Corpus, LeftOut

    some = [LeftOut(what="message", language=f"l{number:02d}", count=2, reason="plural") for number in range(10)]
    corpus = Corpus(
        name="n",
        source="s",
        languages=("de",),
        segment_ids=("a",),
        texts={"de": ("x",)},
        left_out=(*some, LeftOut(what="segment", language=None, count=3, reason="short")),
    )
    assert left_out(corpus) == [
        "left out: 20 x message: plural (l00, l01, l02, l03, l04, l05, l06, l07 and 2 more)",
        "left out: 3 x segment: short",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("corpora", "dir:/nowhere"), ("/nowhere does not exist", "<tag>.txt")),
        (("corpora", "poems"), ("poems", "gettext")),
        (("models", "./nowhere"), ("nowhere", "does not exist")),
        (("models", "reference:zz"), ("zz", "a1")),
    ],
)
def test_what_is_not_there_ends_with_a_sentence_and_exit_2(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("evenbits: ")
    assert all(word in result.stderr for word in words), result.stderr


def test_models_shows_the_reference_family_and_what_is_supported():
    result = run("models")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip().startswith("reference:")}
    assert len(rows) >= 12
    assert "llama" in rows["reference:a1"]
    assert "33, 61.4 MB" in rows["reference:a1"]
    assert "supported architectures: " in result.stdout


def test_models_loses_no_word_in_a_terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("models").stdout
    table, _, told = shown.partition("trained on: ")
    assert "digest" in table
    assert max(map(len, table.splitlines())) <= 80
    digests = {one["fingerprint"][:8] for one in json.loads(run("models", "--json").stdout)["models"]}
    assert all(digest in table for digest in digests)
    assert "languages and bytes, where exposure.json beside the weights says so" in told


def test_models_as_json_says_where_a_folder_is_and_that_its_training_text_is_unknown(tiny_llama):
    found = json.loads(run("models", tiny_llama, "--json").stdout)
    (row,) = found["models"]
    assert row["folder"] == str(tiny_llama)
    assert row["architecture"] == "llama"
    assert (row["trained_languages"], row["trained_bytes"]) == (None, None)
    assert len(row["fingerprint"]) == 64
    assert "gpt2" in found["supported_architectures"]
