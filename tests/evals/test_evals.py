"""The evals themselves, run as a user runs them: on a tiny model and a folder of text in ten languages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import architectures
import pytest
from evenbits.report.document import validate
from evenbits.text.languages import tiers

ROOT = Path(__file__).resolve().parents[2]
HIGH, LOW = ("de", "en", "es", "fr", "ja"), ("am", "ig", "om", "ug", "yo")
SEGMENTS = 6  # half of them for statistics, half for scores
LOADS = "loads.txt"
FILES = ("test_h037_outlier_sparsity.py", "test_h039_outlier_retention.py")
H037 = {
    "test_sparsity_pattern_is_clear": "criterion",
    "test_sparse_outliers_are_easier_to_preserve": "prediction",
    "test_sparse_outliers_cost_more_when_nothing_is_kept": "robustness",
    "test_few_weights_carry_most_of_the_damage": "robustness",
    "test_outliers_sit_in_few_layers": "robustness",
    "test_a_super_weight_exists": "robustness",
}
H039 = {
    "test_parity_below_one_percent": "criterion",
    "test_disparity_falls_with_k": "prediction",
    "test_largest_weights_beat_random_ones": "robustness",
    "test_retention_beats_smaller_groups_at_equal_bits": "robustness",
    "test_retention_beats_layer_protection_at_equal_bits": "robustness",
    "test_another_choice_reaches_parity_where_magnitude_does_not": "robustness",
    "test_another_choice_recovers_more_than_magnitude": "robustness",
    "test_statistics_of_low_resource_languages_help_these_more": "robustness",
}


@pytest.fixture(scope="module")
def texts(tagged_texts):
    return tagged_texts(HIGH + LOW, SEGMENTS)


@pytest.fixture(scope="module")
def evaluate(tiny_llama, texts, tmp_path_factory):
    """`evaluate(store, *options)` -> (finished process, report or None); every call writes into a folder of its own."""

    def run(store, *options, spec="int4-g64"):
        here = tmp_path_factory.mktemp("run")
        command = [
            sys.executable,
            "-m",
            "evenbits",
            "run",
            *FILES,
            "-p",
            "counted_loads",
            f"--model={tiny_llama}",
            f"--spec={spec}",
            f"--corpus=dir:{texts}",
            "--languages=all",
            "--dtype=float32",
            "--report=out",
            f"--store={store}",
            "--robustness",
            *options,
        ]
        done = subprocess.run(
            command,
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "COLUMNS": "160",
                "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
                "EVENBITS_TEST_LOADS": str(store / LOADS),
            },
        )
        path = here / "out" / "report.json"
        return done, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def advisory(evaluate, store):
    """A first run, in which nothing was stored before."""
    done, report = evaluate(store, "--advisory")
    assert report is not None, done.stdout + done.stderr
    return done, report


@pytest.mark.usefixtures("advisory")
def test_a_model_is_loaded_once_per_run(store, tiny_llama):
    assert (store / LOADS).read_text(encoding="utf-8") == f"{tiny_llama} torch.float32\n"


def without_clock(report):
    return {key: value for key, value in report.items() if key not in {"timing", "environment"}}


def test_the_resource_levels_of_the_test_corpus_are_known():
    assert tiers(HIGH + LOW) == dict.fromkeys(HIGH, "high") | dict.fromkeys(LOW, "low")


def test_what_is_measured_as_it_is_cannot_be_asked_which_weights_to_keep_and_says_so(evaluate, store, tiny_llama):
    """A checkpoint is no rounding of ours: no error, and no verdict either."""
    _, report = evaluate(store, spec=f"checkpoint:{tiny_llama}")
    asked = {row["test"]: row for row in report["measurements"]}
    assert not [row for row in asked.values() if row["verdict"] == "error"]
    for test in ("test_sparse_outliers_are_easier_to_preserve", *H039):
        assert asked[test]["verdict"] == "not_applicable"
        assert "is measured as it is; name a simulated spec" in asked[test]["explain"]
    assert report["verdicts"]["H-039"]["verdict"] == "not_applicable"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen3_moe", "gpt_oss"])
def test_no_eval_ends_in_an_error_on_a_model_with_experts(architecture, texts, tmp_path):
    folder = architectures.build(architecture, tmp_path / "model")
    options = ["--spec=int4-g16", f"--corpus=dir:{texts}", "--languages=all", "--dtype=float32", "--robustness"]
    done = subprocess.run(
        [sys.executable, "-m", "evenbits", "run", "--advisory", f"--model={folder}", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "EVENBITS_STORE": str(tmp_path / "store")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / "latest" / "report.json").read_text(encoding="utf-8"))
    assert {row["hypothesis"] for row in report["measurements"]} >= {"H-035", "H-036", "H-038", "H-039", "E-2"}
    assert not [row for row in report["measurements"] if row["verdict"] == "error"]


def test_an_advisory_run_reports_every_case_and_exits_with_zero(advisory):
    done, report = advisory
    assert done.returncode == 0, done.stdout + done.stderr
    validate(report)
    rows = report["measurements"]
    assert {(row["hypothesis"], row["test"], row["role"]) for row in rows} == {
        *(("H-037", test, role) for test, role in H037.items()),
        *(("H-039", test, role) for test, role in H039.items()),
    }
    assert len(rows) == len(H037) + len(H039)
    for row in rows:
        assert row["verdict"] != "error", row["explain"]
        assert row["explain"].startswith(row["verdict"])
        assert row["estimate"]["value"] is not None or row["estimate"]["reason"]
        assert row["threshold"]["why"]
    assert set(report["verdicts"]) == {"H-037", "H-039"}
    assert {row["role"]: row["verdict"] for row in rows if row["hypothesis"] == "H-039"}["criterion"] == (
        report["verdicts"]["H-039"]["verdict"]
    )


def test_one_model_is_too_few_for_the_correlation_over_models_and_the_report_says_so(advisory):
    (row,) = [
        row for row in advisory[1]["measurements"] if row["test"] == "test_sparse_outliers_are_easier_to_preserve"
    ]
    assert row["verdict"] == "underpowered"
    assert "1 training run, needed 8" in row["explain"]


def test_the_report_holds_the_damage_of_every_spec_and_language(advisory):
    report = advisory[1]
    specs = [entry["text"] for entry in report["inputs"]["specs"]]
    # five values of k above 0, two random controls, smaller groups, and retention at their bits; and the spec itself
    # (and other ways to choose the weights, where a disparity is not ruled out)
    assert len(specs) >= 1 + 5 + 2 + 2
    assert {(row["spec"], row["language"]) for row in report["damage"]} == {
        (spec, tag) for spec in specs for tag in HIGH + LOW
    }
    assert len(report["damage"]) == len(specs) * 10
    assert {row["segments"] for row in report["damage"]} == {SEGMENTS // 2}
    assert {len(row["excess_bits_by_segment"]) for row in report["damage"]} == {SEGMENTS // 2}  # pairs any two specs
    assert report["inputs"]["corpus"]["segments"] == {"probe": 3, "evaluation": 3}


def test_the_study_in_the_report_follows_from_its_damage_rows(advisory):
    report = advisory[1]
    (criterion,) = [row for row in report["measurements"] if row["test"] == "test_parity_below_one_percent"]
    excess = {(row["spec"], row["language"]): row["excess_bits"]["value"] for row in report["damage"]}
    for row in criterion["data"]["rows"]:
        low, high = (sum(excess[row["spec"], tag] for tag in tags) / 5 for tags in (LOW, HIGH))
        found = row["disparity"]["excess_bits"]
        assert found["difference"]["value"] == pytest.approx(low - high, rel=1e-9)
        if found["ratio"]["value"] is None:
            assert found["ratio"]["reason"]
        else:
            assert found["ratio"]["value"] == pytest.approx(low / high, rel=1e-9)


def test_without_advisory_an_unsupported_verdict_fails_the_run_on_the_same_report(advisory, evaluate, store):
    done, report = evaluate(store)
    assert done.returncode == 1, done.stdout + done.stderr
    assert without_clock(report) == without_clock(advisory[1])
    assert "Traceback" not in done.stdout


def test_a_spec_that_cannot_be_understood_ends_with_two_and_writes_nothing(evaluate, store):
    done, report = evaluate(store, spec="int9-row")
    assert done.returncode == 2
    assert report is None
    assert "int9" in done.stdout + done.stderr


@pytest.mark.slow
def test_an_emptied_store_gives_the_same_report(advisory, evaluate, tmp_path):
    _, report = evaluate(tmp_path / "empty", "--advisory")
    assert without_clock(report) == without_clock(advisory[1])


@pytest.mark.slow
def test_two_workers_give_the_report_of_one(advisory, evaluate, tmp_path):
    pytest.importorskip("xdist", reason="install the extra xdist")
    done, report = evaluate(tmp_path / "empty", "--advisory", "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert without_clock(report) == without_clock(advisory[1])
