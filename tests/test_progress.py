"""Progress: bars on terminals after a while, lines in logs now and then; nested tasks end with their context."""

from __future__ import annotations

import io
import threading

import pytest
from evenbits import progress as module
from evenbits.progress import Bars, Lines, Silent, progress_for, time_left


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_silence_says_nothing(capsys):
    with Silent().task("work", 3) as task:
        task.doing("ug")
        task.expect(4)
        task.advance()
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_now_and_then_with_every_open_task():
    file = io.StringIO()
    progress = Lines(file, every=0.05)
    with progress.task("eval 3 of 30") as outer, progress.task("Measuring") as inner:
        outer.advance()
        inner.expect(40)
        inner.doing("Uyghur\x1b[31m")
        inner.advance(12)
        wait_for("of 40", file)
    lines = file.getvalue().splitlines()
    assert "evenbits: eval 3 of 30; Measuring Uyghur\\x1b[31m 12 of 40" in lines


def test_a_log_of_short_work_stays_empty_and_of_long_work_says_so_also_between_tasks():
    file = io.StringIO()
    with Lines(file).task("short", 2) as task:
        task.advance()
    assert file.getvalue() == ""
    progress = Lines(file, every=0.3)
    for _ in range(600):  # each task is over long before a line is due
        with progress.task("one of many"):
            threading.Event().wait(0.01)
        if file.getvalue():
            break
    assert file.getvalue().startswith("evenbits: one of many")


def test_a_log_nobody_reads_any_more_ends_nothing():
    file = io.StringIO()
    progress = Lines(file, every=0.01)
    with progress.task("work"):
        file.close()
        threading.Event().wait(0.05)


def test_a_terminal_gets_the_description_what_is_worked_on_and_a_count(terminal):
    progress = Bars(terminal, delay=0)
    with progress.task("Reading tensors", 2) as outer, progress.task("inside") as inner:
        outer.advance()
        inner.expect(7)
        inner.doing("Uyghur")
        inner.advance(5)
        wait_for("5/7", terminal)  # bars are drawn ten times a second
    shown = terminal.getvalue()
    assert "Reading tensors" in shown
    assert "inside  Uyghur" in shown
    assert "1/2" in shown
    assert "5/7" in shown


def test_short_work_draws_nothing(terminal):
    progress = Bars(terminal, delay=3600)
    with progress.task("short", 2) as task:
        task.advance()
    assert terminal.getvalue() == ""


def test_long_work_is_drawn_also_where_it_reports_nothing(terminal):
    progress = Bars(terminal, delay=0.2)
    with progress.task("long"):
        wait_for("long", terminal)


def test_many_short_tasks_in_a_row_are_long_work(terminal, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Bars(terminal, delay=5)
    for seconds in range(7):  # without a pause between them
        assert (terminal.getvalue() == "") is (seconds <= 5)  # drawn by the task that starts after five
        with progress.task("one of many", 1) as task:
            now[0] += 1.0
            task.advance()
    assert "one of many" in terminal.getvalue()


def wait_for(text, terminal):
    for _ in range(600):
        if text in terminal.getvalue():
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{text} was not drawn: {terminal.getvalue()!r}")


def test_whoever_shares_the_terminal_is_told_before_bars_are_drawn(terminal):
    progress = Bars(terminal, delay=0, before=lambda: terminal.write("line ended\n"))
    with progress.task("work", 1) as task:
        task.advance()
        wait_for("work", terminal)
    assert terminal.getvalue().index("line ended") < terminal.getvalue().index("work")


def test_bars_can_be_used_again_after_an_error(terminal):
    progress = Bars(terminal)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), progress.task("fails", 1) as task:
            task.advance(1 // 0)
    assert progress._open == 0
    assert progress._bars.tasks == []


def test_a_terminal_is_recognised(terminal):
    assert isinstance(progress_for(terminal), Bars)
    assert isinstance(progress_for(io.StringIO()), Lines)


@pytest.mark.parametrize(
    ("done", "seconds", "words"),
    [
        (0, 5.0, ""),  # nothing to judge by
        (1, 10.0, "about 30 s left"),  # 3 more of 10 s
        (2, 600.0, "about 10 min left"),  # 2 more of 300 s
        (4, 10.0, ""),  # all is done
    ],
)
def test_the_time_left_is_judged_by_what_is_done(done, seconds, words):
    assert time_left(done=done, total=4, seconds=seconds) == words


@pytest.mark.parametrize(("since", "words"), [(0, "about 10 min left"), (240, "about 6 min left"), (600, "")])
def test_a_long_step_does_not_put_off_the_end(since, words):
    assert time_left(done=2, total=4, seconds=600, since=since) == words
