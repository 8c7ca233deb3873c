"""The `evenbits` command as a user types it."""

import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from evenbits.commands import run as run_module
from evenbits.commands.app import app
from evenbits.commands.damage import _signs
from evenbits.commands.options import interval
from evenbits.commands.run import _inside, _package, _pytest, pytest_command
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
TAGS = """af am ar az be bg bn bs ca cs cy da de el en es et eu fa fi fr ga gl gu ha he hi hr hu hy id ig is it ja ka
kk ko lt lv mk mn sr-Cyrl sr-Latn"""
LANGUAGES = tuple(TAGS.split())


pytestmark = pytest.mark.usefixtures("plain_terminal")


@pytest.fixture
def texts(text_folder):
    """A folder of one's own text: 44 languages, three short lines each."""
    assert len(LANGUAGES) == 44
    return text_folder(LANGUAGES, lines=3)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def started(*arguments, cwd, python=(), timeout=120):
    """The command in a process of its own, in the folder `cwd`; `python`: options of the interpreter."""
    return subprocess.run(
        [sys.executable, *python, "-m", "evenbits", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def refused(result, tmp_path, *words):
    """The command ended with exit code 2, one sentence on stderr, no traceback, and measured nothing."""
    assert result.exit_code == 2, result.output
    message = result.stderr.strip()
    assert message.startswith("evenbits: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in message
    assert result.stdout == ""
    assert not (tmp_path / "store" / "losses").exists()


SPECS = "int4-g32,int4-row+keep0.1%:magnitude"


def test_damage_of_44_languages_as_json(tiny_llama, texts):
    from evenbits.report.document import schema
    from jsonschema import Draft202012Validator

    result = run(
        "damage",
        tiny_llama,
        "--spec",
        SPECS,
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "all",
        "--dtype",
        "float32",
        "--json",
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert set(document) == {"damage", "corpus", "seed", "environment"}  # what `policy init` needs, and where it ran
    assert document["environment"]["device"] == "cpu"
    assert {"torch", "transformers"} <= set(document["environment"]["packages"])
    rows = document["damage"]
    assert [(row["spec"], row["language"]) for row in rows] == [
        (spec, tag) for spec in SPECS.split(",") for tag in sorted(LANGUAGES)
    ]
    whole = schema()
    validator = Draft202012Validator({"$ref": "#/$defs/damage", "$defs": whole["$defs"]})
    for row in rows:
        validator.validate(row)
        excess = (row["nll_quantized"] - row["nll_full"]) / math.log(2) / row["segments"]
        assert row["excess_bits"]["value"] == pytest.approx(excess, rel=1e-9)
        assert row["segments"] == 3  # all lines, not half of them: there is no hypothesis to keep text for
    assert all(row["bits_per_weight"] == 4.5 for row in rows if row["spec"] == "int4-g32")


def test_damage_in_the_terminal_names_spec_interval_and_floor(tiny_llama, texts):
    result = run(
        "damage",
        tiny_llama,
        "--spec",
        "int4-g32",
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "de,ig",
        "--segments",
        "2",
        "--dtype",
        "float32",
    )
    assert result.exit_code == 0, result.output
    assert "int4-g32  4.50 bits" in result.stdout
    said = " ".join(result.stdout.split())
    assert "2 segments" in said
    assert "noise floor" in said
    first = [line.split()[0] for line in result.stdout.splitlines() if line.split()]
    assert first.count("de") == first.count("ig") == 1
    assert "left out: 42 languages" in result.stderr or "42" in result.stderr  # nothing is dropped in silence


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "--spec", "int4-g32", "--at", "2,3"],
        ["quantize", "--spec", "int4-g32+keep1%:activation", "-o", "out"],
        ["diagnose", "--calibrate", "--spec", "int4-g32", "-o", "out.json"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_measures_says_what_of_the_text_it_leaves_out(command, tiny_llama, texts, tmp_path):
    name, *options = [str(tmp_path / word) if word.startswith("out") else word for word in command]
    (texts / "ha.txt").write_text("\nNa biyu\nNa uku\n", encoding="utf-8")
    where = ("--corpus", f"dir:{texts}", "--languages", "de,fi,ha,ig", "--dtype", "float32")
    result = run(name, tiny_llama, *options, *where)
    assert result.exit_code == 0, result.output
    assert "left out: 1 segment in ha: empty" in result.stderr
    assert "left out: 40 languages" in result.stderr


def test_the_table_says_in_how_many_languages_damage_differs_from_nothing():
    rows = [{"excess_bits": {"low": low, "high": high}} for low, high in ((0.1, 2), (-1, 1), (-2, -1), (None, None))]
    assert _signs(rows) == "interval above 0 in 1 of 4 languages, below 0 in 1"
    assert _signs(rows[:2]) == "interval above 0 in 1 of 2 languages"


def test_every_figure_of_a_damage_table_is_whole_in_80_columns(tiny_llama, texts, monkeypatch):
    from evenbits.commands import damage

    monkeypatch.setenv("COLUMNS", "80")
    wide = {"value": 99.9, "low": -99.9, "high": 99.9}
    monkeypatch.setattr(damage, "interval", lambda *_args, **_scale: interval(wide))
    result = run(
        "damage", tiny_llama, "--spec", "int4-g32", "--corpus", f"dir:{texts}", "--segments", "2", "--familiar"
    )
    assert result.exit_code == 0, result.output
    assert "+99.9 [-99.9, 99.9]" in result.stdout
    assert "…" not in result.stdout


def test_what_rounds_to_nothing_has_no_sign():
    assert interval({"value": -0.04, "low": -0.3, "high": -0.01}) == "+0.0 [-0.3, 0.0]"
    assert interval({"value": -0.04, "low": None, "high": None}) == "+0.0"
    assert interval({"value": 143.04, "low": 99.96, "high": 99.94}) == "+143 [100, 99.9]"


def test_a_criterion_that_needs_statistics_takes_them_from_other_segments_and_says_so(tiny_llama, texts):
    result = run(
        "damage",
        tiny_llama,
        "--spec",
        "int4-row+keep1%:activation",
        "--corpus",
        f"dir:{texts}",
        "--languages",
        "de,ig",
        "--dtype",
        "float32",
        "--json",
    )
    assert result.exit_code == 0, result.output
    assert "1 probe segments, scores from the other 2" in result.stderr
    assert {row["segments"] for row in json.loads(result.stdout)["damage"]} == {2}


def test_bad_input_ends_with_one_sentence_and_exit_code_two(tiny_llama, texts, tmp_path):
    good = ("--corpus", f"dir:{texts}", "--languages", "de,ig")
    refused(run("damage", tiny_llama, "--spec", "int9-row", *good), tmp_path, "int9", "2 to 8")
    refused(run("damage", tiny_llama, "--spec", "int4-g32,,int3-row", *good), tmp_path, "empty entry")
    refused(run("damage", tiny_llama, "--spec", "int4-g48", *good), tmp_path, "48", "q_proj")
    refused(run("damage", tiny_llama, "--spec", "none", *good), tmp_path, "measured against")
    refused(run("damage", tmp_path / "nowhere", "--spec", "int4-g32", *good), tmp_path, "nowhere")
    refused(run("damage", tiny_llama, "--spec", "int4-g32", "--dtype", "float8", *good), tmp_path, "float8", "bfloat16")
    missing = ("--corpus", f"dir:{tmp_path / 'absent'}")
    refused(run("damage", tiny_llama, "--spec", "int4-g32", *missing), tmp_path, "absent", "does not exist")
    refused(run("damage", tiny_llama, "--spec", "int4-g32", "--corpus", "dirr:x"), tmp_path, "dirr:x", "gettext")
    klingon = ("--corpus", f"dir:{texts}", "--languages", "de,tlh")
    refused(run("damage", tiny_llama, "--spec", "int4-g32", *klingon), tmp_path, "tlh", "44 languages")


def test_text_that_is_not_utf8_or_not_aligned_is_named(tiny_llama, texts, tmp_path):
    command = ("damage", tiny_llama, "--spec", "int4-g32", "--corpus", f"dir:{texts}", "--languages", "all")
    whole = (texts / "de.txt").read_bytes()
    (texts / "de.txt").write_bytes(b"fine\nbad \xff\n")
    refused(run(*command), tmp_path, "de.txt", "line 2", "UTF-8")
    (texts / "de.txt").write_bytes(whole + b"a line too many\n")
    refused(run(*command), tmp_path, "de.txt 4", "cannot be aligned")


def test_one_segment_has_no_interval_and_the_caption_says_why(tiny_llama, texts):
    shown = run("damage", tiny_llama, "--corpus", f"dir:{texts}", "--languages", "de", "--segments", "1").stdout
    said = " ".join(shown.split())
    assert "excess bits per segment, over 1 segment (no interval: a single value)" in said
    assert "in 0 of 1 language" in said
    assert "95 % interval" not in said


def test_version_and_help():
    said = f"evenbits {version('evenbits')}\n"
    assert run("--version").stdout == said
    as_module = [sys.executable, "-m", "evenbits", "--version"]
    assert subprocess.run(as_module, capture_output=True, text=True, check=True).stdout == said
    help_text = run("--help").stdout
    assert "damage" in help_text
    assert "run" in help_text


def test_evals_are_found_by_file_and_case_wherever_they_are_installed():
    evals = _package("evenbits.evals")
    inside = _inside(evals, "evals/test_h039_outlier_retention.py::test_disparity_falls_with_k")
    assert inside == f"{evals / 'test_h039_outlier_retention.py'}::test_disparity_falls_with_k"
    assert _inside(evals, "test_h037_outlier_sparsity.py") == str(evals / "test_h037_outlier_sparsity.py")
    assert _inside(evals, "--model=org/name") == "--model=org/name"
    assert _inside(evals, "test_of_somebody_else.py") == "test_of_somebody_else.py"


def test_a_recorded_run_asks_the_installed_evals_or_those_that_were_in_the_folder():
    evals = _package("evenbits.evals")
    ours = pytest_command(["evenbits.evals/test_deployment_gate.py::test_x", "-m", "gate"])
    assert ours[-4:] == [f"--rootdir={evals}", f"{evals / 'test_deployment_gate.py'}::test_x", "-m", "gate"]
    theirs = pytest_command(["evals", "test_deployment_gate.py"])
    assert theirs[-2:] == ["evals", "test_deployment_gate.py"]
    assert "-c" not in theirs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["test_h037_outlier_sparsity.py"], ["{evals}/test_h037_outlier_sparsity.py"]),
        (["--deselect", "test_h036_x.py::a"], ["{evals}", "--deselect", "test_h036_x.py::a"]),
        (
            ["--ignore", "test_h037_outlier_sparsity.py"],
            ["{evals}", "--ignore", "{evals}/test_h037_outlier_sparsity.py"],
        ),
        (["--junitxml", "evals", "-k", "evals"], ["{evals}", "--junitxml", "evals", "-k", "evals"]),
    ],
)
def test_the_value_of_an_option_chooses_no_test(arguments, expected, monkeypatch):
    """Taken for a test it left the evals out, and pytest ran whatever lies in the folder."""
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command) or SimpleNamespace(returncode=0))
    assert _pytest(arguments) == 0
    evals = str(_package("evenbits.evals"))
    assert asked[0][-len(expected) :] == [one.replace("{evals}", evals) for one in expected]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--cost",), "--collect-only"), (("--json",), "report.json"), (("-n", "2"), 'pip install "evenbits[xdist]"')],
)
def test_options_of_other_commands_and_of_what_is_not_installed_are_told_what_does_the_same(
    arguments, words, tmp_path, monkeypatch
):
    found = run_module.find_spec
    monkeypatch.setattr(run_module, "find_spec", lambda name: None if name == "xdist" else found(name))
    refused(run("run", "--model", "reference:a1", *arguments), tmp_path, words)


