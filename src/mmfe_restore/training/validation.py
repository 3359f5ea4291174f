"""Validation on scenes held out of training, and the best model by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor

from mmfe_cache.datasets import add_noise
from mmfe_cache.errors import DataError
from mmfe_cache.samples import ImageArray, PixelSource, Sample
from mmfe_cache.views import mirror_to
from mmfe_restore.data import SampleGuidance
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.loggers import CsvTable
from mmfe_restore.training.run_dir import BEST, write_model

BATCH = 8
"""Samples restored at once; small, so that validation needs less memory than training."""

COLUMNS = ("label", "psnr", "samples")
"""Of validation.csv, after ``step``; ``average`` is the mean of the labels' means."""


class ValidationCallback(Callback):
    """Restores the centres of held-out samples every so many steps.

    The crop has the last stage's resolution and the guidance its view. Test data takes no part:
    it never selects a checkpoint.

    Args:
        recipe: how often, and which view.
        samples: the held-out samples.
        guidance: of ``samples``; None for an unguided network.
        out: the run's folder; ``best/`` in it holds the best model so far.
        table: takes the scores.
        fingerprint: the training store's, for ``best/``.

    Attributes:
        last: mean over labels of the last validation, dB.
        best: the highest so far, whose model is in ``best/``.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Sequence[Sample],
        guidance: SampleGuidance | None,
        out: Path,
        table: CsvTable,
        *,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self._recipe, self._samples, self._guidance = recipe, samples, guidance
        self._out, self._table, self._fingerprint = out, table, fingerprint
        stage = recipe.train.stages[-1]
        self._side, self._view = stage.resolution, recipe.stage_views(stage)[0]
        self.last: float | None = None
        self.best = float("-inf")

    def state_dict(self) -> dict[str, Any]:
        """The scores so far."""
        return {"last": self.last, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores of the run that is resumed."""
        self.last, self.best = state_dict["last"], state_dict["best"]
        if not (self._out / BEST).exists():
            # Another folder's checkpoint (`--resume CHECKPOINT --out NEW`): the model with that
            # score is not here, and this folder's best is the best of what is computed here.
            self.best = float("-inf")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate where it is time."""
        assert isinstance(pl_module, RestorationTask)
        step = trainer.global_step
        every, last = self._recipe.data.validation_every, pl_module.schedule.steps
        if trainer.fit_loop._should_accumulate() or (step % every and step != last):  # pyright: ignore[reportPrivateUsage]
            return
        averages = [
            callback
            for callback in trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, EMAWeightAveraging)
        ]
        for ema in averages:  # judge, and keep, the averaged weights
            ema.on_validation_epoch_start(trainer, pl_module)
        scores = self._scores(trainer, pl_module)
        self._keep(trainer, pl_module, step, scores)
        for ema in averages:
            ema.on_validation_epoch_end(trainer, pl_module)

    @torch.no_grad()
    def _scores(self, trainer: Trainer, task: RestorationTask) -> dict[str, tuple[float, int]]:
        labels = tuple(dict.fromkeys(sample.label for sample in self._samples))
        sums = torch.zeros(len(labels), 2, dtype=torch.float64, device=task.device)
        mine = range(trainer.global_rank, len(self._samples), trainer.world_size)
        task.eval()
        for start in range(0, len(mine), BATCH):
            positions = mine[start : start + BATCH]
            psnr = self._restore(trainer, task, positions)
            for position, value in zip(positions, psnr, strict=True):
                sums[labels.index(self._samples[position].label)] += torch.stack(
                    (value, torch.ones_like(value))
                )
        task.train()
        if trainer.world_size > 1:
            reduced = trainer.strategy.reduce(sums, reduce_op="sum")
            assert isinstance(reduced, Tensor)
            sums = reduced
        totals = sums.tolist()
        return {
            label: (total / count, int(count))
            for label, (total, count) in zip(labels, totals, strict=True)
        }

    def _restore(self, trainer: Trainer, task: RestorationTask, positions: range) -> Tensor:
        """(B,) PSNR in dB of the samples at ``positions``, float64."""
        pairs = [self._pair(self._samples[p]) for p in positions]
        dtype = next(task.parameters()).dtype
        degraded, clean = (
            torch.from_numpy(np.stack(kind)).permute(0, 3, 1, 2).to(task.device, dtype).div_(255)
            for kind in zip(*pairs, strict=True)
        )
        embeddings = None
        if self._guidance is not None:
            embeddings = self._guidance.read(list(positions), self._view).to(task.device)
        with trainer.precision_plugin.forward_context():
            restored = task.restorer(degraded, embeddings)
        error = (restored.clamp(0, 1) - clean).double().square().mean((1, 2, 3))
        return -10 * error.clamp_min(1e-10).log10()

    def _pair(self, sample: Sample) -> tuple[ImageArray, ImageArray]:
        if sample.clean is None:
            raise DataError(f"a validation sample has no ground truth: {sample.id}")
        clean = self._centre(sample.clean)
        if sample.noise_sigma is None:
            return self._centre(sample.degraded), clean
        return add_noise(clean, sample.noise_sigma, "validation", sample.id), clean

    def _centre(self, source: PixelSource) -> ImageArray:
        height, width = source.size()
        rows, columns = min(self._side, height), min(self._side, width)
        window = source.read_crop((height - rows) // 2, (width - columns) // 2, rows, columns)
        return mirror_to(window, self._side, self._side)

    def _keep(
        self,
        trainer: Trainer,
        task: RestorationTask,
        step: int,
        scores: dict[str, tuple[float, int]],
    ) -> None:
        average = sum(psnr for psnr, _ in scores.values()) / len(scores)
        self.last = average
        better = average > self.best
        if better:  # max() would keep a NaN, than which nothing is better
            self.best = average
        if not trainer.is_global_zero:
            return
        count = sum(samples for _, samples in scores.values())
        for label, (psnr, samples) in {"average": (average, count), **scores}.items():
            self._table.log_metrics({"label": label, "psnr": psnr, "samples": samples}, step)
        for logger in trainer.loggers:
            logger.log_metrics({"validation_psnr": average}, step)
        if better:
            write_model(self._out / BEST, task.restorer, self._recipe, self._fingerprint)
