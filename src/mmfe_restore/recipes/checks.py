"""What types cannot say of a recipe: its keys, ranges, and settings that must fit together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from math import inf
from typing import Any, cast, get_args, get_type_hints

from mmfe_cache.embeddings import DEFAULT_PROMPT
from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.guides.registry import find_guide
from mmfe_cache.views import View
from mmfe_restore.recipes.schema import GuideConfig, Recipe, Stage


class UnknownKeyError(UsageError):
    """A recipe has a key that this version of the program does not know."""


def suggestion(word: str, words: Iterable[str]) -> str | None:
    """``did you mean a, b?`` for the known ``words`` close to ``word``; None where none is."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else None


FREE_KEYS = ("data.repeats",)
"""Mappings whose keys are the user's own."""


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def recipe_keys(kind: type = Recipe, prefix: str = "") -> tuple[str, ...]:
    """Every key of a recipe as its full path, such as ``model.num_experts``."""
    keys: list[str] = []
    for item in fields(kind):
        hint = _hints(kind)[item.name]
        keys.append(prefix + item.name)
        if is_dataclass(hint):
            keys += recipe_keys(cast("type", hint), f"{prefix}{item.name}.")
    return tuple(keys)


def check_keys(values: Mapping[str, Any], kind: type = Recipe, prefix: str = "") -> None:
    """Refuse keys that no recipe has.

    Raises:
        UsageError: an unknown key; names the nearest known ones.
    """
    known = {item.name for item in fields(kind)}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in known:
            raise _unknown_key(path)
        hint = _hints(kind)[key]
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(
                    f"wrong value in the recipe: {path}", got=repr(value), expected="a mapping"
                )
            check_keys(cast("Mapping[str, Any]", value), cast("type", hint), f"{path}.")
        elif Stage in get_args(hint):
            for stage in value if isinstance(value, Sequence) else ():
                if isinstance(stage, Mapping):
                    check_keys(cast("Mapping[str, Any]", stage), Stage, f"{path}.")


def check_key_path(path: Sequence[str]) -> None:
    """Refuse an override of something that is no single setting.

    Raises:
        UsageError: an unknown key, or a whole part such as ``model``.
    """
    name = ".".join(path)
    if any(name.startswith(f"{free}.") for free in FREE_KEYS):
        return
    if name not in recipe_keys():
        raise _unknown_key(name)
    if any(key.startswith(f"{name}.") for key in recipe_keys()):
        inside = [key for key in recipe_keys() if key.startswith(f"{name}.")]
        raise UsageError(f"{name} is a part of a recipe", expected="one of " + ", ".join(inside))


def _unknown_key(path: str) -> UsageError:
    keys = (*recipe_keys(), *recipe_keys(Stage, "train.stages."))
    word = path.rsplit(".", 1)[-1]
    same = [key for key in keys if key.rsplit(".", 1)[-1] == word]
    hint = f"did you mean {', '.join(same)}?" if same else suggestion(path, keys)
    return UnknownKeyError(
        "unknown recipe key",
        got=repr(path),
        expected=hint,
        remedy="mmfe train --print-config lists every key",
    )


