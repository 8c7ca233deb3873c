"""The script for a machine with a GPU runs through, rehearsed on the CPU; and every eval does on an emulated device."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("check.py")
ROOT = CHECK.parents[2]


@pytest.mark.slow
def test_every_part_of_the_check_comes_to_an_end(tmp_path):
    subprocess.run([sys.executable, CHECK, "text", tmp_path / "text"], check=True)
    done = subprocess.run(
        [sys.executable, CHECK, "run", tmp_path / "text", tmp_path / "device.json", "900"],
        env={**os.environ, "EVENBITS_CHECK_DEVICE": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "device.json").read_text())
    assert (done.returncode, found["failed"], found["wrong"]) == (0, {}, [])
    assert found["cuda_and_cpu"]["largest_bits"] == 0  # the CPU against itself
    assert found["spread_and_experts"]["reached"]
    assert found["spread_and_experts"]["gpt_oss"]["gradients"] < 1e-3
    assert (found["types"]["count"], found["types"]["largest_bits"], found["types"]["errors"]) == (4, 0, {})
    assert found["scoring_8b"]["tokens"] > 0
    assert found["rounding_8b"]["weights"] == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    assert found["rounding_beside_libraries"]["weights"] == found["rounding_8b"]["weights"]
    assert found["sweep_8b"]["layers"] == 2
    assert found["lm_eval_8b"]["times_lm_eval"] > 0
    assert found["scoring_amx"]["times_lm_eval"] > 0
    assert "on this machine" in found["evals"]["told"]
    assert found["evals"]["rows"] > 0
    assert "error" not in found["evals"]["verdicts"]


def test_what_takes_too_long_or_is_wrong_fails_the_check(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CHECK.parent))
    import check

    parts = ["compare_with_cpu", "spread_and_whole", "every_type", "speed_of_scoring", "speed_of_rounding"]
    parts += ["rounding_beside_libraries", "speed_of_a_sweep", "beside_lm_eval"]
    parts += ["speed_on_a_cpu_with_matrix_units", "every_eval"]
    for name in parts:
        monkeypatch.setattr(check, name, lambda *_: {"reached": True})
    monkeypatch.setattr(check, "large_model", lambda: None)
    out = tmp_path / "device.json"
    assert check.main(tmp_path, out, 300) == 0
    monkeypatch.setattr(check, "speed_of_a_sweep", lambda *_: {"reached": False})
    assert check.main(tmp_path, out, 300) == 0
    assert json.loads(out.read_text())["missed"] == ["sweep_8b"]
    monkeypatch.setattr(check, "compare_with_cpu", lambda *_: {"reached": False})
    assert check.main(tmp_path, out, 300) == 1
    assert json.loads(out.read_text())["wrong"] == ["cuda_and_cpu"]
    assert check.main(tmp_path, out, check.EVALS_SECONDS) == 1
    assert json.loads(out.read_text())["failed"]["scoring_8b"] == "no time was left for it"
    with pytest.raises(TimeoutError, match=r"took longer than the 0 s"), check.at_most(0.1):
        time.sleep(5)


def test_a_check_that_was_not_prepared_says_what_to_do(tmp_path):
    (tmp_path / "tests" / "device").mkdir(parents=True)
    script = shutil.copy(CHECK.with_name("check.sh"), tmp_path / "tests" / "device")
    done = subprocess.run(["bash", script, "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "run `tests/device/check.sh prepare` where there is a network" in done.stderr


def test_a_run_of_evals_measures_on_the_device_that_it_is_given(tiny_llama, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for tag in ("de", "fi"):
        (text / f"{tag}.txt").write_text("".join(f"{tag} {number} the inner thing\n" for number in range(8)))
    evals = [
        str(ROOT / "evals" / name) for name in ("test_h036_layer_contribution.py", "test_h038_language_resilience.py")
    ]
    options = [f"--model={tiny_llama}", "--spec=int4-g16", f"--corpus=dir:{text}", "--segments=3", "--advisory"]
    where = [f"--report={tmp_path / 'report'}", f"--store={tmp_path / 'store'}"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "emulated_run",
            *evals,
            *options,
            *where,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["environment"]["device"] == "fake emulated"
    assert {row["hypothesis"] for row in report["measurements"]} >= {"H-036", "H-038"}
    assert "error" not in {row["verdict"] for row in report["measurements"]}
    assert all(row["excess_bits"]["value"] is not None for row in report["damage"])
    keys = (tmp_path / "store" / "losses").iterdir()
    assert all(b"fake emulated, torch" in file.read_bytes() for file in keys)


@pytest.mark.slow
def test_every_eval_runs_on_a_device_without_float64(tmp_path):
    subprocess.run([sys.executable, CHECK, "text", tmp_path / "text"], check=True)
    text = [f"--corpus=dir:{tmp_path / 'text'}", "--languages=fi,de,tr,ru", "--segments=4"]
    options = [*text, "--model=reference:a1", "--spec=int4-g64", "--dtype=float32", "--advisory"]
    reports = []
    for plugin in ([], ["-p", "emulated_run"]):
        folder = tmp_path / f"report{len(reports)}"
        where = [f"--report={folder}", f"--store={tmp_path / 'store'}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "evals", *options, *where],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        reports.append(json.loads((folder / "report.json").read_text()))
    here, there = reports
    assert (here["environment"]["device"], there["environment"]["device"]) == ("cpu", "fake emulated")
    verdicts = [[(row["test"], row["spec"], row["verdict"]) for row in report["measurements"]] for report in reports]
    assert verdicts[0] == verdicts[1]
    assert "error" not in {verdict for *_, verdict in verdicts[0]}
    for one, other in zip(here["damage"], there["damage"], strict=True):
        assert other["excess_bits"]["value"] == pytest.approx(one["excess_bits"]["value"], abs=1e-3)
