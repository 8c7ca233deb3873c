"""`evenbits compare` and `evenbits merge` as a user types them."""

import json

import pytest
from evenbits.commands.app import app
from evenbits.report.document import load
from evenbits.report.saved import save_report
from report_documents import realistic
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def reports(tmp_path):
    """Two saved reports, 0001 and 0002, of the same text; in the second every segment of Swahili costs 2 bits more."""
    for shift in (0.0, 2.0):
        whole = realistic(kept=(0.0,), layers=2)
        for row in whole["damage"]:
            extra = shift if row["language"] == "sw" else 0.0
            row["excess_bits_by_segment"] = [row["excess_bits"]["value"] + place % 7 + extra for place in range(20)]
        save_report(whole, tmp_path / ".evenbits")
    return tmp_path / ".evenbits"


def test_saved_reports_are_compared_by_number_in_terminal_markdown_json_and_html(reports, tmp_path):
    shown = run("compare", "latest", "0001")
    assert shown.exit_code == 0, shown.output
    line = next(line for line in shown.stdout.splitlines() if line.split()[:1] == ["sw"])
    assert "+2.00 [2.00, 2.00]" in line
    assert line.rstrip().endswith("worse")
    markdown = run("compare", "2", "1", "--markdown", "--html", "out/c.html")
    assert "| sw | reference:b3 | int4-g64 |" in markdown.stdout
    assert "+2.00 [2.00, 2.00]" in (tmp_path / "out" / "c.html").read_text(encoding="utf-8")
    found = json.loads(run("compare", "2", "1", "--json", "--saved", reports).stdout)
    assert {one["difference"]["value"] for one in found["changes"] if one["language"] == "sw"} == {2.0}


@pytest.mark.usefixtures("reports")
def test_a_number_that_is_not_there_ends_with_a_sentence_and_exit_2():
    result = run("compare", "0009", "0001")
    assert result.exit_code == 2
    assert "there is no saved report 0009 in " in result.stderr
    assert ".evenbits; it has 0001, 0002." in result.stderr


def test_other_text_is_refused_and_another_environment_is_named(reports):
    other = realistic(kept=(0.0,), layers=2)
    other["inputs"]["corpus"]["digest"] = "ee" * 32
    save_report(other, reports)
    refused = run("compare", "3", "1")
    assert refused.exit_code == 2
    assert "the baseline measured other text" in refused.stderr
    moved = load(next(reports.glob("0001_*")))
    moved["environment"]["dtype"] = "float32"
    save_report(moved, reports)
    assert "the environments differ: dtype bfloat16 -> float32" in run("compare", "4", "1").stderr