def test_modules_in_the_folder_at_hand_are_not_taken_for_pythons(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    options = ("--collect-only", "-q", "--model=reference:a1", "--languages=de,en")
    done = started("run", "test_h037_outlier_sparsity.py", *options, cwd=tmp_path, python=("-P",))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_is_full_when_results_are_printed_is_a_sentence():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "evenbits", "models", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("evenbits: the disk is full")
    assert "Traceback" not in done.stderr


def test_run_refuses_what_it_cannot_understand_before_it_writes_anything(tmp_path):
    done = started("run", "--model=org/name", "--spec=int9-row", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "int9" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("command", ["run", "gate"])
def test_a_model_in_the_place_of_a_test_is_told_where_it_belongs(command, tmp_path):
    result = run(command, "reference:a1")
    refused(result, tmp_path, "--model reference:a1")


@pytest.mark.parametrize("command", ["run", "gate"])
@pytest.mark.parametrize("words", [("--no-such-option",), ("--collect-only", "-k", "nothing", "--model=reference:a1")])
def test_a_run_that_decides_nothing_has_exit_code_two(command, words, tmp_path):
    """pytest has 4 for its own usage errors and 5 for an empty selection."""
    done = started(command, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    said = "unrecognized arguments" if len(words) == 1 else "evenbits: no test was selected, so nothing was decided."
    assert said in done.stderr


@pytest.mark.slow
def test_run_from_another_folder_writes_its_report_there(tiny_llama, texts, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n", encoding="utf-8")
    done = started(
        "run",
        "test_h037_outlier_sparsity.py",
        f"--model={tiny_llama}",
        f"--corpus=dir:{texts}",
        "--languages=de,en,ig",
        "--spec=int4-g32",
        "--dtype=float32",
        "--report=out",
        "--advisory",
        "-q",
        cwd=tmp_path / "elsewhere",
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "elsewhere" / "out" / "report.json").read_text(encoding="utf-8"))
    assert set(report["verdicts"]) == {"H-037"}
    assert (tmp_path / "elsewhere" / "out" / "junit.xml").is_file()
