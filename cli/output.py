"""What the commands print: data on stdout, progress and messages on stderr."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .tables import print_table as print_table

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
    """

    quiet: bool = False
    debug: bool = False
    told: bool = False


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
    say(text)


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


def say(text: str) -> None:
    """Write one line for people to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write one line for people to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def note_repeated(overrides: Sequence[str]) -> None:
    """Say which keys ``--set`` was given for more than once."""
    from mmfe_restore.recipes.overrides import repeated_keys

    for key in repeated_keys(overrides):
        note(f"note: {key} is set more than once; the last value counts")


def error(text: str) -> None:
    """Write an error message to stderr."""
    sys.stderr.write(f"mmfe: {text}\n")


class _BarTask:
    def __init__(self, bar: RichBar, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: int = 1) -> None:
        self._bar.advance(self._task, amount)


class _QuietTask:
    def advance(self, amount: int = 1) -> None:
        pass


class ConsoleProgress:
    """Draws progress bars on a terminal's stderr; writes plain lines where there is none."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True)
        self._bar: RichBar | None = None

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples"
    ) -> Generator[_BarTask | _QuietTask, None, None]:
        """Show ``title`` with rate and time left until the block ends."""
        if VERBOSITY.quiet or not self._console.is_terminal:
            if not VERBOSITY.quiet:
                self._console.print(title, markup=False, highlight=False, soft_wrap=True)
            yield _QuietTask()
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        outermost = self._bar is None
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
        task = self._bar.add_task(title, total=total, unit=unit)
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
        """Write one warning line to stderr, also under ``--quiet``."""
        self._console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def console_progress() -> Progress:
    """The progress sink of the command line."""
    return ConsoleProgress()
