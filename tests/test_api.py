"""evenbits as a library: docs/api.md as it stands, what the functions return, and what importing costs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import evenbits
import pytest
from evenbits.report.document import dump
from report_documents import realistic

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
TAGS = ("de", "fi", "sw")
MINE = evenbits.Corpus(name="n", source="s", languages=("de",), segment_ids=("1",), texts={"de": ("ja",)})


@pytest.fixture
def texts(text_folder):
    return f"dir:{text_folder(TAGS, lines=6)}"


@pytest.fixture
def options(texts):
    return {"corpus": texts, "languages": "all", "dtype": "float32"}


def test_the_page_runs_from_top_to_bottom(tiny_llama, tiny_model, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "reports" / "latest"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(realistic()), encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    stand_ins = {"reference:a1-heavy": tiny_model("llama", seed=1), "reference:a1": tiny_llama, "gettext": texts}
    names = {}
    for block in blocks:
        code = block
        for name, stand_in in stand_ins.items():
            code = code.replace(f'"{name}"', repr(str(stand_in)))
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - this is our own page
    assert [row["language"] for row in names["table"]] == list(TAGS)
    assert names["frame"].column("language").to_pylist() == list(TAGS)
    assert names["frame"].schema.field("segments").type == "int64"
    assert (tmp_path / "damage.csv").read_text(encoding="utf-8").startswith("model,spec,language,")
    assert str(evenbits.parse_spec(names["plans"].about["recipe"]["spec"])) == names["plans"].about["recipe"]["spec"]
    assert min(row["rank"] for row in names["ranking"]) == 1
    assert all(row["power_reason"] for row in names["power"])  # the stand-in loses nothing, so nothing is to be decided
    assert set(names["report"].verdicts) == set(realistic()["verdicts"])
    assert (tmp_path / "measurements.csv").is_file()


def test_a_plan_has_a_row_per_decision_and_number_of_segments(tiny_llama, options):
    """2-bit rounding costs even this model something; three languages pass and fail, but are no two tiers."""
    table = evenbits.plan(str(tiny_llama), "int2-row", at=[20, 10], **options)
    gate = [row for row in table if row["decision"] == "gate: a language fails"]
    assert [row["segments"] for row in gate] == [10, 20]
    assert all(0 <= row["power_value"] <= 1 and row["power_n"] > 0 for row in gate)
    (parity,) = [row for row in table if row["decision"].startswith("H-039: parity")]
    assert parity["power_value"] is None
    assert "needed" in parity["power_reason"]
    assert table.about["pilot"]["languages"] == list(TAGS)


def test_rows_are_those_of_the_command(tiny_llama, options, tmp_path):
    table = evenbits.damage(str(tiny_llama), ["int4-g32", "int3-row"], **options)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evenbits",
            "damage",
            str(tiny_llama),
            "--spec=int4-g32,int3-row",
            "--json",
            f"--corpus={options['corpus']}",
            "--languages=all",
            "--dtype=float32",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for mine, row in zip(table, json.loads(done.stdout)["damage"], strict=True):
        assert (mine["spec"], mine["language"]) == (row["spec"], row["language"])
        assert mine["excess_bits_value"] == row["excess_bits"]["value"]


def test_the_table_of_the_folder_does_not_count(tiny_llama, options, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.evenbits]\nspec = "int3-row"\nnonsense = 1\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert {row["spec"] for row in evenbits.damage(str(tiny_llama), **options)} == {"int4-g64"}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("damage", {"model": "a/b", "spec": "int9-row"}, "int9-row"),
        ("damage", {"model": "a/b", "device": "tpu"}, "--device 'tpu' is unknown"),
        ("damage", {"model": "a/b", "corpus": MINE, "segments": 2}, "a Corpus is taken as it is"),
        ("damage", {"model": "a/b", "segmants": 6}, "there is no option 'segmants'; did you mean segments"),
        ("load_corpus", {"xyz": 1}, "there is no option 'xyz'; there are corpus, languages"),
        ("rank", {"models": "a/b/c"}, "a/b/c"),
        ("protect", {"model": "a/b", "budget": "1bpw"}, "budget is a number of bits per weight"),
        ("plan", {"model": "a/b", "at": []}, "--at '' is not understood; write numbers of segments, 2 to 10,000"),
        ("plan", {"model": "a/b", "at": [10, 99_999]}, "--at '10,99999' is not understood"),
        ("load_corpus", {"name": "nonsense"}, "nonsense"),
        ("open_report", {"path": "not-there"}, "not-there"),
    ],
)
def test_a_mistake_is_a_sentence(name, arguments, words):
    with pytest.raises(evenbits.EvenbitsError, match=words):
        getattr(evenbits, name)(**arguments)


def test_every_public_name_is_documented_and_on_the_page_or_in_its_docstring():
    page = PAGE.read_text(encoding="utf-8")
    for name in evenbits.__all__:
        assert getattr(evenbits, name).__doc__
        assert name in page or name in {"Options", "Report"}


def test_what_a_notebook_shows_of_a_value_is_a_line(tmp_path):
    file = tmp_path / "report.json"
    file.write_text(dump(realistic()), encoding="utf-8")
    report = evenbits.open_report(file)
    assert repr(report).startswith("Report(reference:b3 under int3-row int4-g64")
    assert repr(report.damage).startswith(f"Table({len(report.damage)} rows: model, spec, language")
    assert repr(MINE) == "Corpus('n', 1 language, 1 segment each, part='all')"
    assert max(len(repr(one)) for one in (report, report.damage, report.measurements, MINE)) < 1000


@pytest.mark.parametrize(
    ("given", "found"), [({}, "2000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_of_torch_wait_without_spinning_away_what_others_need_unless_told_otherwise(given, found):
    kept = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    asked = "import sys, evenbits, os; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", asked], env=kept | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", found]
