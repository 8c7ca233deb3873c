"""lm-eval's tasks in a run of the gate, as a user runs it: on task data made here, in six languages."""

import json
import os
import subprocess
import sys

import pytest
from evenbits.report.tables import damage_table
from task_files import LANGUAGES, write_choices

POLICY = """
inconclusive = "pass"
[metric.excess_bits]
limit = 1000.0
[metric.task_loss]
limit = 0.9
language.ka.limit = 0.000001
"""


@pytest.fixture(scope="module")
def run(tiny_llama, tagged_texts, tmp_path_factory):
    """`run(*words)` -> the finished process; all runs share text, tasks and store, and report into `here`."""
    here = tmp_path_factory.mktemp("run")
    write_choices(here / "tasks", documents=40)
    (here / "policy.toml").write_text(POLICY, encoding="utf-8")
    texts = tagged_texts(LANGUAGES, 24)  # the gate scores half of them
    common = (
        "--spec=int2-g32",
        f"--corpus=dir:{texts}",
        "--languages=all",
        "--dtype=float32",
        f"--store={here / 'store'}",
    )

    def ran(command, *words):
        model = [str(tiny_llama)] if command == "damage" else [f"--model={tiny_llama}"]
        words = [*model, *common, *words] if command in {"damage", "gate"} else words
        return subprocess.run(
            [sys.executable, "-m", "evenbits", command, *words],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        )

    ran.here = here
    return ran


@pytest.mark.slow
def test_the_gate_decides_on_lost_answers_and_the_report_has_them_beside_excess_bits(run):
    tasks = ("--tasks=inn", "--task-folder=tasks")
    done = run("gate", "--policy=policy.toml", "--report=out", *tasks)
    report = json.loads((run.here / "out" / "report.json").read_text(encoding="utf-8"))
    rows = {row["language"]: row for row in report["damage"]}
    assert set(rows) == set(LANGUAGES)
    assert all(row["tasks"]["documents"] == 40 and row["tasks"]["task"] == f"inn_{tag}" for tag, row in rows.items())
    decided = {(row["data"]["language"], row["metric"]): row for row in report["measurements"]}
    for tag, row in rows.items():
        found = decided[tag, "task_loss"]
        assert found["estimate"] == row["tasks"]["loss"]
        assert found["data"]["outcome"] == ("pass" if tag != "ka" else found["data"]["outcome"])
    ka = rows["ka"]["tasks"]["loss"]
    outcome = "fail" if ka["low"] > 1e-6 else "inconclusive"
    assert decided["ka", "task_loss"]["data"]["outcome"] == outcome
    assert done.returncode == (1 if outcome == "fail" else 0), done.stdout[-2000:]
    for name in ("index.html", "summary.md"):
        text = (run.here / "out" / name).read_text(encoding="utf-8")
        assert "Answers to tasks" in text
        assert "over 6 languages lost answers go with excess bits by Spearman" in text
    table = {row["language"]: row for row in damage_table(report).rows}
    assert table["vi"]["task_loss_value"] == rows["vi"]["tasks"]["loss"]["value"]
    assert table["vi"]["task_recovery_percent"] == rows["vi"]["tasks"]["recovery_percent"]

    # merged from what it measured, without task files: the same decisions
    (run.here / "tasks").rename(run.here / "elsewhere")
    merged = run("merge", "out", "--output=whole")
    (run.here / "elsewhere").rename(run.here / "tasks")
    whole = json.loads((run.here / "whole" / "report.json").read_text(encoding="utf-8"))
    assert whole["damage"] == report["damage"], merged.stderr[-2000:]
    assert whole["measurements"] == report["measurements"]


@pytest.mark.slow
def test_damage_prints_them_in_its_table_and_says_whether_they_go_together(run):
    done = run("damage", "--tasks=inn", "--task-folder=tasks")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "points lost" in done.stdout
    assert "recovery %" in done.stdout
    assert "int2-g32: over 6 languages lost answers go with excess bits by Spearman's rho" in done.stdout
    printed = json.loads(run("damage", "--tasks=inn", "--task-folder=tasks", "--json").stdout)
    assert [row["task"] for row in printed["tasks"]] == [f"inn_{tag}" for tag in LANGUAGES]
    assert printed["answers_and_bits"][0]["spearman"]["n"] == 6
