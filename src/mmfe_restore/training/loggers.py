"""Where a run's numbers go: CSV and TensorBoard always, Weights & Biases when asked."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mmfe_cache.io import write_file
from mmfe_restore.recipes import recipe_to_dict
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.run_dir import METRICS

COLUMNS = (
    "epoch",
    "stage",
    "resolution",
    "batch_size",
    "learning_rate",
    "loss",
    "l1",
    "fourier",
    "mgl",
    "images_per_second",
    "data_wait",
)
"""Of metrics.csv, after ``step``; ``data_wait`` is a share of the time, 0 to 1."""


def loggers(recipe: Recipe, out: Path, step: int, wandb: str | None) -> list[Logger]:
    """The loggers of a run that starts or goes on at ``step``.

    Args:
        recipe: goes to Weights & Biases as the configuration.
        out: the run's folder; TensorBoard's events stand in ``tensorboard/`` below it.
        step: rows and events after it belong to a run that was lost, and go.
        wandb: the Weights & Biases project; None does without.
    """
    # TensorBoard ends a purged range at the step it is given, that step included.
    board = TensorBoardLogger(out, name="", version="tensorboard", purge_step=step + 1)
    chosen: list[Logger] = [CsvTable(out / METRICS, COLUMNS, step), board]
    if wandb is not None:
        # The same folder is the same run, also after a resume.
        identity = hashlib.blake2b(str(out.resolve()).encode(), digest_size=8).hexdigest()
        logger = WandbLogger(
            name=out.name, save_dir=out, project=wandb, id=identity, resume="allow"
        )
        logger.log_hyperparams(recipe_to_dict(recipe))
        chosen.append(logger)
    return chosen


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
