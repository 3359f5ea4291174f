"""How a run sits on its machine: processes, device, precision, workers, compilation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from mmfe_cache.errors import UsageError
from mmfe_cache.machine import Processes
from mmfe_restore.recipes.schema import Recipe


@dataclass(frozen=True)
class Machine:
    """Where this process stands and what it runs on.

    Attributes:
        rank: of this process among all.
        world_size: processes in the run.
        devices: processes on this node.
        nodes: machines in the run.
        accelerator: ``"cuda"`` or ``"cpu"``.
        under_slurm: whether srun started the processes.
    """

    rank: int
    world_size: int
    devices: int
    nodes: int
    accelerator: str
    under_slurm: bool

    @classmethod
    def detect(cls) -> Machine:
        """Read what torchrun or srun set; a plain start is one process."""
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        found = Processes.detect()
        return cls(
            found.rank,
            found.size,
            found.local_size,
            found.nodes,
            accelerator,
            under_slurm=found.launcher == "slurm",
        )

    def check(self, recipe: Recipe) -> None:
        """Refuse global batches that cannot be cut into equal parts.

        Raises:
            UsageError: a stage's batch is no multiple of processes times accumulation.
        """
        parts = self.world_size * recipe.train.accumulate
        for stage in recipe.train.stages:
            if stage.batch_size % parts:
                raise UsageError(
                    "a global batch cannot be shared equally",
                    got=f"batch_size {stage.batch_size} over {self.world_size} processes × "
                    f"{recipe.train.accumulate} micro-batches",
                    expected=f"a multiple of {parts}",
                    remedy="another number of processes, train.accumulate or batch_size",
                )

    def precision(self, recipe: Recipe) -> Any:
        """Lightning's name of the recipe's precision on this device."""
        chosen = recipe.train.precision
        if chosen == "auto":
            chosen = "bf16" if self.accelerator == "cuda" else "32"
        names = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}
        return names[chosen]

    def may_hold(self, recipe: Recipe) -> bool:
        """Whether a small set may be kept decoded in this process.

        Not beside worker processes: each of them would keep a copy of its own.
        """
        chosen = recipe.train.num_workers
        return chosen == 0 or (chosen < 0 and self.accelerator == "cpu")

    def workers(self, recipe: Recipe, held: bool) -> int:
        """Loader processes of this rank; none where the set is ``held`` in memory."""
        chosen = recipe.train.num_workers
        if held or chosen >= 0:
            return 0 if held else chosen
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        share = cores // self.devices
        if self.accelerator == "cpu":
            return min(2, max(1, share // 2))  # the network needs the cores more
        return max(1, min(16, share - 1))

    def compiles(self, recipe: Recipe) -> bool:
        """Whether to run the network through `torch.compile`."""
        chosen = recipe.train.compile
        return chosen == "on" or (chosen == "auto" and self.accelerator == "cuda")

    def trainer_options(self) -> dict[str, Any]:
        """Lightning's arguments for processes and devices."""
        options: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.nodes,
        }
        if self.world_size > 1:
            options["strategy"] = "ddp"
        if self.under_slurm:
            # Requeueing is the batch script's (docs/operations.md); the checkpoint is ours.
            options["plugins"] = [SLURMEnvironment(auto_requeue=False)]
        return options
