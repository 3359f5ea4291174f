"""Recipes: named, validated configurations; every row of the paper's tables is one."""

from __future__ import annotations

from mmfe_restore.recipes.loading import (
    load_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_settings,
    recipe_to_dict,
)
from mmfe_restore.recipes.schema import (
    DataConfig,
    EvalConfig,
    GuideConfig,
    LossConfig,
    ModelConfig,
    Recipe,
    Stage,
    TrainConfig,
)

__all__ = [
    "DataConfig",
    "EvalConfig",
    "GuideConfig",
    "LossConfig",
    "ModelConfig",
    "Recipe",
    "Stage",
    "TrainConfig",
    "load_recipe",
    "recipe_from_dict",
    "recipe_names",
    "recipe_settings",
    "recipe_to_dict",
]
