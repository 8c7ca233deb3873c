"""The deployment gate end to end: for every way it can end, exit code, JUnit, Markdown and terminal say the same."""

import datetime as dt
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import gate_suite
import pytest

import harness.corpora  # noqa: F401 - numpy cannot be imported again in each of pytester's runs
from harness.report.document import load

LIMIT = 20
"""Limit of the excess bits in the policy of these tests. `de` has 5 [4, 6]: below it in every case."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way the gate can end. `sw`: value and half width of the damage of Swahili, None where there is none."""

    sw: tuple[float, float] | None = (5.0, 1.0)
    policy: str = ""
    options: tuple[str, ...] = ()
    expires: str | None = None
    workers: bool = False
    # ... and what everybody must say of it
    exit: int
    outcome: str | None
    verdict: str | None
    junit: str | None  # the element below the test case of sw; None: there is none, it passed
    gate: str | None  # verdict of the gate as a whole


FUTURE = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)).isoformat()
PAST = (dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)).isoformat()
ABOVE = (30.0, 2.0)  # all of [28, 32] lies above the limit of 20
STRADDLING = (20.0, 2.0)  # 20 lies inside [18, 22]

CASES = {
    "pass": Case(exit=0, outcome="pass", verdict="supported", junit=None, gate="supported"),
    "fail": Case(
        sw=ABOVE, exit=1, outcome="fail", verdict="not_supported", junit="failure", gate="not_supported",
    ),
    "inconclusive": Case(
        sw=STRADDLING, exit=1, outcome="inconclusive", verdict="underpowered", junit="failure", gate="underpowered",
    ),
    "inconclusive, let through": Case(
        sw=STRADDLING, policy='inconclusive = "pass"', exit=0, outcome="inconclusive", verdict="not_applicable",
        junit="skipped", gate="supported",
    ),
    "waived": Case(
        sw=ABOVE, expires=FUTURE, exit=0, outcome="waived", verdict="not_applicable", junit="skipped",
        gate="supported",
    ),
    "expired waiver": Case(
        sw=ABOVE, expires=PAST, exit=1, outcome="expired waiver", verdict="not_supported", junit="failure",
        gate="not_supported",
    ),
    "no longer needed waiver": Case(
        expires=FUTURE, exit=1, outcome="unneeded waiver", verdict="not_supported", junit="failure",
        gate="not_supported",
    ),
    "missing measurement": Case(
        sw=None, exit=1, outcome="missing", verdict="error", junit="failure", gate="error",
    ),
    "crashed worker": Case(
        workers=True, exit=1, outcome="error", verdict="error", junit="error", gate="error",
    ),
    "empty selection": Case(
        options=("-k", "no_such_language"), exit=2, outcome=None, verdict=None, junit=None, gate=None,
    ),
}  # fmt: skip


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "300")
    return pytester


def decide(suite, case):
    """Run the gate on `case`; return its exit code and what it printed."""
    rows = {"de": gate_suite.damage_row("de", 5.0)}
    rows |= {"sw": gate_suite.damage_row("sw", *case.sw)} if case.sw else {}
    rows |= {"crash": True} if case.workers else {}
    waiver = "" if case.expires is None else (
        f'[[waiver]]\nmetric = "excess_bits"\nlanguage = "sw"\nowner = "Ada"\nreason = "pilot"\n'
        f"expires = {case.expires}\n"
    )  # fmt: skip
    text = f"{case.policy}\n[metric.excess_bits]\nlimit = {LIMIT}\n{waiver}"
    gate_suite.prepare(suite, rows, text)
    options = ["-m", "gate", "--model=a/b", "--spec=int4-g64", "--languages=de,sw", "--policy=policy.toml"]
    if case.workers:
        result = suite.runpytest_subprocess(*options, "-p", "xdist", "-n", "1", "--max-worker-restart=0")
    else:
        result = suite.runpytest_inprocess(*options, *case.options)
    return int(result.ret), result.stdout.str() + result.stderr.str()


def junit(suite, tag):
    """Return the element below the JUnit test case of `tag`, and its properties."""
    tree = ET.parse(suite.path / "out" / "junit.xml")  # noqa: S314 - our own file
    (case,) = [one for one in tree.iter("testcase") if f"[{tag}" in one.get("name") or f"-{tag}]" in one.get("name")]
    found = [child.tag for child in case if child.tag != "properties"]
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    return (found[0] if found else None), properties


def cells(markdown, outcome):
    """Return the cells of the gate's Markdown rows that have `outcome`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == 8 and row[1] == outcome]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_exit_code_junit_markdown_and_terminal_say_the_same(suite, case):
    code, terminal = decide(suite, case)
    assert code == case.exit, terminal
    if case.outcome is None:
        assert "evenbits: --policy was given, and no eval was selected to be held against it" in terminal
        assert not (suite.path / "out").exists()
        return
    document = load(suite.path / "out" / "report.json")
    # the report
    (row,) = [one for one in document["measurements"] if one["test"].endswith("[sw]")]
    assert row["verdict"] == case.verdict
    assert row["estimate"]["value"] == (case.sw[0] if case.sw and not case.workers else None)
    assert document["verdicts"]["gate"]["verdict"] == case.gate
    # JUnit
    element, properties = junit(suite, "sw")
    assert element == case.junit
    assert properties["evenbits.outcome"] == case.outcome
    assert properties["evenbits.verdict"] == case.verdict
    assert properties["evenbits.language"] == "sw"
    # Markdown: the case, with its language, stands in a table under its outcome
    markdown = (suite.path / "out" / "summary.md").read_text(encoding="utf-8")
    assert [one for one in cells(markdown, case.outcome) if one[2] == "sw"]
    assert ("Gate: not passed" in markdown) is (case.outcome != "pass")
    # the terminal: a line for all that does not simply pass, and the verdict of the gate
    line = f"{case.outcome}: sw"
    assert (line in terminal) is (case.outcome != "pass"), terminal
    assert f"gate  {case.gate.replace('_', ' ')}" in terminal
    # ... and German, which passes, passes everywhere (unless the worker died before)
    if not case.workers:
        assert junit(suite, "de")[0] is None
        assert cells(markdown, "pass")
