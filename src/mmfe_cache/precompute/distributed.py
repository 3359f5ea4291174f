"""The processes that share one build, and how Lightning Fabric starts or joins them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mmfe_cache.errors import MmfeError
from mmfe_cache.machine import Processes, has_gpu, launcher_plugins

PATIENCE = timedelta(days=30)
"""How long a process waits for the others: the slowest may have days of work left."""


class Ranks:
    """A group of equal processes: this one alone, or those that `launch` made.

    Args:
        rank: this process's number, from 0.
        size: how many there are.
        device: where this process's guide is to run, such as ``"cuda:1"``.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str = "auto") -> None:
        self.rank, self.size, self.device = rank, size, device

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.gather(None)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value``, in every process."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        self._together(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's ``value``, by rank, in every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        self._together(lambda: dist.all_gather_object(found, value))
        return found

    def _together(self, exchange: Any) -> None:
        try:
            exchange()
        except RuntimeError as problem:
            raise MmfeError(
                f"rank {self.rank} lost the other processes of this build",
                got=str(problem).split("\n", 1)[0],
                expected=f"{self.size} processes",
                remedy="see the first error above; then run the same command again, "
                "it goes on where it stopped",
            ) from problem


def wants_many(devices: int, nodes: int) -> bool:
    """Whether a build is to run in several processes: asked for, or started so from outside."""
    return devices > 1 or nodes > 1 or Processes.detect().size > 1


def launch(devices: int = 1, nodes: int = 1) -> Ranks:
    """Start ``devices`` processes on this node, or join those of torchrun or SLURM.

    Without torchrun or SLURM the current command line is run again once per further device.

    Args:
        devices: processes on each node, one a GPU where there are GPUs.
        nodes: how many nodes take part.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    found = Processes.detect()
    if found.launcher == "torchrun" or found.size > 1:
        devices, nodes = found.local_size, found.nodes
    accelerator = "cuda" if has_gpu() else "cpu"
    # gloo also beside GPUs: ranks exchange a few Python objects and then wait for each other for
    # hours, during which NCCL would keep a GPU busy.
    strategy = DDPStrategy(process_group_backend="gloo", timeout=PATIENCE)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=launcher_plugins(found.launcher),
    )
    fabric.launch()
    return Ranks(fabric.global_rank, fabric.world_size, str(fabric.device))
