"""Where a run's numbers go: CSV and TensorBoard always, Weights & Biases when asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mmfe_restore.recipes import recipe_to_dict
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.folder import METRICS
from mmfe_restore.training.tables import CsvTable
from mmfe_restore.training.watch import COLUMNS


def loggers(recipe: Recipe, out: Path, step: int, wandb: str | None) -> list[Logger]:
    """The loggers of a run that starts or goes on at ``step``.

    Args:
        recipe: goes to Weights & Biases as the configuration.
        out: the run's folder; TensorBoard's events stand in ``tensorboard/`` below it.
        step: rows and events after it belong to a run that was lost, and go.
        wandb: the Weights & Biases project; None does without.
    """
    # TensorBoard ends a purged range at the step it is given, that step included.
    board = TensorBoardLogger(out, name="", version="tensorboard", purge_step=step + 1)
    chosen: list[Logger] = [CsvTable(out / METRICS, COLUMNS, step), board]
    if wandb is not None:
        # The same folder is the same run, also after a resume.
        identity = hashlib.blake2b(str(out.resolve()).encode(), digest_size=8).hexdigest()
        logger = WandbLogger(
            name=out.name, save_dir=out, project=wandb, id=identity, resume="allow"
        )
        logger.log_hyperparams(recipe_to_dict(recipe))
        chosen.append(logger)
    return chosen
