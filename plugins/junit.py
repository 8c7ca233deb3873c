"""JUnit XML beside the report: started late, and complete also where tests did not end the usual way.

pytest writes a test case's properties when its tear-down is reported, and writes no test case at all for a test that
never ran. A CI server that reads the file must see the same rows as a reader of the report: so every row that no
test recorded gets its properties here, and every eval without a report gets a test case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evenbits.estimates import Measurement
from evenbits.report.junit import case_name, properties

from .items import Identity

__all__ = ["close_case", "name_case", "numbered", "reopen_case", "start_junit"]


_CASES = pytest.StashKey[dict[str, Any]]()


def start_junit(config: pytest.Config, file: Path) -> None:
    """Start pytest's own JUnit writer late: a session without evals must not leave a file.

    It is started through the hooks that pytest itself would have called, at their usual places.
    """
    plugins = config.pluginmanager
    before = plugins.get_plugins()
    config.option.xmlpath = str(file)
    plugins.get_plugin("junitxml").pytest_configure(config)  # type: ignore[union-attr]
    for started in plugins.get_plugins() - before:
        started.pytest_sessionstart()


def numbered(rows: Sequence[Measurement], *, first: int) -> list[tuple[str, object]]:
    """Return the properties of `rows`, of which the first is the `first`-th measurement of its test (from 1)."""
    return [pair for number, row in enumerate(rows, start=first) for pair in properties(row, number=number)]


def close_case(
    config: pytest.Config, who: Identity, rows: Sequence[Measurement], last: pytest.TestReport | None
) -> None:
    """Write the test case of an eval whose tear-down was never reported.

    `rows`: what the report says of it. `last`: the last report of it, that of a crash; None where it never ran.
    """
    writer = _writer(config)
    if writer is None:
        return
    nodeid, path = who.nodeid, who.nodeid.partition("::")[0]
    if last is None:
        writer.pytest_runtest_logreport(_report(nodeid, path, "setup", message=rows[0].summary))
    closing = _report(nodeid, path, "teardown", message=None)
    closing.user_properties = numbered(rows, first=1)
    node = getattr(last, "node", None)
    if node is not None:  # the writer tells reports of several workers apart by it
        closing.node = node  # type: ignore[attr-defined]
    name_case(config, closing, who)
    writer.pytest_runtest_logreport(closing)


def name_case(config: pytest.Config, report: pytest.TestReport, who: Identity) -> None:
    """Give the test case of an eval the name it has in a merged report: single, sharded and merged runs agree."""
    writer = _writer(config)
    if writer is not None:
        case = config.stash.setdefault(_CASES, {})[report.nodeid] = writer.node_reporter(report)
        name = case_name(hypothesis=who.hypothesis, test=who.test, model=who.model, spec=who.spec)
        for attribute, text in name.items():
            case.add_attribute(attribute, text)


def reopen_case(config: pytest.Config, nodeid: str) -> None:
    """Drop the test case of an earlier attempt, which pytest's writer would leave behind, empty and passing."""
    writer, earlier = _writer(config), config.stash.setdefault(_CASES, {}).pop(nodeid, None)
    if writer is not None and earlier is not None:
        writer.node_reporters_ordered[:] = [one for one in writer.node_reporters_ordered if one is not earlier]
        for key in [key for key, one in writer.node_reporters.items() if one is earlier]:
            del writer.node_reporters[key]


def _writer(config: pytest.Config) -> Any:
    return next((one for one in config.pluginmanager.get_plugins() if type(one).__name__ == "LogXML"), None)


def _report(nodeid: str, path: str, when: str, *, message: str | None) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=nodeid,
        location=(path, None, nodeid),
        keywords={},
        outcome="passed" if message is None else "failed",
        longrepr=message,
        when=when,  # type: ignore[arg-type]
    )
