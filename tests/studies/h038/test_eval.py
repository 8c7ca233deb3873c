"""The eval of H-038 as a user runs it, on a tiny model and a folder of text: every test gives a row and a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evenbits.report.document import validate

ROOT = Path(__file__).resolve().parents[3]
ROLES = {
    "test_a_feature_tells_resilient_from_vulnerable_languages": "criterion",
    "test_resilient_languages_use_more_distributed_representations": "prediction",
    "test_the_groups_may_be_made_without_likelihood": "robustness",
    "test_the_features_tell_more_than_resource_level": "robustness",
    "test_no_family_alone_makes_the_effect": "robustness",
    "test_the_residual_goes_with_a_feature_over_all_languages": "robustness",
    "test_a_training_choice_saves_damage": "robustness",
}


@pytest.mark.slow
def test_every_test_of_the_hypothesis_gives_a_verdict_and_a_sentence(tiny_llama, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for tag in ("am", "ar", "de", "en", "es", "fr", "ig", "ja", "om", "ug", "yo", "zh-Hans"):
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(6)]
        (texts / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evenbits",
            "run",
            "test_h038_language_resilience.py",
            f"--model={tiny_llama}",
            "--spec=int4-g32",
            f"--corpus=dir:{texts}",
            "--languages=all",
            "--dtype=float32",
            "--report=out",
            f"--store={tmp_path / 'store'}",
            "--advisory",
            "--robustness",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    validate(report)
    rows = report["measurements"]
    assert {row["test"]: row["role"] for row in rows} == ROLES
    for row in rows:
        assert row["verdict"] != "error", row["explain"]
        assert row["estimate"]["value"] is not None or row["estimate"]["reason"]
    # One model, not of the reference family: nothing is recommended, and the sentence says what would be needed.
    (training,) = [row for row in rows if row["test"] == "test_a_training_choice_saves_damage"]
    assert training["verdict"] == "not_applicable"
    assert "--model reference" in training["explain"]
    assert not [recipe for recipe in report["recipes"] if recipe["kind"] == "training"]
