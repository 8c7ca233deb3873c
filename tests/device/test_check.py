"""The script for a machine with a GPU runs through: rehearsed on the CPU, where its speeds mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    assert (done.returncode, found["failed"]) == (0, {})
    assert found["cuda_and_cpu"]["largest_bits"] == 0  # the CPU against itself
    assert found["spread_and_experts"]["reached"]
    assert found["spread_and_experts"]["gpt_oss"]["gradients"] < 1e-3
    assert found["scoring_8b"]["tokens"] > 0
    assert found["rounding_8b"]["weights"] == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    assert found["evals"]["rows"] > 0
    assert "error" not in found["evals"]["verdicts"]
