"""How far long work has come: bars, lines in a log, and nothing where nobody wants it."""

from __future__ import annotations

import io
import sys
import time
from types import SimpleNamespace

from rich.progress import Task

from mmfe_cli import output
from mmfe_cli.progress import Remaining


def test_progress_without_a_terminal_writes_plain_lines_to_stderr(capsys):
    progress = output.console_progress()
    with progress.task("encoding", total=3) as task:
        task.advance()
    progress.warn("slow disk")
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.splitlines() == ["encoding", "warning: slow disk"]


def test_of_several_processes_all_but_the_first_only_warn(capsys):
    progress = output.console_progress(first=False)
    with progress.task("encoding", total=3) as task:
        task.advance()
    progress.message("hello")
    progress.warn("haze/00005 is left out")
    assert capsys.readouterr().err == "warning: haze/00005 is left out\n"


def test_quiet_leaves_warnings(capsys, monkeypatch):
    monkeypatch.setattr(output.VERBOSITY, "quiet", True)
    progress = output.console_progress()
    with progress.task("encoding", total=3):
        progress.message("hello")
    progress.warn("slow disk")
    assert capsys.readouterr().err == "warning: slow disk\n"


def test_a_long_title_is_one_line_in_a_pipe(capsys):
    title = "reading " + "a long folder/" * 20
    with output.console_progress().task(title, total=1):
        pass
    assert capsys.readouterr().err.splitlines() == [title]


def test_what_forces_colours_draws_no_bars_in_a_log(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    progress = output.console_progress()
    with progress.task("encoding", total=3) as task:
        task.advance()
        progress.message("hello")
    assert capsys.readouterr().err.splitlines() == ["encoding", "hello"]


def test_a_task_within_another_leaves_no_bar_behind(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = output.console_progress()
    with progress.task("restoring", total=2):
        for name in ("a.jpg", "b.jpg"):
            with progress.task(name, total=9):
                assert [task.description for task in progress._bar.tasks] == ["restoring", name]
        assert [task.description for task in progress._bar.tasks] == ["restoring"]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_log_gets_a_line_every_half_minute(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    with output.console_progress().task("encoding", total=1000, unit="embeddings") as task:
        for _ in range(12):
            clock.now += 10
            task.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "encoding",
        "encoding: 30 of 1,000 embeddings, 16 min left",
        "encoding: 60 of 1,000 embeddings, 15 min left",
        "encoding: 90 of 1,000 embeddings, 15 min left",
        "encoding: 120 of 1,000 embeddings, 14 min left",
    ]


def test_a_log_says_what_the_work_says_of_itself(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    progress = output.console_progress()
    with progress.task("training", total=200, unit="steps", done=100) as task:
        clock.now = 20.0
        task.advance(50)
        task.describe("loss 0.0421, 38 images/s")
        task.describe("loss 0.0400, 38 images/s", 7300.0)
        clock.now += 100.0  # between its words it is held to the last one, until that is over
        task.advance(1)
        clock.now += 8000.0
        task.advance(1)
    # The hundred steps of before took no time of this call.
    assert capsys.readouterr().err.splitlines()[1:] == [
        "training: 150 of 200 steps, loss 0.0421, 38 images/s, 20 s left",
        "training: 150 of 200 steps, loss 0.0400, 38 images/s, 2.0 h left",
        "training: 151 of 200 steps, 2.0 h left",
        "training: 152 of 200 steps",
    ]


def test_a_bar_shows_the_time_left_by_the_works_own_word(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    column = Remaining()
    task = SimpleNamespace(fields={"ends": clock.now + 3725.0}, finished=False)
    assert str(column.render(task)) == "1:02:05"
    clock.now += 4000.0
    assert str(column.render(task)) == "0:00:00"
    counted = Task(0, "training", 100, 50, _get_time=clock, fields={"ends": None})
    assert str(column.render(counted)) == "-:--:--"


def test_work_of_unknown_length_promises_no_end(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    with output.console_progress().task("reading", total=None) as task:
        clock.now = 31.0
        task.advance(5)
    assert capsys.readouterr().err.splitlines() == ["reading", "reading: 5 samples"]


def test_quiet_draws_no_progress(capsys, monkeypatch):
    monkeypatch.setattr(output.VERBOSITY, "quiet", True)
    with output.console_progress().task("training", total=2) as task:
        task.advance()
        task.describe("loss 1")
    assert capsys.readouterr().err == ""
