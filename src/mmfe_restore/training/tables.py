"""metrics.csv and router.csv: Lightning loggers that go on after a resume."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mmfe_cache.io import write_file


class CsvTable(Logger):
    """Appends rows to one CSV file; the column ``step`` comes first.

    Lightning's own CSVLogger deletes the earlier rows when a run resumes.

    Args:
        path: the file.
        columns: after ``step``; a row leaves blank what it does not have.
        resume_step: rows after this optimiser step are of a run that was lost: they go.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume_step: int) -> None:
        super().__init__()
        self._path, self._columns = path, ("step", *columns)
        self._resume_step = resume_step
        self._ready = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def version(self) -> str:
        """Always empty: a run has one table."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the recipe stands beside the table."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | str], step: int | None = None) -> None:
        """Append one row; values that are no column are left out, and so is an empty row."""
        if not any(name in self._columns for name in metrics):
            return
        if not self._ready:
            self._prepare()
        row = [step, *(metrics.get(name, "") for name in self._columns[1:])]
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            # repr keeps every bit of a float, so that two runs can be compared exactly.
            csv.writer(stream).writerow(repr(v) if isinstance(v, float) else v for v in row)

    def _prepare(self) -> None:
        rows: list[list[str]] = []
        if self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as stream:
                read = list(csv.reader(stream))
            if read and tuple(read[0]) == self._columns:
                # A killed process may have left half a line.
                rows = [r for r in read[1:] if len(r) == len(self._columns) and self._stays(r[0])]
        lines = [",".join(row) for row in (list(self._columns), *rows)]
        write_file(self._path, "\r\n".join(lines) + "\r\n")
        self._ready = True

    def _stays(self, step: str) -> bool:
        return step.isdigit() and int(step) <= self._resume_step
