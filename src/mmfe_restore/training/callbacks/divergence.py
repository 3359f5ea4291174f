"""A run that has diverged ends where it is seen, and its checkpoints stay usable."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Trainer

from mmfe_cache.errors import ModelError
from mmfe_restore.training.lightning_module import RestorationTask


def require_finite_loss(trainer: Trainer, loss: float, task: RestorationTask) -> None:
    """End the run where its loss is NaN or infinite.

    Args:
        trainer: knows the step.
        loss: of that step, the same value on every process.
        task: what is trained.

    Raises:
        ModelError: the loss is not finite.
    """
    if math.isfinite(loss):
        return
    raise _diverged(f"the loss is {loss} at step {trainer.global_step:,}", task)


def require_finite_weights(trainer: Trainer, task: RestorationTask) -> None:
    """Keep weights that are NaN or infinite out of checkpoints; every process calls it.

    Waits for the device, so it is for the moments at which a checkpoint is written.

    Raises:
        ModelError: a weight is not finite.
    """
    with torch.no_grad():
        sums = torch.stack([p.float().abs().sum() for p in task.restorer.parameters()])
    # A sum is as finite as its parts; float32 overflows only where weights are lost anyway.
    if bool(torch.isfinite(sums).all()):
        return
    names = [name for name, _ in task.restorer.named_parameters()]
    first = names[int((~torch.isfinite(sums)).nonzero()[0])]
    raise _diverged(f"the weights of {first} are not finite at step {trainer.global_step:,}", task)


def _diverged(problem: str, task: RestorationTask) -> ModelError:
    train = task.recipe.train
    return ModelError(
        f"training has diverged: {problem}",
        got=f"train.learning_rate={train.learning_rate:g}, train.precision={train.precision}, "
        f"train.gradient_clip={train.gradient_clip}",
        expected="finite losses and weights",
        remedy="begin another --out with --set train.gradient_clip=1 or a lower "
        "train.learning_rate; --resume CHECKPOINT goes on there from one of this run's "
        "checkpoints, which are finite",
    )
