"""The part of docs/backends.md that `tox run -e backends` writes: versions, and what the tests of each backend said.

A plugin of that run (`pytest -p backends_page`): at its end it replaces what stands between the two marks of the page.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "backends.md"
BEGIN, END = "<!-- written by tox run -e backends -->", "<!-- until here -->"
COLUMNS = ("Backend", "Version", "Passed", "Failed", "Skipped, lifted by")

BACKENDS = {
    "llama.cpp": ("llama_cpp", "test_logits", "test_gguf"),
    "libgguf": ("test_gguf_rounding", "test_gguf_types"),
    "bitsandbytes": ("test_libraries[bnb", "test_recipes[bnb"),
    "torchao": ("test_libraries[torchao",),
    "bitsandbytes and torchao": ("test_libraries",),
    "compressed-tensors, GPTQ, AWQ, our export": ("test_checkpoint", "test_export"),
    "endpoints": ("test_served",),
    "recipes": ("test_recipes",),
}
"""What a test's module, or module and parameter, begins with; the first that fits takes it."""

PACKAGES = {
    "libgguf": ("libgguf",),
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "bitsandbytes and torchao": ("bitsandbytes", "torchao"),
    "compressed-tensors, GPTQ, AWQ, our export": ("compressed-tensors", "gptqmodel"),
    "endpoints": ("llama_cpp_python",),
}


def backend_of(test: str) -> str | None:
    """Return whose test it is, by its node id; None where it is of none."""
    place, _, parameter = test.partition("[")
    parts = [part.removesuffix(".py") for part in place.partition("::")[0].split("/")]
    for name, marks in BACKENDS.items():
        for mark in marks:
            module, bracket, begin = mark.partition("[")
            if module in parts and (not bracket or begin in parameter):
                return name
    return None


def table(reports: Iterable[tuple[str, str, str]]) -> str:
    """Return the table of tests: node id, outcome (passed, failed, skipped), and what lifts a skip."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in BACKENDS}
    lifted: dict[str, set[str]] = {name: set() for name in BACKENDS}
    for test, outcome, why in reports:
        name = backend_of(test)
        if name is not None:
            counts[name][outcome] += 1
            lifted[name] |= {why} if outcome == "skipped" else set()
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name, found in counts.items():
        if found:
            why = "; ".join(sorted(lifted[name])).replace("|", "/")
            left = f"{found['skipped']}: {why}" if found["skipped"] else ""
            lines.append(f"| {name} | {_version(name)} | {found['passed']} | {found['failed']} | {left} |")
    machine = f"Python {platform.python_version()}, torch {version('torch')}, {platform.machine()}"
    return f"{machine}.\n\n" + "\n".join(lines)


def _version(name: str) -> str:
    if name == "llama.cpp":
        from evenbits.errors import EngineError
        from evenbits.variants.llama_cpp.engine import engine_here

        try:
            return str(engine_here()).removeprefix("llama.cpp ")
        except EngineError:
            return "not here"
    found = []
    for package in PACKAGES.get(name, ()):
        try:
            found.append(version(package))
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def written(page: str, new: str) -> str:
    """Return the page with `new` between its marks; `ValueError` where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def pytest_terminal_summary(terminalreporter):
    """Write the page from what was reported: a failing set-up counts as a failure."""
    outcomes = {"passed": "passed", "failed": "failed", "error": "failed", "skipped": "skipped"}
    reports = []
    for key, outcome in outcomes.items():
        for report in terminalreporter.stats.get(key, []):
            said = report.longrepr[2] if outcome == "skipped" else ""
            reports.append((report.nodeid, outcome, " ".join(said.removeprefix("Skipped: ").split())))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), table(reports)), encoding="utf-8")
