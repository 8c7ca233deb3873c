"""The eval of H-035, run as a user runs it: on a tiny model and a folder of text in ten languages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evenbits.report.document import validate

pytestmark = pytest.mark.slow  # a pytest of its own, on a model

ROOT = Path(__file__).resolve().parents[3]
TAGS = ("am", "de", "en", "es", "fi", "fr", "ja", "om", "ug", "yo")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for tag in TAGS:
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(6)]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tiny_llama, texts, tmp_path_factory):
    here = tmp_path_factory.mktemp("run")
    command = [
        sys.executable,
        "-m",
        "evenbits",
        "run",
        "test_h035_degradation_predictor.py",
        f"--model={tiny_llama}",
        "--spec=int3-row",
        f"--corpus=dir:{texts}",
        "--languages=all",
        "--dtype=float32",
        "--report=out",
        f"--store={here / 'store'}",
        "--advisory",
        "--robustness",
    ]
    done = subprocess.run(
        command,
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"},
    )
    path = here / "out" / "report.json"
    assert path.exists(), done.stdout + done.stderr
    return done, json.loads(path.read_text(encoding="utf-8"))


def test_every_test_of_h035_gives_a_row_and_a_sentence(finished):
    done, report = finished
    validate(report)
    rows = {row["test"].rpartition("::")[2].partition("[")[0]: row for row in report["measurements"]}
    roles = {name: row["role"] for name, row in rows.items()}
    assert roles == {
        "test_kurtosis_overlap_predicts_degradation": "criterion",
        "test_overlap_says_more_than_tokens_likelihood_and_resources": "robustness",
        "test_overlap_adds_to_the_comparators_on_left_out_languages": "robustness",
        "test_the_layers_own_kurtosis_is_what_matters": "robustness",
        "test_a_diagnosis_calibrated_on_other_models_holds": "robustness",
    }
    assert done.returncode == 0, done.stdout
    assert all(row["explain"] for row in rows.values())


def test_ten_languages_give_a_number_and_no_verdict(finished):
    _, report = finished
    verdict = report["verdicts"]["H-035"]
    assert verdict["verdict"] == "underpowered"
    assert verdict["estimate"]["value"] is not None
    assert "10 languages, needed 30" in verdict["explain"]
    criterion = next(row for row in report["measurements"] if row["role"] == "criterion")
    known = {row["metric"] for row in criterion["data"]["comparators"]}
    assert {"token_parity", "nll_full", "resource", "script", "stream_norm", "kurtosis_permuted"} <= known
