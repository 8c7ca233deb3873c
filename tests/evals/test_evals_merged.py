"""The evals themselves in shards, on tiny models: merged, they give the bytes of the unsharded run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401 - pytester's runs must find all of this imported
import torch  # noqa: F401
import transformers  # noqa: F401
from evenbits.report.document import dump, load
from evenbits.studies.sequential import planned_looks

EVALS = Path(__file__).resolve().parents[2] / "evals"
HIGH, LOW = ("de", "en", "es", "fr", "ja"), ("am", "ig", "om", "ug", "yo")
SEGMENTS = 6  # half of them for statistics, half for scores
POLICY = """
[metric.excess_bits]
limit = 500
tier.low.limit = 0.1
tier.high.limit = 900

[metric.disparity]
limit = 5
"""
ALL = (*sorted(path.name for path in EVALS.glob("test_h*.py")), "test_established_findings.py")


@pytest.fixture(scope="module")
def texts(tagged_texts):
    return tagged_texts(HIGH + LOW, SEGMENTS)


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """Three models; the first says what it was trained on, the other way round than the public proxy has it."""
    trained = tmp_path_factory.mktemp("trained") / "model"
    shutil.copytree(tiny_model("llama", layers=3, hidden=64), trained)
    exposure = dict.fromkeys(HIGH, 1_000) | dict.fromkeys(LOW, 900_000)
    (trained / "exposure.json").write_text(json.dumps(exposure), encoding="utf-8")
    return (trained, tiny_model("llama", layers=3, hidden=64, seed=1), tiny_model("qwen3"))


@pytest.fixture
def run(texts, pytester, monkeypatch):
    """`run(name, files, models, specs, *options)` -> report; every run measures into a store of its own.

    In this process, where torch is imported already; with `workers`, in two others.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makeconftest("from evenbits.plugins import PLUGINS\npytest_plugins = list(PLUGINS)\n")
    pytester.makepyprojecttoml("[tool.evenbits]\nseed = 0\n")
    pytester.makefile(".toml", policy=POLICY)

    def measure(name, files, models, specs, *options, workers=False):
        pytester.makepyfile(**{file.removesuffix(".py"): (EVALS / file).read_text(encoding="utf-8") for file in files})
        command = [
            *files,
            "--advisory",
            "--tb=no",
            f"--corpus=dir:{texts}",
            "--languages=all",
            "--dtype=float32",
            f"--spec={','.join(specs)}",
            f"--report={name}",
            f"--store=store-{name}",
            *(f"--model={folder}" for folder in models),
            *options,
        ]
        if workers:
            pytester.runpytest_subprocess(*command, "-p", "xdist", "-n", "2")
        else:
            pytester.runpytest_inprocess(*command)
        return load(pytester.path / name / "report.json")

    return measure


@pytest.fixture
def joined(pytester):
    """`joined(*names)` -> the report that `evenbits merge` makes of runs, which it is given by the folders' names."""

    def join(*names, out="joined"):
        command = [sys.executable, "-m", "evenbits", "merge", *names, "-o", out]
        done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False, timeout=300)
        join.printed, join.said = done.stdout, done.stdout + done.stderr
        assert done.returncode in {0, 1}, join.said
        return load(pytester.path / out / "report.json")

    return join


def text(document):
    """The document as it is written, without what may differ between runs."""
    return dump({key: value for key, value in document.items() if key not in {"timing", "environment"}})


@pytest.mark.slow
def test_the_gate_and_the_findings_over_models_in_shards_by_model(run, joined, models):
    files, specs, policy = (
        ("test_established_findings.py", "test_deployment_gate.py"),
        ["int3-row"],
        "--policy=policy.toml",
    )
    whole = run("whole", files, models[:2], specs, policy)
    run("first", files, models[:1], specs, policy)
    run("second", files, models[1:2], specs, policy, workers=True)
    merged = joined("first", "second", "--json")
    assert text(merged) == text(whole)
    assert json.loads(joined.printed) == merged
    assert all(row["verdict"] != "error" for row in whole["measurements"] if row["role"] == "established")
    limits = {
        (row["model"], (row["data"] or {}).get("language")): row["threshold"]["bound"]
        for row in whole["measurements"]
        if row["test"].startswith("test_language")
    }
    assert (limits[str(models[0]), "de"], limits[str(models[0]), "yo"]) == (0.1, 900)  # as it was trained
    assert (limits[str(models[1]), "de"], limits[str(models[1]), "yo"]) == (900, 0.1)  # by the public proxy


