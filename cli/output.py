"""What the commands print: data on stdout, progress and messages on stderr."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .tables import print_table as print_table
from .tables import screen, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

    from mmfe_cache.progress import Progress


@dataclass
class Verbosity:
    """The global switches of this process, and whether it was told of an interruption.

    Attributes:
        quiet: ``--quiet``.
        debug: ``--debug``.
        told: an interruption was reported already.
        step: of `mmfe demo`, whose commands run in this process; empty outside of it.
    """

    quiet: bool = False
    debug: bool = False
    told: bool = False
    step: str = ""


VERBOSITY = Verbosity()


def write_any_name() -> None:
    """Let both streams print every file name: as its own bytes, or with ? for what they lack."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if unicode else "replace")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write one JSON document to stdout; non-finite numbers become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # such as a file name that is no UTF-8: escaped, it is JSON still
        text = json.dumps(_finite(value), indent=2)
    print_line(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def signed(value: float | None, digits: int = 2) -> str | None:
    """A difference with its sign; None, an empty cell, where there is none."""
    return None if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def print_line(text: str) -> None:
    """Write one line for people to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_wrapped(text: str) -> None:
    """Write a sentence for people to stdout, wrapped at its words where there is a width.

    Not for commands and paths that are to be copied: those stay in one line, by `print_line`.
    """
    print_line("\n".join(wrapped(text, screen(sys.stdout))))


def note(text: str) -> None:
    """Write one line for people to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def remark(text: str) -> None:
    """Write ``note:`` and a sentence to stderr, wrapped at its words where there is a width."""
    note("\n".join(wrapped(f"note: {text}", screen(sys.stderr))))


def note_repeated(overrides: Sequence[str]) -> None:
    """Say which keys ``--set`` was given for more than once."""
    from mmfe_restore.recipes.loading import repeated_keys

    for key in repeated_keys(overrides):
        remark(f"{key} is set more than once; the last value counts")


def error(text: str) -> None:
    """Write an error message to stderr."""
    sys.stderr.write(f"mmfe: {text}\n")


LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class _BarTask:
    def __init__(self, bar: RichBar, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: int = 1) -> None:
        self._bar.advance(self._task, amount)

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        self._bar.update(self._task, said=text)
        if seconds_left is not None:
            self._bar.update(self._task, ends=time.monotonic() + seconds_left)


class _LineTask:
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
        from mmfe_cache.progress import format_seconds

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


class _QuietTask:
    def advance(self, amount: int = 1) -> None:
        pass

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        pass


class ConsoleProgress:
    """Draws progress bars on a terminal's stderr; writes plain lines where there is none."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True)
        self._bar: RichBar | None = None

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples", done: int = 0
    ) -> Generator[_BarTask | _LineTask | _QuietTask, None, None]:
        """Show ``title`` with rate and time left until the block ends."""
        if VERBOSITY.quiet:
            yield _QuietTask()
            return
        if not self._console.is_terminal:
            self.message(title)
            yield _LineTask(self.message, title, total, unit, done)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from .remaining import Remaining

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

    def message(self, text: str) -> None:
        """Write one line to stderr unless ``--quiet``."""
        if not VERBOSITY.quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Write one warning to stderr, also under ``--quiet``; wrapped as `remark` does."""
        first, *further = f"warning: {text}".split("\n")
        said = "\n".join([*wrapped(first, screen(sys.stderr)), *further])
        self._console.print(said, markup=False, highlight=False, soft_wrap=True)


def take_threads() -> None:
    """Choose how many threads this process computes on, once, and say so on stderr."""
    global _threads_taken
    import torch

    from mmfe_cache.machine import choose_threads, has_gpu

    if _threads_taken or has_gpu():  # on a GPU the CPU's threads hardly count
        return
    _threads_taken = True
    chosen = choose_threads()
    torch.set_num_threads(chosen.count)
    if not VERBOSITY.quiet:
        note(str(chosen))


_threads_taken = False


def console_progress() -> Progress:
    """The progress sink of the command line."""
    return ConsoleProgress()
