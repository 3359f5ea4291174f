"""What a finished, stopped or taken-up run says of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
