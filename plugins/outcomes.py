"""From what an eval recorded to whether its test passes.

An eval records first and asserts afterwards (`assert result.supported, result.explain()`). So a failure that only says
"the verdict is not `supported`" can be told from a real one, and --advisory lets just that one pass. The other way
round, a pass that measured nothing, or that swallows a verdict, is turned into a failure.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import pytest
from evenbits.errors import EvenbitsError, NotApplicableError
from evenbits.estimates import Measurement, Verdict
from evenbits.printable import printable
from evenbits.report.channel import MEASUREMENT, payloads

from .items import Identity, catalogue, identity
from .options import settings

__all__ = ["ADVISORY", "BY_VERDICT", "give_back_claims", "recorded"]

BY_VERDICT = "evenbits_by_verdict"
"""Attribute of a call report: its failure says that a recorded verdict is not `supported`, and nothing else.

The row of that measurement then says it all; any other failure gives a row of its own.
"""

ADVISORY = "evenbits_advisory"
"""Attribute of a call report that --advisory let pass: the verdict it would have failed for."""

_RUNNING = pytest.StashKey[bool]()
_FAILED = pytest.StashKey[list[pytest.TestReport]]()

MUST_ASSERT = ("criterion", "gate")
"""Roles whose verdict decides; a test in one of them may not pass while it records another verdict than supported."""


def recorded(properties: Sequence[tuple[str, object]]) -> list[Measurement]:
    """Return the measurements that a test recorded, in its order."""
    return [Measurement.from_json(row) for row in payloads(properties, MEASUREMENT)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Skip an eval that cannot be asked of what it is given (a file's weights are not rounded here): not applicable."""
    try:
        return (yield)
    except NotApplicableError as error:
        if identity(item) is None:
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Settle the outcome of an eval; every other test keeps its own."""
    who = identity(item)
    if who is None or item.stash.get(_RUNNING, False):  # a subtest is judged with the test around it
        return (yield)
    with _short_tracebacks(item.config):
        report = yield
    if report.when != "call":
        return report
    measurements = recorded(item.user_properties)
    if hasattr(report, "wasxfail"):
        del report.wasxfail
        _fail(report, f"{who.test} is marked xfail, which would hide a refuted hypothesis. Remove the mark.")
    elif report.passed:
        _settle_pass(report, who, measurements)
    elif report.failed and call.excinfo is not None:
        setattr(report, BY_VERDICT, _says_unsupported(call.excinfo.value, measurements))
    if getattr(report, BY_VERDICT, False):
        _say_why(report, item.config, measurements)
    no_error = all(row.verdict is not Verdict.ERROR for row in measurements)
    if getattr(report, BY_VERDICT, False) and no_error and _advisory(item.config):
        _let_pass(report, measurements)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note that the test function runs: a report that is made meanwhile is that of a subtest."""
    item.stash[_RUNNING] = True
    try:
        return (yield)
    finally:
        item.stash[_RUNNING] = False


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show an advised verdict as what it is: neither a pass nor a failure."""
    verdict = getattr(report, ADVISORY, None)
    return None if verdict is None else ("advisory", "a", f"ADVISORY ({verdict})")


@contextmanager
def _short_tracebacks(config: pytest.Config) -> Iterator[None]:
    """Show where an eval failed without the values of its arguments, unless the user chose a style.

    They are whole studies: printing one takes half a second, in every eval that does not support its claim.
    """
    chosen = _style(config)
    if chosen == "auto":
        config.option.tbstyle = "short"
    try:
        yield
    finally:
        config.option.tbstyle = chosen


def _style(config: pytest.Config) -> str:
    """Return the style of tracebacks; without the terminal plugin there is no such option."""
    return str(getattr(config.option, "tbstyle", "auto"))


def _settle_pass(report: pytest.TestReport, who: Identity, measurements: Sequence[Measurement]) -> None:
    if not measurements:
        _fail(report, f"{who.test} passed without recording a measurement. Call record(finding, threshold) in it.")
        return
    swallowed = [
        row for row in measurements if row.verdict is Verdict.ERROR or (who.role in MUST_ASSERT and not row.supported)
    ]
    if swallowed:
        _fail(report, f"{who.test} does not assert its verdict. {swallowed[0].explain()}")
        setattr(report, BY_VERDICT, True)


def _says_unsupported(error: BaseException, measurements: Sequence[Measurement]) -> bool:
    """Whether `error` is the assertion of a recorded verdict."""
    if not isinstance(error, AssertionError):
        return False
    said = " ".join(str(error).replace("~", " ").split())
    unsupported = [row for row in measurements if not row.supported]
    # With pytest's rewriting, `assert result.supported` without a message reads "... where False = ....supported".
    return any(".supported" in said or " ".join(row.explain().replace("~", " ").split()) in said for row in unsupported)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None]:
    """Keep verdicts out of pytest's section of failures: the summary below it has their reasons, once.

    Tests of claims are back for the short summary, which names them; languages that the gate refuses stand in its
    answer. All are back for the count of failures. With a style of traceback (--tb) everything is pytest's own.
    """
    failed = config.stash[_FAILED] = terminalreporter.stats.get("failed", [])
    written = getattr(config.pluginmanager.get_plugin("evenbits-results"), "document", None) is not None
    if written and _style(config) == "auto":
        _keep(terminalreporter, [one for one in failed if not getattr(one, BY_VERDICT, False)])
    try:
        return (yield)
    finally:
        _keep(terminalreporter, failed)


def give_back_claims(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Let the short summary name the tests of claims that failed, once the section of failures is written."""
    if _style(config) == "auto":
        _keep(terminalreporter, [one for one in config.stash[_FAILED] if not _of_the_gate(one, config)])


def _keep(terminalreporter: pytest.TerminalReporter, failed: list[pytest.TestReport]) -> None:
    terminalreporter.stats.pop("failed", None)
    if failed:
        terminalreporter.stats["failed"] = failed


def _of_the_gate(report: pytest.TestReport, config: pytest.Config) -> bool:
    who = catalogue(config).items.get(report.nodeid)
    return who is not None and who.role == "gate" and getattr(report, BY_VERDICT, False)


def _say_why(report: pytest.TestReport, config: pytest.Config, measurements: Sequence[Measurement]) -> None:
    """Put the verdict's own sentence in the place of a traceback into a test that only asserts it.

    JUnit and the short summary take it from there. Who asks for a style of traceback (--tb) gets the traceback.
    """
    if _style(config) == "auto":
        report.longrepr = printable(next(row.explain() for row in measurements if not row.supported))


def _let_pass(report: pytest.TestReport, measurements: Sequence[Measurement]) -> None:
    worst = next(row.verdict for row in measurements if not row.supported)
    setattr(report, ADVISORY, str(worst))
    report.outcome = "passed"
    report.longrepr = None


def _fail(report: pytest.TestReport, sentence: str) -> None:
    report.outcome = "failed"
    report.longrepr = sentence


def _advisory(config: pytest.Config) -> bool:
    try:
        return settings(config).advisory
    except EvenbitsError:
        return False
