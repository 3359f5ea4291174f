"""Recipes: named, validated configurations; every row of the paper's tables is one."""

from __future__ import annotations

from mmfe_restore.recipes.loading import (
    changed_settings as changed_settings,
    load_recipe as load_recipe,
    recipe_from_dict as recipe_from_dict,
    recipe_names as recipe_names,
    recipe_settings as recipe_settings,
    recipe_to_dict as recipe_to_dict,
)
from mmfe_restore.recipes.schema import (
    DataConfig as DataConfig,
    EvalConfig as EvalConfig,
    GuideConfig as GuideConfig,
    LossConfig as LossConfig,
    ModelConfig as ModelConfig,
    Recipe as Recipe,
    Stage as Stage,
    TrainConfig as TrainConfig,
)
