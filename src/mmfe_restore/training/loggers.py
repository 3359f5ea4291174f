"""What a run writes down, and where: CSV and TensorBoard always, Weights & Biases when asked."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from mmfe_cache.io import write_file
from mmfe_cache.progress import Progress, Task, format_seconds
from mmfe_restore.data import Batch, TrainingBatches
from mmfe_restore.recipes import recipe_to_dict
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.run_dir import METRICS, wandb_id

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
        logger = WandbLogger(
            name=out.name, save_dir=out, project=wandb, id=wandb_id(out), resume="allow"
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
        """Append one row; values without a column are left out, and so is an empty row."""
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


ESTIMATE_AFTER = 60.0
"""Seconds of training after which it is said when the run will end."""


def router_columns(recipe: Recipe) -> tuple[str, ...]:
    """Of router.csv, after ``step``: the site, its loss, and statistics of its weights."""
    experts = (f"expert_{i}" for i in range(recipe.model.num_experts))
    return ("site", "mgl", "mean", "spread", *experts)


class LoggingCallback(Callback):
    """Logs a row every ``train.log_every`` steps and moves the progress bar.

    Lightning's ThroughputMonitor is not used: it waits for the GPU after every step.

    Args:
        batches: whose waiting time is reported.
        task: the progress bar.
        router: the table of the routers' weights.
        progress: where to say when the run will end, once a minute of it has passed.

    Attributes:
        images: seen so far by all processes together.
        last: the last logged row.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        task: Task,
        router: CsvTable,
        progress: Progress | None = None,
    ) -> None:
        self._batches, self._task, self._router = batches, task, router
        self._progress = Progress() if progress is None else progress
        self._settled: tuple[float, int] | None = None
        self._end_said = False
        self._window = (0.0, 0.0, 0)
        self._rate = 0.0
        self._started = 0.0
        self.images = 0
        self.last: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds since the first step began."""
        return time.perf_counter() - self._started if self._started else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time so far that training waited for data, 0 to 1."""
        return min(1.0, self._batches.waited / self.seconds) if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._window = (self._started, self._batches.waited, 0)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Note the learning rate of this step: afterwards the optimiser has that of the next."""
        self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count, and log where it is time."""
        assert isinstance(pl_module, RestorationTask)
        self.images += len(batch) * trainer.world_size
        if trainer.fit_loop._should_accumulate():  # pyright: ignore[reportPrivateUsage]
            return
        self._task.advance(1)
        step = trainer.global_step
        if self._settled is None:  # the first step also compiles and fills the loader
            self._settled = (time.perf_counter(), step)
        if not self._end_said and self.seconds >= ESTIMATE_AFTER:
            self._say_end(pl_module, step)
        if step % pl_module.recipe.train.log_every and step != pl_module.schedule.steps:
            return
        self._log(trainer, pl_module, step)

    def seconds_left(self, task: RestorationTask, step: int) -> float | None:
        """Seconds until the end of the run; None before there is a step to judge by.

        Steps of later stages take other times, so pixels are counted and not steps.
        """
        if self._settled is None or step <= self._settled[1]:
            return None
        then, first = self._settled
        per_pixel = (time.perf_counter() - then) / task.schedule.pixels(first, step)
        return per_pixel * task.schedule.pixels(step, task.schedule.steps)

    def _say_end(self, task: RestorationTask, step: int) -> None:
        left = self.seconds_left(task, step)
        if left is None:
            return
        self._end_said = True
        end = time.strftime("%A %d %B, %H:%M", time.localtime(time.time() + left))
        self._progress.message(
            f"at this rate the run ends on {end}, in {format_seconds(left)}: step {step:,} of "
            f"{task.schedule.steps:,} now"
        )

    def _log(self, trainer: Trainer, task: RestorationTask, step: int) -> None:
        plan = task.schedule.stage_at(step - 1)
        parts = task.micro_batches
        row = {name: float(_mean(trainer, value)) / parts for name, value in task.terms.items()}
        task.require_finite_loss(row["loss"], trainer.global_step)
        now, waited = time.perf_counter(), self._batches.waited
        then, waited_then, images_then = self._window
        self._window = (now, waited, self.images)
        elapsed = max(now - then, 1e-9)
        row |= {
            "epoch": task.schedule.epoch(step),
            "stage": plan.index + 1,
            "resolution": plan.stage.resolution,
            "batch_size": plan.stage.batch_size,
            "learning_rate": self._rate,
            "images_per_second": (self.images - images_then) / elapsed,
            "data_wait": (waited - waited_then) / elapsed,
        }
        self.last = row
        self._task.describe(
            f"loss {row['loss']:.4f}, {row['images_per_second']:.3g} images/s",
            self.seconds_left(task, step),
        )
        self._log_routing(trainer, task, step, row)
        for logger in trainer.loggers:
            logger.log_metrics(row, step)

    def _log_routing(
        self, trainer: Trainer, task: RestorationTask, step: int, row: dict[str, float]
    ) -> None:
        for site, weights in task.routing.items():
            means = weights.float().mean(0)
            entry: dict[str, float | str] = {
                "site": site,
                "mgl": row[f"mgl/{site}"],
                "mean": float(means.mean()),
                # How differently the samples of a batch are routed; 0 means a dead router.
                "spread": float(weights.float().std(0, correction=0).mean()),
                **{f"expert_{i}": float(value) for i, value in enumerate(means)},
            }
            row |= {f"router/{site}/{k}": float(entry[k]) for k in ("mean", "spread")}
            self._router.log_metrics(entry, step)


def _mean(trainer: Trainer, value: Tensor) -> Tensor:
    """The mean over processes; each saw an equal share of the global batch."""
    if trainer.world_size == 1:
        return value
    reduced = trainer.strategy.reduce(value, reduce_op="mean")
    assert isinstance(reduced, Tensor)
    return reduced
