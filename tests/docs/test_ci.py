"""docs/ci.md: every pipeline file follows the schema of its server, and the commands do what the text says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from evenbits.report.document import load

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", TEXT, re.DOTALL))
SCRIPTS = dict(re.findall(r"<!-- run: (\S+) -->\n```bash\n(.*?)```", TEXT, re.DOTALL))
SCHEMAS = {
    ".github/workflows/gate.yml": "vendor.github-workflows",
    ".github/workflows/matrix.yml": "vendor.github-workflows",
    ".gitlab-ci.yml": "vendor.gitlab-ci",
}
TAGS = ("am", "de", "en", "fr", "ig", "yo")
INSTALL = "python -m pip install"


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_llama):
    """A repository as the document supposes it: text in six languages, a tiny model, and a policy made as it says."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "texts").mkdir()
    for tag in TAGS:
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(24)]
        (folder / "texts" / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "models").mkdir()
    (folder / "models" / "candidate").symlink_to(tiny_llama)
    started(SCRIPTS["first"], folder)
    return folder


def started(script, folder, **variables):
    """Run a script as the servers do, in bash that stops at the first failure; installing is left out."""
    lines = "\n".join(line for line in script.splitlines() if not line.startswith(INSTALL))
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", lines],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "EVENBITS_STORE": str(folder / "store"),
            "MODEL": "models/candidate",
            "GITHUB_STEP_SUMMARY": str(folder / "step-summary.md"),
            "GITHUB_REF": "refs/pull/1/merge",
            **variables,
        },
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def github(name, job, **matrix):
    """Return the scripts of a job's steps, with the values of the matrix put in."""
    for step in yaml.safe_load(FILES[name])["jobs"][job]["steps"]:
        if "run" in step:
            yield re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: str(matrix[found[1]]), step["run"])


def without_clock(report):
    return {key: value for key, value in report.items() if key not in {"timing", "environment"}}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_pipeline_file_follows_the_schema_of_its_server(name, tmp_path):
    assert set(FILES) == set(SCHEMAS)
    file = tmp_path / Path(name).name
    file.write_text(FILES[name], encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name]]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text(FILES[name].replace("runs-on:", "runs_on:").replace("script:", "scripts:"), encoding="utf-8")
    assert subprocess.run([*command, str(file)], capture_output=True, check=False, timeout=60).returncode == 1


def test_the_gate_on_a_pull_request_passes_the_measured_model_and_writes_its_summary(project):
    for script in github(".github/workflows/gate.yml", "gate"):
        started(script, project)
    report = load(project / "reports" / "gate" / "report.json")
    assert report["verdicts"]["gate"]["verdict"] == "supported"
    summary = (project / "step-summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## May ship.")
    assert "models/candidate" in summary
    assert {"index.html", "junit.xml", "measurements", "report.json", "summary.md"} == {
        path.name for path in (project / "reports" / "gate").iterdir()
    }


@pytest.mark.slow
def test_main_keeps_its_report_and_the_next_pull_request_is_compared_with_it(project):
    (script,) = [script for script in github(".github/workflows/gate.yml", "gate") if "evenbits gate" in script]
    started(script, project, GITHUB_REF="refs/heads/main")
    started(script, project)
    rows = load(project / "reports" / "gate" / "report.json")["measurements"]
    changes = [row for row in rows if row["metric"] == "excess_bits_increase"]
    assert len(changes) == len(TAGS)
    assert {row["estimate"]["value"] for row in changes} == {0.0}


@pytest.mark.slow
def test_the_matrix_merges_to_the_report_of_one_run(project):
    for script in github(".github/workflows/gate.yml", "gate"):
        started(script, project)
    for shard in (1, 2):
        for script in github(".github/workflows/matrix.yml", "shard", shard=shard):
            started(script, project)
    for script in github(".github/workflows/matrix.yml", "merge"):
        started(script, project)
    whole, merged = (load(project / "reports" / name / "report.json") for name in ("gate", "merged"))
    whole["measurements"] = [row for row in whole["measurements"] if row["metric"] != "excess_bits_increase"]
    assert merged["measurements"] == whole["measurements"]
    assert merged["damage"] == whole["damage"]


@pytest.mark.slow
def test_the_jobs_of_gitlab_gate_shard_and_merge(project):
    jobs = yaml.safe_load(FILES[".gitlab-ci.yml"])
    for index in range(1, jobs["shard"]["parallel"] + 1):
        total = str(jobs["shard"]["parallel"])
        for script in jobs["shard"]["script"]:
            started(script, project, CI_NODE_INDEX=str(index), CI_NODE_TOTAL=total)
    for job in ("gate", "merge"):
        for script in jobs[job]["script"]:
            started(script, project)
        assert (project / jobs[job]["artifacts"]["reports"]["junit"]).is_file()
    whole, merged = (load(project / "reports" / name / "report.json") for name in ("gate", "merged"))
    assert without_clock(merged) == without_clock(whole)


@pytest.mark.slow
def test_baselines_are_kept_by_number_and_compared(project):
    out = started(SCRIPTS["baselines"], project)
    assert "no difference" in out
    assert (project / "reports" / "comparison.html").is_file()
