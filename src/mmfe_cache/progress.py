"""What long work reports to whoever watches; the library itself draws nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


class Task:
    """One running piece of work; this one reports nothing."""

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` further units as done."""

    def describe(self, text: str, seconds_left: float | None = None) -> None:
        """Say how the work goes, such as its loss and rate.

        Args:
            text: a few words that stand beside the count.
            seconds_left: until the end, where the work knows better than its count tells.
        """


class Progress:
    """A sink for progress and messages; the command line draws it with rich on stderr.

    This one reports nothing: the default of every library function.
    """

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
        return nullcontext(Task())

    def message(self, text: str) -> None:
        """Tell the user one line."""

    def warn(self, text: str) -> None:
        """Warn the user in one line."""


def format_seconds(seconds: float) -> str:
    """A span of time for people, such as ``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{max(0, int(seconds))} s"
    return f"{int(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
