"""Progress is shown on terminals only, and nested tasks end with their context."""

from __future__ import annotations

import io

import pytest

from harness.progress import Bars, Silent, progress_for


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_that_is_no_terminal_gets_nothing():
    file = io.StringIO()
    progress = progress_for(file)
    assert isinstance(progress, Silent)
    with progress.task("work", 3) as task:
        task.advance()
    assert file.getvalue() == ""


def test_a_terminal_gets_the_description(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    progress = progress_for(file)
    assert isinstance(progress, Bars)
    with progress.task("Reading tensors", 2) as outer, progress.task("inside") as inner:
        outer.advance()
        inner.advance(5)
    assert "Reading tensors" in file.getvalue()


def test_bars_can_be_used_again_after_an_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    progress = Bars(Terminal())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), progress.task("fails", 1) as task:
            task.advance(1 // 0)
    assert progress._open == 0
    assert progress._bars.tasks == []
