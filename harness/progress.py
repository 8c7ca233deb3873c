"""Progress of long work, shown to whoever waits: silent, or a bar on a terminal.

Functions of the library take `progress: Progress | None` and never print. The bar stays quiet when stderr is not a
terminal, so that logs of a CI run hold no control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

__all__ = ["Bars", "Progress", "Silent", "Task", "progress_for"]


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, n: int = 1) -> None:
        """Report that `n` more units (tensors, bytes, segments) are done."""


class Progress(Protocol):
    """Where running work is shown."""

    def task(self, description: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: unknown) that ends with the context."""


@dataclass(frozen=True, slots=True)
class _Nothing:
    def advance(self, n: int = 1) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Task]:  # noqa: ARG002 - the protocol's
        yield _Nothing()


class Bars:
    """Bars drawn by rich on `file` (default: stderr); tasks opened inside a task are drawn below it."""

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where bars are drawn
        from rich.progress import Progress as RichProgress  # noqa: PLC0415 - same

        self._bars = RichProgress(console=Console(file=file or sys.stderr), transient=True)
        self._open = 0

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Task]:
        if self._open == 0:
            self._bars.start()
        self._open += 1
        identifier = self._bars.add_task(description, total=total)

        class Bar:
            def advance(_self, n: int = 1) -> None:  # noqa: N805 - `self` is the owner of the bars
                self._bars.advance(identifier, n)

        try:
            yield Bar()
        finally:
            self._bars.remove_task(identifier)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()


def progress_for(file: TextIO | None = None) -> Progress:
    """Return bars where `file` (default: stderr) is a terminal, silence elsewhere."""
    file = file or sys.stderr
    return Bars(file) if file.isatty() else Silent()