def test_shards_that_divide_the_languages_of_the_gate_and_repeat_all_other_evals(run, joined, models):
    files = ("test_established_findings.py", "test_deployment_gate.py")
    options = (["int3-row"], "--policy=policy.toml")
    whole = run("whole", files, models[2:], *options)
    for index in (1, 2):
        run(f"s{index}", files, models[2:], *options, f"--shard={index}/2")
    assert text(joined("s1", "s2")) == text(whole)


@pytest.mark.slow
def test_segments_are_added_until_criteria_are_decided_and_a_merge_stops_at_the_same_look(
    run, joined, models, tagged_texts
):
    files = ("test_h036_layer_contribution.py", "test_h039_outlier_retention.py")
    corpus = f"--corpus=dir:{tagged_texts(HIGH + LOW, 48)}"
    whole = run("whole", files, models[1:2], ["int3-row"], corpus, "--until-decided", "--robustness")
    found = {row["test"]: row for row in whole["measurements"]}
    assert found["test_languages_rely_on_different_layers"]["estimate"]["n"] == 24  # segments: nothing is shown here
    for test, by in (
        ("test_languages_rely_on_different_layers", "squares"),
        ("test_disparity_falls_with_k", "resamples"),
    ):
        last = planned_looks(None, 24, by=by).confidence[-1]
        assert f"{100 * last:.6g}% percentile interval" in found[test]["estimate"]["method"]
    assert {row["segments"] for row in whole["damage"]} == {24}
    assert text(joined("whole")) == text(whole)


def test_a_gate_that_limits_disparity_gets_segments_in_all_languages_at_once_until_everything_is_decided(
    run, joined, models, tagged_texts
):
    files, corpus = ("test_deployment_gate.py",), f"--corpus=dir:{tagged_texts(HIGH + LOW, 48)}"
    whole = run("whole", files, models[1:2], ["int3-row"], corpus, "--policy=policy.toml", "--until-decided")
    ((size, confidence),) = {(row["segments"], row["confidence"]) for row in whole["damage"]}
    planned = planned_looks(None, 24, by="means")
    assert confidence == planned.confidence[planned.sizes.index(size)]
    assert not [row for row in whole["damage"] if "excess_bits_by_segment" in row]  # in no order that others have
    (disparity,) = [row for row in whole["measurements"] if row["test"].startswith("test_disparity")]
    assert disparity["estimate"]["n"] == size
    assert f"{100 * confidence:.6g}% interval" in disparity["estimate"]["method"]
    assert text(joined("whole")) == text(whole)


@pytest.mark.slow
def test_a_project_with_evals_of_its_own_merges_shards_of_the_installed_gate(joined, models, texts, pytester):
    (pytester.mkdir("evals") / "test_theirs.py").write_text("def test_theirs(): assert False\n", encoding="utf-8")
    pytester.makefile(".toml", policy="[metric.excess_bits]\nlimit = 500\n")
    what = (f"--model={models[2]}", f"--corpus=dir:{texts}", "--languages=de,yo", "--spec=int3-row", "--dtype=float32")
    for shard in ("1", "2"):
        options = (*what, "--policy=policy.toml", f"--shard={shard}/2", f"--report=s{shard}", f"--store=s{shard}-store")
        command = [sys.executable, "-m", "evenbits", "gate", "--advisory", "-q", *options]
        subprocess.run(command, cwd=pytester.path, check=True, capture_output=True, timeout=300)
    merged = joined("s1", "s2")
    assert {row["data"]["language"] for row in merged["measurements"]} == {"de", "yo"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [False, True])
def test_every_hypothesis_in_shards_by_model_and_by_spec(run, joined, models, workers):
    specs = ["int3-row", "int4-g16"]
    whole = run("whole", ALL, models, specs)
    for place, model in enumerate(models):
        run(f"m{place}", ALL, [model], specs, workers=workers)
    assert text(joined("m0", "m1", "m2")) == text(whole)
    for place, spec in enumerate(specs):
        run(f"s{place}", ALL, models, [spec], workers=workers)
    assert text(joined("s0", "s1", out="by-spec")) == text(whole)
