"""Out of memory: what was running, and what makes it fit."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from mmfe_cache.errors import MmfeError
from mmfe_cache.machine import is_out_of_memory
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.machine import Machine
from mmfe_restore.training.task import RestorationTask


@contextmanager
def memory_explained(recipe: Recipe, machine: Machine, task: RestorationTask) -> Generator[None]:
    """Turn an out-of-memory error inside the block into one that says what to do.

    Raises:
        MmfeError: the device or the machine had no memory left.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        raise _explain(recipe, machine, task) from None


def _explain(recipe: Recipe, machine: Machine, task: RestorationTask) -> MmfeError:
    plan = task.schedule.stage_at(min(task.current_step, task.schedule.steps - 1))
    stage, train = plan.stage, recipe.train
    parts = machine.world_size * train.accumulate
    each = stage.batch_size // parts
    got = (
        f"stage {plan.index + 1}: {each} crops of {stage.resolution}² at once (global batch "
        f"{stage.batch_size}, {machine.world_size} processes × {train.accumulate} micro-batches)"
    )
    if machine.accelerator == "cuda":
        _, total = torch.cuda.mem_get_info()
        got += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} of {total / 2**30:.1f} GiB used"
    smaller = next((n for n in range(2, each + 1) if each % n == 0), None)
    ways: list[str] = []
    if smaller is not None:
        ways.append(
            f"--set train.accumulate={train.accumulate * smaller} "
            f"({each // smaller} crops at once, the same result)"
        )
    if not train.activation_checkpointing:
        ways.append("--set train.activation_checkpointing=true (about a third slower)")
    ways.append("more processes, or a smaller batch_size in train.stages")
    return MmfeError(
        "out of memory in training",
        got=got,
        expected="a step that fits; mmfe train --dry-run estimates every stage",
        remedy="; or ".join(ways) + "; then the same command goes on from the last checkpoint",
    )
