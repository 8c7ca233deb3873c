"""Progress of long work, shown to whoever waits: silent, bars on a terminal, or a line now and then in a log.

Functions of the library take `progress: Progress | None` and never print. Bars appear only where somebody has waited a
while. Where stderr is not a terminal, as in a CI run, a plain line every half minute says that the work goes on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TextIO

from evenbits.printable import printable

__all__ = ["Bars", "Lines", "Progress", "Silent", "Task", "progress_for", "time_left"]

DELAY = 1.0
"""Seconds of work before anything is drawn: bars that flash up and go are noise."""

EVERY = 30.0
"""Seconds between two lines of a log."""

PAUSE = 0.5
"""Seconds between two tasks up to which they count as one stretch of work."""


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, n: int = 1) -> None:
        """Report that `n` more units (tensors, bytes, segments) are done."""

    def doing(self, what: str) -> None:
        """Say what is worked on now, such as a language; shown beside the description."""

    def expect(self, total: int) -> None:
        """Set the number of units, where it became known only after the start."""


class Progress(Protocol):
    """Where running work is shown."""

    def task(self, description: object, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: unknown) that ends with the context.

        The text of `description` is asked for whenever it is shown.
        """


@dataclass(frozen=True, slots=True)
class _Nothing:
    def advance(self, n: int = 1) -> None:
        """Show nothing."""

    def doing(self, what: str) -> None:
        """Show nothing."""

    def expect(self, total: int) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, description: object, total: int | None = None) -> Iterator[Task]:  # noqa: ARG002 - the protocol's
        yield _Nothing()


class Bars:
    """Bars drawn by rich on `file` (default: stderr); tasks opened inside a task are drawn below it.

    Nothing is drawn before work has gone on for `delay` seconds. `before` is called ahead of it: whoever writes to the
    same terminal can end the line there, which the bars would otherwise draw over.
    """

    def __init__(
        self, file: TextIO | None = None, *, delay: float = DELAY, before: Callable[[], None] = lambda: None
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=file or sys.stderr)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._delay = delay
        self._before = before
        self._open = 0
        self._began = self._ended = float("-inf")
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @contextmanager
    def task(self, description: object, total: int | None = None) -> Iterator[Task]:
        self._enter()
        identifier = self._bars.add_task(printable(str(description)), total=total)

        class Bar:
            def advance(_self, n: int = 1) -> None:  # noqa: N805 - `self` is the owner of the bars
                self._bars.advance(identifier, n)

            def doing(_self, what: str) -> None:  # noqa: N805 - same
                self._bars.update(identifier, description=printable(f"{description}  {what}"))

            def expect(_self, total: int) -> None:  # noqa: N805 - same
                self._bars.update(identifier, total=total)

        try:
            yield Bar()
        finally:
            self._bars.remove_task(identifier)
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            now = time.monotonic()
            if now - self._ended > PAUSE:
                self._began = now
            wait = self._delay - (now - self._began)
            if wait <= 0:
                self._start()
                return
            # A timer, because a single long step (loading a model) reports nothing in between.
            self._timer = threading.Timer(wait, self._show)
            self._timer.daemon = True
            self._timer.start()

    def _show(self) -> None:
        with self._lock:
            if self._open:
                self._start()

    def _start(self) -> None:
        self._before()
        self._bars.start()

    def _leave(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._bars.stop()
            self._ended = time.monotonic()


@dataclass(kw_only=True)
class _Line:
    """One task of a log: what it is, what it works on now, how much is done."""

    description: object
    total: int | None
    done: int = 0
    now: str = ""

    def advance(self, n: int = 1) -> None:
        self.done += n

    def doing(self, what: str) -> None:
        self.now = what

    def expect(self, total: int) -> None:
        self.total = total

    def __str__(self) -> str:
        count = "" if self.total is None else f" {self.done} of {self.total}"
        return " ".join(f"{self.description} {self.now}{count}".split())


class Lines:
    """A line on `file` (default: stderr) every `every` seconds while a task is open: all open tasks, outermost first.

    `before`: as for `Bars`.
    """

    def __init__(
        self, file: TextIO | None = None, *, every: float = EVERY, before: Callable[[], None] = lambda: None
    ) -> None:
        self._file = file or sys.stderr
        self._every = every
        self._before = before
        self._open: list[_Line] = []
        self._timer: threading.Timer | None = None
        self._last = time.monotonic()
        self._lock = threading.Lock()

    @contextmanager
    def task(self, description: object, total: int | None = None) -> Iterator[Task]:
        line = _Line(description=description, total=total)
        with self._lock:
            self._open.append(line)
            if self._timer is None:
                self._wait(self._every - (time.monotonic() - self._last))
        try:
            yield line
        finally:
            with self._lock:
                self._open.remove(line)
                if not self._open and self._timer is not None:
                    self._timer.cancel()
                    self._timer = None

    def _wait(self, seconds: float) -> None:
        # A timer, because a single long step (loading a model) reports nothing in between.
        self._timer = threading.Timer(max(seconds, 0.0), self._say)
        self._timer.daemon = True
        self._timer.start()

    def _say(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._last = time.monotonic()
            said = "; ".join(str(line) for line in self._open)
            with suppress(OSError, ValueError):  # whoever read the log has gone
                self._before()
                self._file.write(f"evenbits: {printable(said)}\n")
                self._file.flush()
            self._wait(self._every)


def progress_for(file: TextIO | None = None, *, before: Callable[[], None] = lambda: None) -> Progress:
    """Return bars where `file` (default: stderr) is a terminal, lines every half minute elsewhere."""
    file = file or sys.stderr
    return Bars(file, before=before) if file.isatty() else Lines(file, before=before)


def time_left(*, done: float, total: float, seconds: float, since: float = 0.0) -> str:
    """Return `about 3 min left`, judged by the `seconds` that `done` of `total` steps took.

    `since`: seconds gone since the last of them was done; a long step is no reason to believe that all of them are.
    Empty before the first is done, and where a step takes longer than all that was left.
    """
    if not 0 < done < total:
        return ""
    left = seconds / done * (total - done) - since
    if left <= 0:
        return ""
    return f"about {left / 60:.0f} min left" if left >= 90 else f"about {max(left, 1):.0f} s left"
