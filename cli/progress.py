"""Progress of long work on stderr: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task as RichTask,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mmfe_cache.progress import Progress as Reports, Task, format_seconds

from .output import VERBOSITY
from .tables import screen, wrapped

LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class _BarTask(Task):
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: int = 1) -> None:
        self._bar.advance(self._task, amount)

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        self._bar.update(self._task, said=text)
        if seconds_left is not None:
            self._bar.update(self._task, ends=time.monotonic() + seconds_left)


class _LineTask(Task):
    """A line now and then, for logs: how far, how fast, how long still."""

    def __init__(
        self, say: Callable[[str], None], title: str, total: int | None, unit: str, done: int
    ) -> None:
        self._say, self._title, self._total, self._unit = say, title, total, unit
        self._done = self._began_with = done
        self._started = self._said_at = time.monotonic()
        self._ends: float | None = None

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if time.monotonic() - self._said_at >= LINE_EVERY:
            self._line("")

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        if seconds_left is not None:
            self._ends = time.monotonic() + seconds_left
        self._line(f", {text}")

    def _line(self, said: str) -> None:
        now = time.monotonic()
        self._said_at = now
        new, total = self._done - self._began_with, self._total
        of = "" if total is None else f" of {total:,}"
        left = None
        if self._ends is not None:  # by the work's own word, until it says another
            left = self._ends - now
        elif total is not None and new > 0:
            left = (total - self._done) * (now - self._started) / new
        ends = "" if left is None or left < 0 else f", {format_seconds(left)} left"
        self._say(f"{self._title}: {self._done:,}{of} {self._unit}{said}{ends}")


class Remaining(TimeRemainingColumn):
    """Time left by the work's own word where it has said one (``ends``), else by the count."""

    def render(self, task: RichTask) -> Text:
        """Hours, minutes and seconds."""
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return super().render(task)
        left = timedelta(seconds=max(0, int(ends - time.monotonic())))
        return Text(str(left), style="progress.remaining")


class ConsoleProgress(Reports):
    """Draws progress bars on a terminal's stderr; writes plain lines where there is none."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples", done: int = 0
    ) -> Generator[Task]:
        """Show ``title`` with rate and time left until the block ends."""
        if VERBOSITY.quiet:
            yield Task()
            return
        # FORCE_COLOR, which CI sets, makes rich take a log for a terminal.
        if not (self._console.is_terminal and sys.stderr.isatty()):
            self.message(title)
            yield _LineTask(self.message, title, total, unit, done)
            return
        outermost = self._bar is None
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]} {task.fields[said]}"),
                Remaining(),
                console=self._console,
            )
            self._bar.start()
        task = self._bar.add_task(title, total=total, completed=done, unit=unit, said="", ends=None)
        try:
            yield _BarTask(self._bar, task)
        finally:
            if outermost:
                self._bar.stop()
                self._bar = None
            else:  # a photograph's in the bar of them all: that one stays
                self._bar.remove_task(task)

    def message(self, text: str) -> None:
        """Write one line to stderr unless ``--quiet``."""
        if not VERBOSITY.quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Write one warning to stderr, also under ``--quiet``; wrapped as `remark` does."""
        first, *further = f"warning: {text}".split("\n")
        said = "\n".join([*wrapped(first, screen(sys.stderr)), *further])
        self._console.print(said, markup=False, highlight=False, soft_wrap=True)


class OnlyWarnings(Reports):
    """Of a process beside the first, which draws the progress of all."""

    def warn(self, text: str) -> None:
        """Write one warning to stderr, as the first process does."""
        ConsoleProgress().warn(text)
