"""What a run writes down as it goes: losses, rate, data wait and routing."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mmfe_cache.progress import Progress, SilentProgress, Task, format_seconds
from mmfe_restore.data import Batch, TrainingBatches
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.callbacks.failures import require_finite_loss
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.loggers import CsvTable

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
        progress: is told when the run will end, once a minute of it has passed.

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
        self._progress = SilentProgress() if progress is None else progress
        self._settled: tuple[float, int] | None = None
        self._end_said = False
        self._window = (0.0, 0.0, 0)
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
        require_finite_loss(trainer, row["loss"], task)
        now, waited = time.perf_counter(), self._batches.waited
        then, waited_then, images_then = self._window
        self._window = (now, waited, self.images)
        elapsed = max(now - then, 1e-9)
        row |= {
            "epoch": task.schedule.epoch(step),
            "stage": plan.index + 1,
            "resolution": plan.stage.resolution,
            "batch_size": plan.stage.batch_size,
            "learning_rate": task.recipe.train.learning_rate
            * task.schedule.learning_rate(step - 1),
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
