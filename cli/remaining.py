"""The progress bar's column of the time left."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.progress import Task, TimeRemainingColumn
from rich.text import Text


class Remaining(TimeRemainingColumn):
    """Time left by the work's own word where it has said one (``ends``), else by the count."""

    def render(self, task: Task) -> Text:
        """Hours, minutes and seconds."""
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return super().render(task)
        left = timedelta(seconds=max(0, int(ends - time.monotonic())))
        return Text(str(left), style="progress.remaining")
