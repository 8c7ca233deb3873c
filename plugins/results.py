"""Collects what evals measured and writes the report when the session ends.

Every collected eval gives at least one row: its measurements, or `error` with the message where set-up failed, a
worker crashed or the test never ran, or `not_applicable` with the reason where it was skipped. Under xdist the
controller alone collects and writes; nothing is written where no eval was collected or the command was not understood.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evenbits.errors import EvenbitsError
from evenbits.estimates import ROLES, Estimate, Measurement, Role, Verdict
from evenbits.report.channel import CONTRIBUTION, IDENTITY, NAMES, payloads

from .additions import add_measurements, add_sections
from .items import CATALOGUE_FOLDER, Identity, catalogue, read_workers
from .junit import close_case, name_case, numbered, reopen_case, start_junit
from .options import end_with_usage_error, is_controller, only_looks, settings
from .outcomes import BY_VERDICT, recorded

__all__ = ["RESULTS", "Results"]

LONGEST_MESSAGE = 500
"""Characters of an error message that enter a row; the whole traceback stands in junit.xml."""

PHASES = {"setup": "set-up: ", "teardown": "tear-down: "}

SUBTESTS: Any = getattr(pytest, "SubtestReport", ())
"""Parts of a test (pytest 9): the test around them is the eval, and fails where they do."""

NOT_LIFTED = "no condition is given that would lift this skip"


@dataclass(kw_only=True)
class Log:
    """What has been reported of one eval so far. `parts`: messages of its subtests that failed."""

    properties: Sequence[tuple[str, object]] = ()
    errors: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    skipped: str | None = None
    seconds: float = 0.0
    done: bool = False
    last: pytest.TestReport | None = None


class Results:
    """Gathers reports on the process that writes.

    `document`: the report, once built. `folder`: where it was written. `problem`: why it could not be, in a sentence.
    `note`: what is missing beside it, in a sentence. `problems`: what other plugins' hooks failed with. `saved`: the
    numbered copy that --autosave kept.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.document: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.saved: Path | None = None
        self.problem: str | None = None
        self.note: str | None = None
        self.problems: list[str] = []
        self._logs: dict[str, Log] = {}
        self._contributed: list[Any] = []
        self._workers: Path | None = None
        self._began = time.perf_counter()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    # -- xdist ---------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to say what it collected: a crash must not take that knowledge with it."""
        if self._workers is None:
            self._workers = Path(tempfile.mkdtemp(prefix="evenbits-"))
        node.workerinput[CATALOGUE_FOLDER] = str(self._workers)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        if self._workers is not None:
            read_workers(self.config, self._workers)
        self._begin()

    # -- one process ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """Before the first eval runs: check settings and folder, and let pytest write JUnit XML beside our report."""
        from evenbits.report.document import require_writable

        option = self.config.option
        if not catalogue(self.config).items or only_looks(self.config):
            return
        try:
            folder = settings(self.config).report
            require_writable(folder)
        except EvenbitsError as error:
            catalogue(self.config).problems.append(str(error))  # so that nothing is written
            end_with_usage_error(error)
        if getattr(option, "xmlpath", None) is None and self.config.pluginmanager.has_plugin("junitxml"):
            start_junit(self.config, folder / "junit.xml")

    # -- while running -------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over the report of one phase, and leave only readable properties to the plugins after this one."""
        book = catalogue(self.config)
        for row in payloads(report.user_properties, IDENTITY):
            book.items.setdefault(report.nodeid, Identity(**row))
        if report.nodeid not in book.items:
            if report.when == "teardown":  # the first test to ask for a session's fixture need not be an eval
                self._contributed += payloads(report.user_properties, CONTRIBUTION)
        elif isinstance(report, SUBTESTS):
            if report.failed:
                self._logs.setdefault(report.nodeid, Log()).parts.append(_message(report))
        else:
            self._take(report, book.items[report.nodeid])
            return
        report.user_properties = _readable(report)

    def _take(self, report: pytest.TestReport, who: Identity) -> None:
        log = self._logs.setdefault(report.nodeid, Log())
        if report.when == "setup" and log.done:  # another attempt at the test: only the last one counts
            log = self._logs[report.nodeid] = Log(seconds=log.seconds)
            reopen_case(self.config, report.nodeid)
        name_case(self.config, report, who)
        if len(report.user_properties) >= len(log.properties):
            log.properties = report.user_properties
        log.seconds += getattr(report, "duration", 0.0)
        log.done, log.last = True, report
        if report.when == "call" and log.parts:  # whose number is all that the test around them says
            log.errors += log.parts
        elif report.failed and not getattr(report, BY_VERDICT, False):
            log.errors.append(_message(report))
        elif report.skipped:
            log.skipped = _skip_reason(report)
        report.user_properties = _readable(report)
        if report.when == "teardown":
            known = len(recorded(log.properties))
            report.user_properties += numbered(_rows(who, log)[known:], first=known + 1)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Write the report, then let pytest write its own files. What prevents it is a sentence and exit code 1."""
        self._finish()
        try:
            yield
        except OSError as error:  # JUnit XML: what ends a session is still to be said
            file = error.filename or self.config.option.xmlpath or "a file"
            what = f"{file} cannot be written: {error.strerror or error}."
            self.problem = what if self.problem is None else f"{self.problem} {what}"
        refused = self.problem or self.problems or self._held_back()
        if refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.document is not None and session.exitstatus == pytest.ExitCode.INTERRUPTED and self._enough(session):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _held_back(self) -> bool:
        """Return whether the gate lets nothing through although no test failed: its policy limits nothing of it."""
        from evenbits.studies.gate.decision import lets_through

        return self.document is not None and not lets_through(self.document) and not settings(self.config).advisory

    def _enough(self, session: pytest.Session) -> bool:
        """Return whether -x or --maxfail stopped workers: tests failed, which xdist tells as an interruption."""
        most = self.config.option.maxfail
        workers = self.config.pluginmanager.get_plugin("dsession")
        return bool(0 < most <= session.testsfailed + getattr(workers, "countfailures", 0))

    def _finish(self) -> None:
        book = catalogue(self.config)
        if not book.items or book.problems or only_looks(self.config):
            return
        for nodeid in sorted(book.items):
            log = self._logs.get(nodeid, Log())
            if log.last is None or log.last.when != "teardown":
                close_case(self.config, book.items[nodeid], _rows(book.items[nodeid], log), log.last)
        try:
            self._write()
        except EvenbitsError as error:
            self.problem = str(error)

    def pytest_unconfigure(self) -> None:
        if self._workers is not None:
            shutil.rmtree(self._workers, ignore_errors=True)

    # -- the report ----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        from evenbits.report.contributions import Contributions
        from evenbits.report.document import build as build_document
        from evenbits.report.document import dump, write
        from evenbits.report.environment import describe_environment
        from evenbits.report.markdown import markdown
        from evenbits.report.saved import save_report

        chosen = settings(self.config)
        book = catalogue(self.config)
        contributions = Contributions()
        for part in self._contributed:
            contributions.add(part["section"], part["payload"])
        rows: list[Measurement] = []
        for nodeid in sorted(book.items):
            log = self._logs.get(nodeid, Log())
            rows.extend(_rows(book.items[nodeid], log))
            for part in payloads(log.properties, CONTRIBUTION):
                contributions.add(part["section"], part["payload"])
        add_measurements(self.config, rows, contributions, self.problems)
        build = partial(
            build_document,
            measurements=rows,
            contributions=contributions,
            inputs={
                "models": [one.text for one in chosen.models],
                "corpus": chosen.corpus,
                "specs": [str(one) for one in chosen.specs],
                "not_run": [
                    {"what": "eval", "language": None, "count": count, "reason": reason}
                    for reason, count in sorted(book.left_out.items())
                ],
            },
            environment=describe_environment(
                seed=chosen.seed, dtype=chosen.dtype, measured=contributions.mapping("environment")
            ),
            timing={
                "started": self._started,
                "seconds": time.perf_counter() - self._began,
                **contributions.mapping("timing"),
                "tests": {nodeid: self._logs[nodeid].seconds for nodeid in sorted(self._logs)},
            },
        )
        self.document = build()
        if add_sections(self.config, self.document, contributions, self.problems):
            self.document = build()
        write(chosen.report / "report.json", dump(self.document))
        write(chosen.report / "summary.md", markdown(self.document))
        self.folder = chosen.report
        if chosen.autosave:
            self.saved = save_report(self.document, chosen.saved)
        self.note = _write_html(self.document, chosen.report / "index.html")


def _write_html(document: dict[str, Any], file: Path) -> str | None:
    """Write the page, or say in a sentence why there is none. An older one must not stand beside this report."""
    from evenbits.report.document import write
    from evenbits.report.html import MissingTemplatesError, html

    try:
        write(file, html(document))
    except MissingTemplatesError as error:
        file.unlink(missing_ok=True)
        return str(error)
    return None


RESULTS = pytest.StashKey[Results]()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from . import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    if is_controller(config):
        config.stash[RESULTS] = Results(config)
        config.pluginmanager.register(config.stash[RESULTS], "evenbits-results")


def _rows(who: Identity, log: Log) -> list[Measurement]:
    """Return the rows of one eval: never none."""
    rows = recorded(log.properties)
    errors = log.errors if log.done else ["it never ran: the session ended first"]
    rows += [_row(who, Verdict.ERROR, message) for message in errors]
    if not rows:
        reason = log.skipped or "the test ended without a report"
        verdict = Verdict.ERROR if log.skipped is None else Verdict.NOT_APPLICABLE
        rows = [_row(who, verdict, reason)]
    return rows


def _row(who: Identity, verdict: Verdict, reason: str) -> Measurement:
    action = reason.partition("; ")[2] or NOT_LIFTED if verdict is Verdict.NOT_APPLICABLE else None
    return Measurement(
        hypothesis=who.hypothesis,
        test=who.test,
        role=_role(who.role),
        model=who.model,
        spec=who.spec,
        verdict=verdict,
        metric="none",
        estimate=Estimate.undefined(reason),
        threshold=None,
        explanation=f"{verdict}: {'skipped: ' if action else ''}{reason.rstrip('.')}.",
        summary=reason,
        action=action,
    )


def _role(name: str) -> Role:
    return next(role for role in ROLES if role == name)


def _readable(report: pytest.TestReport) -> list[tuple[str, object]]:
    """Return the properties that are for people: what evals hand over is sealed, and stays here."""
    return [pair for pair in report.user_properties if pair[0] not in NAMES]


def _message(report: pytest.TestReport) -> str:
    """Return what went wrong as one short line: that of the exception, else the last line there is."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = [line.strip() for line in str(report.longrepr if crash is None else crash.message).splitlines()]
    told = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]  # pytest's own error texts
    chosen = [line for line in lines if line] or ["no message"]
    line = (told[0] if told else chosen[-1 if crash is None else 0]).removeprefix("evenbits.errors.")
    return PHASES.get(str(report.when), "") + (line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}...")


def _skip_reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").strip() or NOT_LIFTED
