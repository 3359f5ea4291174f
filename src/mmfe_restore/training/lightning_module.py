"""The training step: forward, the three losses, Adam and the cosine; whether it diverged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mmfe_cache.errors import ModelError
from mmfe_restore.data import Batch, Schedule
from mmfe_restore.losses import fourier_loss, l1_loss, router_loss
from mmfe_restore.recipes import Recipe, recipe_to_dict

if TYPE_CHECKING:
    from mmfe_restore.model import Restorer


class RestorationTask(LightningModule):
    """Trains a `Restorer` as its recipe says.

    A step draws no random numbers: crops, noise and dropped guidance come with the batch. That
    is what makes a resumed run equal the uninterrupted one.

    Args:
        restorer: the network.
        recipe: its losses and optimiser.
        schedule: gives the learning rate of every step.

    Attributes:
        restorer: the network; the only part with parameters.
        terms: the loss terms of the current step by name, detached, summed over the
            ``micro_batches`` seen of it: ``loss``, ``l1``, ``fourier``, ``mgl``, ``mgl/<site>``.
        micro_batches: how many micro-batches ``terms`` sums.
        current_step: the optimiser step that is running, counted from 0.
        routing: site name to the (G, N) expert weights of the last global batch, detached.
    """

    def __init__(self, restorer: Restorer, recipe: Recipe, schedule: Schedule) -> None:
        super().__init__()
        self.restorer = restorer
        self.recipe = recipe
        self.schedule = schedule
        self.terms: dict[str, Tensor] = {}
        self.micro_batches = 0
        self.current_step = 0
        self.routing: dict[str, Tensor] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch (paper, Eq. 8)."""
        if batch.step != self.current_step:
            self.current_step, self.micro_batches, self.terms = batch.step, 0, {}
        weights = self.recipe.loss
        dtype = next(self.restorer.parameters()).dtype
        degraded, clean = (t.to(dtype).div_(255) for t in (batch.degraded, batch.clean))
        restored = self.restorer(degraded, batch.embeddings, batch.keep)
        l1 = l1_loss(restored, clean)
        loss, terms = l1, {"l1": l1}
        if weights.fourier > 0:
            terms["fourier"] = fourier_loss(restored, clean)
            loss = loss + weights.fourier * terms["fourier"]
        if batch.answers is not None:
            routing = self.restorer.router_weights(batch.answers.to(dtype))
            terms["mgl"], sites = router_loss(batch.answers, routing, batch.answers_keep)
            # Every micro-batch and process adds the same term, and Lightning averages over
            # them: it counts once an optimiser step.
            loss = loss + weights.mgl * terms["mgl"]
            terms |= {f"mgl/{site}": value for site, value in sites.items()}
            self.routing = {site: s.detach() for site, s in routing.items()}
        self._note({"loss": loss, **terms})
        return loss

    def _note(self, terms: dict[str, Tensor]) -> None:
        self.micro_batches += 1
        for name, value in terms.items():
            before = self.terms.get(name)
            self.terms[name] = value.detach() if before is None else before + value.detach()

    def require_finite_loss(self, loss: float, step: int) -> None:
        """End the run where the loss of ``step``, the same on every process, is NaN or infinite.

        Raises:
            ModelError: it is not finite.
        """
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss} at step {step:,}")

    def require_finite_weights(self, step: int) -> None:
        """Keep weights that are NaN or infinite out of checkpoints; every process calls it.

        Waits for the device, so it is for the moments at which a checkpoint is written.

        Raises:
            ModelError: a weight is not finite.
        """
        with torch.no_grad():
            sums = torch.stack([p.float().abs().sum() for p in self.restorer.parameters()])
        # A sum is as finite as its parts; float32 overflows only where weights are lost anyway.
        if bool(torch.isfinite(sums).all()):
            return
        names = [name for name, _ in self.restorer.named_parameters()]
        first = names[int((~torch.isfinite(sums)).nonzero()[0])]
        raise self._diverged(f"the weights of {first} are not finite at step {step:,}")

    def _diverged(self, problem: str) -> ModelError:
        train = self.recipe.train
        # Seen with torch 2.14: what Inductor makes of some shapes in bfloat16 has gradients of NaN.
        on_cpu = self.device.type == "cpu"
        compiled = "--set train.compile=off, or " if on_cpu and train.compile == "on" else ""
        return ModelError(
            f"training has diverged: {problem}",
            got=f"train.learning_rate={train.learning_rate:g}, train.precision={train.precision}, "
            f"train.gradient_clip={train.gradient_clip}",
            expected="finite losses and weights",
            remedy=f"begin another --out with {compiled}--set train.gradient_clip=1 or a lower "
            "train.learning_rate; --resume CHECKPOINT goes on there from one of this run's "
            "checkpoints, which are finite",
        )

    def configure_optimizers(self) -> Any:
        """Adam with one cosine over the whole run, set at every step (DESIGN, settled 11)."""
        train = self.recipe.train
        on_gpu = all(parameter.is_cuda for parameter in self.restorer.parameters())
        optimizer = torch.optim.Adam(
            self.restorer.parameters(),
            lr=train.learning_rate,
            betas=train.betas,
            # One kernel for all weights; under mixed precision Lightning cannot clip for it.
            fused=True if on_gpu and train.gradient_clip is None else None,
        )
        cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the recipe beside the state, so that a resume can tell whose it is."""
        checkpoint["recipe"] = recipe_to_dict(self.recipe)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Optimise as this run's recipe says, not as that of the run the checkpoint is from.

        PyTorch restores learning rate and betas with Adam's moments. In the folder of the run
        they are the same; ``--resume CHECKPOINT --out NEW`` goes on with others.
        """
        train = self.recipe.train
        for optimizer, cosine in zip(
            checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True
        ):
            rate = train.learning_rate * self.schedule.learning_rate(cosine["last_epoch"])
            for group in optimizer["param_groups"]:
                group |= {"lr": rate, "initial_lr": train.learning_rate, "betas": train.betas}
            groups = len(cosine["base_lrs"])
            cosine |= {"base_lrs": [train.learning_rate] * groups, "_last_lr": [rate] * groups}

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a `Batch` as a whole."""
        return batch.to(device)
