"""How a run sits on its machine: processes, device, precision, workers, and out of memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import torch

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.io import counted
from mmfe_cache.machine import (
    Launcher,
    Processes,
    has_gpu,
    is_out_of_memory,
    launcher_plugins,
    require_bf16,
    usable_cores,
)
from mmfe_restore.kernels import check_kernels
from mmfe_restore.recipes.schema import Recipe

if TYPE_CHECKING:
    from mmfe_restore.training.lightning_module import RestorationTask


@dataclass(frozen=True)
class Machine:
    """Where this process stands and what it runs on.

    Attributes:
        rank: of this process among all.
        world_size: processes in the run.
        devices: processes on this node.
        nodes: machines in the run.
        accelerator: ``"cuda"`` or ``"cpu"``.
        launcher: what started the processes; None for a plain start.
    """

    rank: int
    world_size: int
    devices: int
    nodes: int
    accelerator: str
    launcher: Launcher | None

    @classmethod
    def detect(cls) -> Machine:
        """Read what torchrun or srun set; a plain start is one process."""
        accelerator = "cuda" if has_gpu() else "cpu"
        found = Processes.detect()
        return cls(
            found.rank,
            found.size,
            found.local_size,
            found.nodes,
            accelerator,
            found.launcher,
        )

    def check(self, recipe: Recipe) -> None:
        """Refuse unequal parts of a global batch, precisions and kernels that the device lacks.

        Raises:
            UsageError: a batch is not a multiple of processes times accumulation, or the device
                does not train in the recipe's precision, or ``train.kernels`` cannot run here.
        """
        if self.accelerator == "cuda" and self.precision(recipe) == "bf16-mixed":
            require_bf16("cuda", "--set train.precision=32, or 16 for half of the memory")
        if self.accelerator == "cpu" and recipe.train.precision == "16":
            raise UsageError(
                "train.precision=16 needs a GPU",
                got="a CPU, on which float16 is not trained",
                expected="32, 64 or bf16",
                remedy="--set train.precision=32, or bf16 for half of the memory",
            )
        if recipe.train.kernels == "triton":
            check_kernels(self.accelerator)
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

    def smaller_parts(self, recipe: Recipe) -> tuple[int, ...]:
        """The values of ``train.accumulate`` above the recipe's that `check` lets pass, ascending.

        With each of them every stage's batch is shared equally, in smaller parts than now.
        """
        common = gcd(*(stage.batch_size for stage in recipe.train.stages))
        return tuple(
            parts
            for parts in range(recipe.train.accumulate + 1, common // self.world_size + 1)
            if common % (self.world_size * parts) == 0
        )

    def precision(self, recipe: Recipe) -> Any:
        """Lightning's name of the recipe's precision on this device."""
        chosen = recipe.train.precision
        if chosen == "auto":
            chosen = "bf16" if self.accelerator == "cuda" else "32"
        names = {
            "32": "32-true",
            "tf32": "32-true",
            "64": "64-true",
            "bf16": "bf16-mixed",
            "16": "16-mixed",
        }
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
        share = usable_cores() // self.devices
        if self.accelerator == "cpu":
            return min(2, max(1, share // 2))  # the network needs the cores more
        return max(1, min(16, share - 1))

    def compiles(self, recipe: Recipe) -> bool:
        """Whether to run the network through `torch.compile`."""
        chosen = recipe.train.compile
        return chosen == "on" or (chosen == "auto" and self.accelerator == "cuda")

    def activation_memory(self, recipe: Recipe) -> float:
        """The share of their activations that compiled blocks keep: the recipe's on CUDA.

        All of them on a CPU, where memory is not what is short, and where what Inductor makes of
        MoFE's recomputation in bfloat16 gives gradients of NaN (torch 2.11 to 2.14).
        """
        return recipe.train.activation_memory if self.accelerator == "cuda" else 1.0

    def trainer_options(self) -> dict[str, Any]:
        """Lightning's arguments for processes and devices."""
        options: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.nodes,
            "plugins": launcher_plugins(self.launcher),
            # A stage's crops have one size: cuDNN may time its algorithms once and keep the best.
            "benchmark": self.accelerator == "cuda",
        }
        if self.world_size > 1:
            options["strategy"] = "ddp"
        return options


@contextmanager
def memory_explained(recipe: Recipe, machine: Machine, task: RestorationTask) -> Generator[None]:
    """Turn an error of memory or of a compiler inside the block into one that says what to do.

    Raises:
        MmfeError: the device or the machine had no memory left, the network's blocks could not be
            compiled, or a kernel needs more of a card than it has.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if is_out_of_memory(problem):  # while compiling, too: the compiler's error quotes it
            raise _explain(recipe, machine, task) from None
        from torch._dynamo.exc import TorchDynamoException  # takes a second; here all is over

        if isinstance(problem, TorchDynamoException):
            raise _not_compiled(problem) from problem
        raise
    except Exception as problem:
        if type(problem).__name__ == "OutOfResources":  # of Triton, which may not be installed
            raise _kernel_too_large(problem) from problem
        raise


def _kernel_too_large(problem: Exception) -> MmfeError:
    return MmfeError(
        "a Triton kernel needs more of this GPU than it has",
        got=str(problem).split(". ", 1)[0],
        expected="shared memory as an H100's, 227 KiB a block, for all widths in float32",
        remedy="--set train.kernels=torch --set train.compile=off trains by PyTorch's own kernels, "
        "with the same result; the same command then goes on from the last checkpoint",
    )


def _not_compiled(problem: RuntimeError) -> MmfeError:
    # The compiler's own advice (environment variables, how to file an issue) follows a blank line.
    return MmfeError(
        "the network's blocks could not be compiled",
        got=" ".join(str(problem).strip().split("\n\n", 1)[0].split())[:500],
        expected="a C compiler, and a GPU and driver that this PyTorch's Triton knows",
        remedy="--set train.compile=off trains without compiling: slower, with the same result; "
        "the same command then goes on from the last checkpoint",
    )


def _explain(recipe: Recipe, machine: Machine, task: RestorationTask) -> MmfeError:
    plan = task.schedule.stage_at(min(task.current_step, task.schedule.steps - 1))
    stage, train = plan.stage, recipe.train
    parts = machine.world_size * train.accumulate
    each = stage.batch_size // parts
    got = (
        f"stage {plan.index + 1}: {each} crops of {stage.resolution}² at once (global batch "
        f"{stage.batch_size}, {machine.world_size} processes × {train.accumulate} micro-batches)"
    )
    on_cuda = machine.accelerator == "cuda"
    if on_cuda:
        _, total = torch.cuda.mem_get_info()
        got += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} of {total / 2**30:.1f} GiB used"
    smaller = machine.smaller_parts(recipe)
    ways: list[str] = []
    if smaller:
        crops = stage.batch_size // (machine.world_size * smaller[0])
        ways.append(
            f"--set train.accumulate={smaller[0]} ({counted(crops, 'crop')} at once, the same "
            "result)"
        )
    if machine.compiles(recipe) and machine.activation_memory(recipe) > 0.5 and on_cuda:
        ways.append("--set train.activation_memory=0.5 (about half of the memory)")
    if not train.activation_checkpointing:
        ways.append("--set train.activation_checkpointing=true (about a third slower)")
    # More processes share a batch equally only where more parts do.
    ways.append(f"{'more processes, or ' if smaller else ''}a smaller batch_size in train.stages")
    return MmfeError(
        "out of memory in training",
        got=got,
        expected="a step that fits; mmfe train --dry-run estimates every stage",
        remedy="; or ".join(ways) + "; then the same command goes on from the last checkpoint",
    )
