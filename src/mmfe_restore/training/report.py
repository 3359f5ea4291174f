"""What one call of `train` came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmfe_cache.guides.base import guide_calls
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training import run_dir
from mmfe_restore.training.checkpoints import list_checkpoints
from mmfe_restore.training.inputs import Inputs
from mmfe_restore.training.loggers import LoggingCallback
from mmfe_restore.training.machine import Machine


@dataclass(frozen=True)
class TrainReport:
    """The outcome of one call of `train`.

    Attributes:
        out: the run's folder.
        checkpoint: the ``model/`` folder of a completed run, else the newest checkpoint.
        recipe: the recipe's name.
        steps: optimiser steps of the run so far, those before a resume included.
        total_steps: optimiser steps of the whole schedule.
        resumed_from: the step that this call went on from; 0 for a fresh start.
        seconds: of training in this call.
        images: seen by all processes in this call.
        images_per_second: their rate.
        data_wait: share of the time that training waited for data, 0 to 1.
        loss: the last logged loss; None where this call made no step.
        guide_calls: samples that any guide encoded in this process during the call.
        completed: whether the schedule's end was reached.
        stopped_by: what ended it before, such as ``"SIGTERM"``.
        validation: the last validation's mean PSNR in dB; None without validation.
        rank: of this process; 0 is the one that reports.
    """

    out: Path
    checkpoint: Path | None
    recipe: str
    steps: int
    total_steps: int
    resumed_from: int
    seconds: float
    images: int
    images_per_second: float
    data_wait: float
    loss: float | None
    guide_calls: int
    completed: bool
    stopped_by: str | None = None
    validation: float | None = None
    rank: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, paths as text."""
        values = asdict(self)
        values["out"] = str(self.out)
        values["checkpoint"] = None if self.checkpoint is None else str(self.checkpoint)
        return values


def report_of(
    recipe: Recipe,
    inputs: Inputs,
    out: Path,
    start: int,
    done: int,
    calls_before: int,
    *,
    watch: LoggingCallback | None = None,
    stopped_by: str | None = None,
    validation: float | None = None,
) -> TrainReport:
    """The outcome of a call that went on from step ``start`` and ended at step ``done``.

    Args:
        recipe: what was trained.
        inputs: what it was trained on.
        out: the run's folder.
        start: 0 for a fresh start.
        done: the run's optimiser steps, those before ``start`` included.
        calls_before: of guides in this process, before the call.
        watch: what measured the training; None where this call made no step.
        stopped_by: as in `TrainReport`.
        validation: as in `TrainReport`.
    """
    seconds = 0.0 if watch is None else watch.seconds
    images = 0 if watch is None else watch.images
    model = out / run_dir.MODEL
    newest = list_checkpoints(out / run_dir.CHECKPOINTS)
    # Not by looking for the folder, which another node may see late: SLURM would requeue the run.
    completed = stopped_by is None and done >= inputs.schedule.steps
    return TrainReport(
        out=out,
        checkpoint=model if completed else (newest[0] if newest else None),
        recipe=recipe.name,
        steps=done,
        total_steps=inputs.schedule.steps,
        resumed_from=start,
        seconds=seconds,
        images=images,
        images_per_second=images / seconds if seconds else 0.0,
        data_wait=0.0 if watch is None else watch.data_wait,
        loss=None if watch is None else watch.last.get("loss"),
        guide_calls=guide_calls() - calls_before,
        completed=completed,
        stopped_by=stopped_by,
        validation=validation,
        rank=Machine.detect().rank,
    )
