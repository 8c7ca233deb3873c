"""What a command says that it would take, beside what it then takes: processor time, which other work changes least."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import resident_memory
from evenbits.commands.app import app
from evenbits.studies import speeds
from typer.testing import CliRunner

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COMMAND = "from evenbits.commands.app import app; app()"


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", COMMAND, *map(str, words)]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch, as `took` has it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def told(*words: object) -> dict[str, float]:
    """Return what `evenbits WORDS --cost` says of all models together, in the better of two tries."""
    tries = []
    for _ in range(2):
        forget_speeds()
        with one_thread():
            done = CliRunner().invoke(app, [*map(str, words), "--cost", "--json"])
        assert done.exit_code == 0, done.output
        costs = json.loads(done.stdout)["cost"].values()
        tries.append(
            {name: sum(cost[name] for cost in costs) for name in ("cells", "seconds", "disk_bytes")}
            | {"memory_bytes": max(cost["memory_bytes"] for cost in costs)}
        )
    return min(tries, key=lambda one: one["seconds"])


def forget_speeds() -> None:
    """Have the machine timed anew."""
    speeds._speeds.cache_clear()
    speeds._products.cache_clear()


def took(words: list[str], *, cwd: Path, written: Path) -> dict[str, float]:
    """Return what the command WORDS takes: seconds of the processor, its peak of memory, bytes more in `written`."""
    before = _size(written)
    said = cwd / "said.txt"
    taken = resident_memory.run(words, cwd=cwd, environment={**os.environ, **THREADS}, said=said)
    assert taken.code in {0, 1, 2}, said.read_text()
    return {"seconds": taken.seconds, "memory_bytes": taken.peak, "disk_bytes": _size(written) - before}


def assert_alike(said: dict[str, float], taken: dict[str, float], *names: str) -> None:
    """Within a factor of two, each of `names`."""
    sys.stdout.write(f"\ntold {said}\ntook {taken}\n")
    for name in names:
        assert taken[name] / 2 <= said[name] <= 2 * taken[name], name


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
