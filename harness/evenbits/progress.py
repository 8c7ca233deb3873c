"""Progress of long work, shown to whoever waits: silent, or bars on a terminal.

Functions of the library take `progress: Progress | None` and never print. Bars stay quiet when stderr is not a
terminal, so that logs of a CI run hold no control characters, and appear only where somebody has waited a while.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from evenbits.printable import printable

__all__ = ["Bars", "Progress", "Silent", "Task", "progress_for", "time_left"]

DELAY = 1.0
"""Seconds of work before anything is drawn: bars that flash up and go are noise."""

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

    def task(self, description: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: unknown) that ends with the context."""


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
    def task(self, description: str, total: int | None = None) -> Iterator[Task]:  # noqa: ARG002 - the protocol's
        yield _Nothing()


class Bars:
    """Bars drawn by rich on `file` (default: stderr); tasks opened inside a task are drawn below it.

    Nothing is drawn before work has gone on for `delay` seconds. `before` is called ahead of it: whoever writes to the
    same terminal can end the line there, which the bars would otherwise draw over.
    """

    def __init__(
        self, file: TextIO | None = None, *, delay: float = DELAY, before: Callable[[], None] = lambda: None
    ) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where bars are drawn
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - same
        from rich.progress import Progress as RichProgress  # noqa: PLC0415 - same

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
    def task(self, description: str, total: int | None = None) -> Iterator[Task]:
        self._enter()
        identifier = self._bars.add_task(printable(description), total=total)

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


def progress_for(file: TextIO | None = None, *, before: Callable[[], None] = lambda: None) -> Progress:
    """Return bars where `file` (default: stderr) is a terminal, silence elsewhere."""
    file = file or sys.stderr
    return Bars(file, before=before) if file.isatty() else Silent()


def time_left(*, done: int, total: int, seconds: float) -> str:
    """Return `about 3 min left`, judged by how long `done` of `total` steps took; empty before the first is done."""
    if not 0 < done < total:
        return ""
    left = seconds / done * (total - done)
    return f"about {left / 60:.0f} min left" if left >= 90 else f"about {max(left, 1):.0f} s left"
