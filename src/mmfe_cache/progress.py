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


class Progress(Protocol):
    """A sink for progress and messages; the command line draws it with rich on stderr."""

    def task(
        self, title: str, total: int | None, unit: str = "samples"
    ) -> AbstractContextManager[Task]:
        """Open a piece of work of ``total`` units (None where it is not known)."""
        ...

    def message(self, text: str) -> None:
        """Tell the user one line."""
        ...

    def warn(self, text: str) -> None:
        """Warn the user in one line."""
        ...


class _SilentTask:
    def advance(self, amount: int = 1) -> None:
        pass


class SilentProgress:
    """Reports nothing: the default of every library function."""

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples"
    ) -> Generator[Task, None, None]:
        """Open a task that draws nothing."""
        yield _SilentTask()

    def message(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""
