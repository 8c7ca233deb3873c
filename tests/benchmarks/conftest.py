"""Benchmarks compare two programs in one run: rounds are interleaved, so that drift of the machine hits both.

Each gives rows of one table, printed at the end: the work, ours, the peer, their ratio in every pair, and the target of
DESIGN section 6 that it must reach. pytest-benchmark saves ours with the rows (`--benchmark-autosave`) and holds later
runs against it (`--benchmark-compare`).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

ROUNDS = int(os.environ.get("EVENBITS_BENCH_ROUNDS", "5"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `ratios`: of every pair, better or worse as `target` says: `at_least` so many times the peer's
    speed, or at most so many times what the peer takes. `unit`: of ours and the peer's, seconds by default.
    """

    work: str
    ours: Sequence[float]
    peer: Sequence[float]
    peer_name: str
    target: float
    at_least: bool
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.ours, self.peer, strict=True)
        return [peer / ours if self.at_least else ours / peer for ours, peer in pairs]

    @property
    def reached(self) -> bool:
        middle = statistics.median(self.ratios)
        return middle >= self.target if self.at_least else middle <= self.target

    def cells(self) -> list[str]:
        ratios = self.ratios
        return [
            self.work,
            f"{statistics.median(self.ours):.3g} {self.unit}",
            f"{statistics.median(self.peer):.3g} {self.unit} {self.peer_name}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)})",
            f"{'>=' if self.at_least else '<='} {self.target:g}",
            "reached" if self.reached else "missed",
        ]

    def __str__(self) -> str:
        return "  ".join(self.cells())


_ROWS = pytest.StashKey[list[Row]]()
_LINES = pytest.StashKey[list[str]]()
HEADINGS = ("work", "ours", "peer", "ratio (min to max, pairs)", "target", "")


def pytest_configure(config):
    config.addinivalue_line("markers", "bench: compares speed or memory with a peer; wants a quiet machine")
    config.stash[_ROWS], config.stash[_LINES] = [], []


def pytest_collection_modifyitems(config, items):
    """Benchmarks run when they are asked for: a busy machine would make them fail, and they make it busy."""
    if "bench" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("bench"):
            item.add_marker(pytest.mark.skip(reason="a benchmark: run it alone with -m bench"))


def pytest_terminal_summary(terminalreporter, config):
    """Print the table of all comparisons, then what was not compared and how cost grows."""
    rows = [list(HEADINGS), *(row.cells() for row in config.stash[_ROWS])]
    if len(rows) > 1:
        terminalreporter.section("benchmarks")
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        for row in rows:
            terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    for line in config.stash[_LINES]:
        terminalreporter.write_line(line)


def said(line: str) -> None:
    """Write a line that `-s` shows at once: who stops the run keeps what was measured."""
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


@pytest.fixture
def interleaved(benchmark):
    """`interleaved(contenders, main=, rounds=)` -> seconds of every round by name.

    `contenders` maps names to functions without arguments. All run once for warmth; then each round runs all of them,
    one after the other. `main` is the one that pytest-benchmark reports, the others' times go to its `extra_info`.
    """

    def run(contenders: Mapping[str, Callable[[], object]], *, main: str, rounds: int = ROUNDS):
        seconds: dict[str, list[float]] = {name: [] for name in contenders}

        def once(name: str) -> None:
            began = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - began)

        def others() -> None:
            for name in contenders:
                if name != main:
                    once(name)

        for function in contenders.values():
            function()
        benchmark.pedantic(once, args=(main,), setup=others, rounds=rounds, iterations=1)
        benchmark.extra_info.update({name: [round(value, 4) for value in times] for name, times in seconds.items()})
        return seconds

    return run


@pytest.fixture
def once(benchmark):
    """`once(function)` -> what it returns, after pytest-benchmark timed a single run of it."""
    return lambda function: benchmark.pedantic(function, rounds=1, iterations=1)


@pytest.fixture
def row(request, benchmark):
    """`row(work=, ours=, peer=, peer_name=, target=, at_least=)` -> the `Row`, which stands in the table."""

    def add(**given) -> Row:
        made = Row(**given)
        request.config.stash[_ROWS].append(made)
        said(str(made))
        benchmark.extra_info.setdefault("rows", []).append(made.cells())
        return made

    return add


@pytest.fixture
def missing(request):
    """`missing(work, peer, why)`: say below the table that a row is not there, and why."""

    def add(work: str, peer: str, why: str) -> None:
        line = f"not compared: {work}, with {peer}: {why}"
        request.config.stash[_LINES].append(line)
        said(line)

    return add


@pytest.fixture
def curve(request, benchmark):
    """`curve(over, sizes, seconds)` -> the `Growth` of the fit seconds = fixed + c * size^p, printed and saved."""
    from growth import Growth, growth

    def add(over: str, sizes: Sequence[float], seconds: Sequence[float]) -> Growth:
        found = growth(sizes, seconds)
        points = ", ".join(f"{size:g}: {value:.3g} s" for size, value in zip(sizes, seconds, strict=True))
        line = f"cost over {over}: exponent {found.exponent:.2f} beside {found.fixed:.2g} s that are fixed ({points})"
        request.config.stash[_LINES].append(line)
        said(line)
        benchmark.extra_info[f"cost over {over}"] = {"exponent": found.exponent, "fixed": found.fixed, "points": points}
        return found

    return add
