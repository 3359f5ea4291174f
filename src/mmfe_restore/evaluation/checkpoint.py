"""Finding and opening what `mmfe eval` judges: a restorer and the recipe that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import ModelError
from mmfe_cache.parsing import parse_json
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import Recipe, recipe_from_dict
from mmfe_restore.runs import CONFIG, model_folder, newest_checkpoint


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
