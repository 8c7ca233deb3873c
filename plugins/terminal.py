"""Shows the summary of the report at the end of a run, in colour where the terminal has it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evenbits.paths import as_typed
from evenbits.printable import printable

from .options import settings
from .outcomes import give_back_claims
from .results import RESULTS

if TYPE_CHECKING:
    from evenbits.report.summary import Line, Style

__all__: list[str] = []

MARKUP: dict[Style, dict[str, bool]] = {
    "plain": {},
    "dim": {"light": True},
    "strong": {"bold": True},
    "supported": {"green": True},
    "not_supported": {"red": True},
    "underpowered": {"yellow": True},
    "not_applicable": {"cyan": True},
    "error": {"red": True, "bold": True},
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, None)
    if results is None or (results.document is None and results.problem is None):
        return
    give_back_claims(terminalreporter, config)
    terminalreporter.section("evenbits")
    if results.document is not None:
        from evenbits.report.summary import summary

        report = None if results.folder is None else _shortest(_to_look_at(results.folder), config)
        width = shutil.get_terminal_size().columns
        lines = summary(
            results.document,
            width=width,
            verbose=config.get_verbosity() > 0,
            report=report,
            advisory=settings(config).advisory,
        )
        for line in lines:
            _write(terminalreporter, line)
        if results.saved is not None:
            terminalreporter.write_line(printable(f"saved         {_shortest(results.saved, config)}"))
        if results.note is not None:
            terminalreporter.write_line(printable(results.note), light=True)
    for sentence in results.problems:
        terminalreporter.write_line(printable(sentence), red=True)
    if results.problem is not None:
        terminalreporter.write_line(f"report        not written: {printable(results.problem)}", red=True)


def _to_look_at(folder: Path) -> Path:
    """Return the page, or the document where what the page needs is not installed."""
    page = folder / "index.html"
    return page if page.exists() else folder / "report.json"


def _shortest(file: Path, config: pytest.Config) -> Path:
    """Return `file` as one would type it where the command was started."""
    return as_typed(file, config.invocation_params.dir)


def _write(terminalreporter: pytest.TerminalReporter, line: Line) -> None:
    for span in line[:-1]:
        terminalreporter.write(span.text, **MARKUP[span.style])
    terminalreporter.write_line(line[-1].text.rstrip(), **MARKUP[line[-1].style])
