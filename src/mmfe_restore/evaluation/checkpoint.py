"""Finding and opening what `mmfe eval` judges: a restorer and the recipe that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import ModelError, UsageError
from mmfe_cache.parsing import parse_json
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import Recipe, recipe_from_dict

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
RUNS = Path("runs")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        path: its ``save_pretrained`` folder.
        restorer: the network, in evaluation mode.
        recipe: what trained it.
    """

    path: Path
    restorer: Restorer
    recipe: Recipe


def newest_checkpoint(runs: Path = RUNS) -> Path:
    """The ``model/`` folder of the run that finished last.

    Raises:
        UsageError: no run under ``runs`` is finished.
    """
    configs = [*runs.glob(f"*/model/{CONFIG}"), *runs.glob(f"*/*/model/{CONFIG}")]
    if not configs:
        raise UsageError(
            f"there is no finished run under {runs}",
            expected=f"{runs}/NAME/model/{CONFIG}",
            remedy="mmfe train --recipe NAME, or name one with --checkpoint PATH",
        )
    return max(configs, key=lambda path: path.stat().st_mtime).parent


def model_folder(path: Path) -> Path:
    """The ``save_pretrained`` folder that ``path`` means: itself, or ``model/`` of a run.

    Raises:
        UsageError: it is neither.
    """
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "checkpoints").is_dir():
        raise UsageError(
            f"the run {path} is not finished",
            got=f"no {path / 'model'}",
            remedy=f"mmfe train --recipe '{path}/recipe.yaml' --out '{path}' "
            "with its --root and --cache",
        )
    raise UsageError(
        f"there is no checkpoint at {path}",
        got="a folder without config.json" if path.is_dir() else "no such folder",
        expected=f"a run's folder, or one that holds {CONFIG} and {WEIGHTS}",
        remedy="mmfe train --recipe NAME --out RUN, then mmfe eval --checkpoint RUN",
    )


def read_recipe_of(folder: Path) -> Recipe:
    """The recipe that a ``save_pretrained`` folder was trained by.

    Raises:
        ModelError: its config.json is unreadable or holds no recipe.
    """
    path = folder / CONFIG
    try:
        config = parse_json(path.read_bytes(), path)
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path} cannot be read", got=problem) from None
    recipe = config.get("recipe") if isinstance(config, dict) else None
    if not isinstance(recipe, dict):
        raise ModelError(
            f"{path} does not say which recipe trained the model",
            expected="a key 'recipe', as mmfe train writes it",
            remedy="give it with --recipe NAME",
        )
    return recipe_from_dict(recipe)


def load_checkpoint(path: Path | None = None, recipe: Recipe | None = None) -> Checkpoint:
    """Open a checkpoint.

    Args:
        path: a run's folder or its ``model/``; None for the run under ``runs/`` that finished
            last.
        recipe: takes the place of the one recorded in the checkpoint.

    Raises:
        UsageError: there is none.
        ModelError: it is damaged, or does not fit the recipe.
    """
    folder = newest_checkpoint() if path is None else model_folder(path)
    found = read_recipe_of(folder) if recipe is None else recipe
    restorer = Restorer.from_pretrained(folder)
    return Checkpoint(folder, restorer.eval(), found)
