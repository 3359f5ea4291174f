"""What long work reports to whoever watches; the library itself draws nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` further units as done."""
        ...

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        """Say how the work goes, such as its loss and rate.

        Args:
            text: a few words that stand beside the count.
            seconds_left: until the end, where the work knows better than its count tells.
        """
        ...


class Progress(Protocol):
    """A sink for progress and messages; the command line draws it with rich on stderr."""

    def task(
        self, title: str, total: int | None, unit: str = "samples", done: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a piece of work.

        Args:
            title: what is done.
            total: how many units; None where it is not known.
            unit: what is counted, in the plural.
            done: units that an earlier call has done.
        """
        ...

    def message(self, text: str) -> None:
        """Tell the user one line."""
        ...

    def warn(self, text: str) -> None:
        """Warn the user in one line."""
        ...


class SilentTask:
    """Reports nothing."""

    def advance(self, amount: int = 1) -> None:
        """Drop the count."""

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        """Drop the words."""


class SilentProgress:
    """Reports nothing: the default of every library function."""

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples", done: int = 0
    ) -> Generator[Task, None, None]:
        """Open a task that draws nothing."""
        yield SilentTask()

    def message(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""


def format_seconds(seconds: float) -> str:
    """A span of time for people, such as ``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{max(0, int(seconds))} s"
    return f"{int(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
