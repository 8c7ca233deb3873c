"""What the fault campaign shares: the work that is disturbed, and how many times. Counts come from the environment.

`EVENBITS_FAULT_ROUNDS` kills, and as many disturbed stores; `EVENBITS_FAULT_EXAMPLES` inputs of each fuzzer. The
defaults are small; docs/reliability.md says what was run and what came of it.

Commands start as forks of one process that has imported what is slow to import and run nothing. So a kill costs the
second or two of the work alone, and falls into it, not into the imports before it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

ROUNDS = int(os.environ.get("EVENBITS_FAULT_ROUNDS", "24"))
EXAMPLES = int(os.environ.get("EVENBITS_FAULT_EXAMPLES", "100"))
TAGS = ("de", "en", "sw")
PATIENCE = 600

SLOW_TO_IMPORT = [
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "scipy.stats",
    "jsonschema",
    "pytest",
    "evenbits.commands.app",
    "evenbits.cells.runner",
    "evenbits.report.html",
    "evenbits.studies.h037.ablation",
]
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(SLOW_TO_IMPORT)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A command under way, and the files that its output goes to."""

    process: ForkServerProcess
    out: Path
    error: Path

    def kill(self) -> None:
        """End it and whatever it has started with SIGKILL, unless it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may not have come to lead a group
        self.process.join()


def start(arguments: list[str], where: Path) -> Running:
    """Start a command in a process group of its own; what it prints goes to files in `where`."""
    where.mkdir(exist_ok=True)
    out, error = where / "out.txt", where / "error.txt"
    process = forking.Process(target=_become, args=(arguments, out, error))
    process.start()
    return Running(process=process, out=out, error=error)


def _become(arguments: list[str], out: Path, error: Path) -> None:
    """Be the command from here on: what `python -m evenbits` is, with pytest in the same process."""
    import pytest
    import torch
    from evenbits.commands import run
    from evenbits.commands.app import app

    os.setsid()
    torch.set_num_threads(1)
    for stream, path in ((1, out), (2, error)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update({"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"})

    def here(command: list[str], *, check: bool, env: dict[str, str]) -> SimpleNamespace:
        assert not check
        os.environ.update(env)
        assert command[1:3] == ["-m", "pytest"]
        return SimpleNamespace(returncode=int(pytest.main(command[3:])))

    run.subprocess = SimpleNamespace(run=here)  # type: ignore[assignment] - a process of its own would import anew
    app(arguments)


def finished(running: Running) -> tuple[int, str, str]:
    """Wait for a command; return exit code, standard output and standard error, which hold no traceback."""
    running.process.join(PATIENCE)
    out, error = (path.read_text(encoding="utf-8") if path.exists() else "" for path in (running.out, running.error))
    assert "Traceback" not in out + error, out + error
    assert running.process.exitcode is not None, f"no end after {PATIENCE} s"
    return running.process.exitcode, out, error


def share(of: int) -> int:
    """Return the rounds of each of so many tests or cases that divide `ROUNDS` among themselves."""
    return -(-ROUNDS // of)


def numbers(report: Path) -> dict[str, object]:
    """Return what two equal runs must agree in: all of a report but its environment and timing."""
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    return {key: value for key, value in document.items() if key not in {"environment", "timing"}}


def parts(store: Path) -> list[Path]:
    """Return what a killed run left half-written."""
    return [path for path in store.rglob("*.part") if "locks" not in path.parts]