def check_recipe(recipe: Recipe) -> None:
    """Refuse values out of range and settings that contradict each other.

    Raises:
        UsageError: names the key, its value and the range.
    """
    model, train, data = recipe.model, recipe.train, recipe.data
    _need("model.width", model.width, model.width >= 2 and model.width % 2 == 0, "an even number")
    _at_least("model.num_experts", model.num_experts, 1)
    # A setting without effect would look like an ablation of it.
    _need(
        "model.low_band",
        model.low_band,
        not model.low_band or model.experts == "frequency",
        f"false with model.experts={model.experts}: only the frequency domain has an LL band",
    )
    _check_guide(recipe.guide)
    _at_least("model.num_refinement_blocks", model.num_refinement_blocks, 0)
    _at_least("model.guidance_dim", model.guidance_dim, 1)
    _need(
        "model.guidance_dropout", model.guidance_dropout, 0 <= model.guidance_dropout < 1, "[0, 1)"
    )
    _need("model.expansion", model.expansion, 0 < model.expansion < inf, "above 0, finite")
    for level, heads in enumerate(model.num_heads):
        channels = model.width * 2**level
        _need(
            "model.num_heads",
            model.num_heads,
            heads >= 1 and channels % heads == 0,
            f"heads that divide the {channels} channels of level {level + 1}",
        )
    _need("model.num_blocks", model.num_blocks, min(model.num_blocks) >= 0, "0 or more")
    _at_least("data.validation_scenes", data.validation_scenes, 0)
    _at_least("data.validation_every", data.validation_every, 1)
    for label, times in data.repeats.items():
        _at_least(f"data.repeats.{label}", times, 0)
    for key, weight in (("fourier", recipe.loss.fourier), ("mgl", recipe.loss.mgl)):
        _need(f"loss.{key}", weight, 0 <= weight < inf, "0 or more, finite")
    _need("train.stages", train.stages, len(train.stages) > 0, "at least one stage")
    _at_least("train.accumulate", train.accumulate, 1)
    for stage in train.stages:
        _at_least("train.stages.epochs", stage.epochs, 1)
        _at_least("train.stages.resolution", stage.resolution, 16)
        _at_least("train.stages.batch_size", stage.batch_size, 1)
        _need(
            "train.stages.batch_size",
            stage.batch_size,
            stage.batch_size % train.accumulate == 0,
            f"a multiple of train.accumulate, {train.accumulate}",
        )
    rate = train.learning_rate
    _need("train.learning_rate", rate, 0 < rate < inf, "above 0, finite")
    _need("train.betas", train.betas, all(0 <= b < 1 for b in train.betas), "[0, 1)")
    _need("train.seed", train.seed, train.seed >= 0, "0 or more")
    decay = train.ema_decay
    _need("train.ema_decay", decay, decay is None or 0 < decay < 1, "(0, 1), or null")
    clip = train.gradient_clip
    _need("train.gradient_clip", clip, clip is None or clip > 0, "above 0, or null")
    kept = train.activation_memory
    _need("train.activation_memory", kept, 0 < kept <= 1, "(0, 1]")
    _at_least("train.num_workers", train.num_workers, -1)
    _at_least("train.checkpoint_every", train.checkpoint_every, 0)
    _at_least("train.log_every", train.log_every, 1)
    if train.max_steps is not None:
        _at_least("train.max_steps", train.max_steps, 1)
    _need(
        "train.aligned_crops",
        train.aligned_crops,
        train.aligned_crops == 0 or (train.aligned_crops > 0 and train.view == "crop"),
        "0, or the number of fixed crops together with train.view=crop",
    )
    _at_least("eval.crop_multiple", recipe.eval.crop_multiple, 1)
    _view("eval.view", recipe.eval.view)
    for view in recipe.training_views:
        _view("train.stages.resolution, train.view or train.aligned_crops", view)


def _check_guide(guide: GuideConfig) -> None:
    prompts = guide.prompts
    if prompts is not None:
        _need("guide.prompts", list(prompts), len(prompts) > 0, "at least one prompt, or null")
        twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
        _need("guide.prompts", twice, not twice, "every prompt once")
        _need("guide.prompt", guide.prompt, guide.prompt in prompts, "one of guide.prompts")
    for key, asked in (
        ("guide.prompt", () if guide.prompt is None else (guide.prompt,)),
        ("guide.prompts", prompts or ()),
    ):
        for prompt in asked:
            _need(key, repr(prompt), bool(prompt.strip()), "a question about the image")
    other = {"guide.prompt": guide.asked, "guide.prompts": prompts, "guide.joint": guide.joint}
    plain = {"guide.prompt": DEFAULT_PROMPT, "guide.prompts": None, "guide.joint": "all"}
    changed = [key for key in plain if other[key] != plain[key]]
    if not changed:
        return
    try:
        takes_prompt = find_guide(guide.name).takes_prompt
    except MmfeError:
        return  # its files need not be on a training machine
    for key in changed:
        _need(key, other[key], takes_prompt, f"no {key}: the guide {guide.name} is asked nothing")


def _view(key: str, name: str) -> None:
    try:
        View.parse(name)
    except UsageError as problem:
        raise UsageError(
            f"{problem.problem} in the recipe: {key}", got=problem.got, expected=problem.expected
        ) from None


def _at_least(key: str, value: int, least: int) -> None:
    _need(key, value, value >= least, f"{least} or more")


def _need(key: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"out of range in the recipe: {key}", got=value, expected=expected)
