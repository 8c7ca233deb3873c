"""What the fault campaign shares: the work that is disturbed, and how many times. Counts come from the environment.

`EVENBITS_FAULT_ROUNDS` kills of each command, `EVENBITS_FAULT_EXAMPLES` inputs of each fuzzer. The defaults are small;
docs/reliability.md says what was run and what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROUNDS = int(os.environ.get("EVENBITS_FAULT_ROUNDS", "3"))
EXAMPLES = int(os.environ.get("EVENBITS_FAULT_EXAMPLES", "100"))
TAGS = ("de", "en", "sw")
PATIENCE = 600


class Work:
    """One tiny model, one small folder of text, and commands on them with a store of the caller's."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model, self.texts = root, model, root / "texts"
        self.texts.mkdir()
        for tag in TAGS:
            lines = [f"{tag} says the {number}th thing an inner" for number in range(6)]
            (self.texts / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def damage(self, store: Path) -> list[str]:
        return ["damage", str(self.model), "--spec", "int4-g64,int3-row", "--json", *self._shared(store)]

    def run(self, store: Path, report: Path) -> list[str]:
        options = ("--model", str(self.model), "--spec", "int3-row", "--advisory", f"--report={report}", "-q")
        return ["run", "test_h037_outlier_sparsity.py", *options, *self._shared(store)]

    def gate(self, store: Path, report: Path) -> list[str]:
        policy = self.root / "policy.toml"
        policy.write_text("[metric.excess_bits]\nlimit = 1000.0\n", encoding="utf-8")
        options = ("--model", str(self.model), "--spec", "int3-row", f"--report={report}", "-q", f"--policy={policy}")
        return ["gate", *options, *self._shared(store)]

    def _shared(self, store: Path) -> list[str]:
        return ["--corpus", f"dir:{self.texts}", "--dtype", "float32", "--offline", "--store", str(store)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, so that a kill takes its children along."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "evenbits.commands.app", *arguments],
        text=True,
        start_new_session=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return exit code, standard output and standard error, which hold no traceback."""
    out, error = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in out + error, out + error
    return process.returncode, out, error


def numbers(report: Path) -> dict[str, object]:
    """Return what two equal runs must agree in: all of a report but its environment and timing."""
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    return {key: value for key, value in document.items() if key not in {"environment", "timing"}}


def parts(store: Path) -> list[Path]:
    """Return what a killed run left half-written."""
    return [path for path in store.rglob("*.part") if "locks" not in path.parts]
