"""What the schema cannot say of a recipe: which key was meant, and what must fit together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, cast, get_type_hints

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


def check_key_path(path: Sequence[str]) -> None:
    """Refuse an override of something that is not a single setting.

    Raises:
        UsageError: an unknown key, or a whole part such as ``model``.
    """
    name = ".".join(path)
    if any(name.startswith(f"{free}.") for free in FREE_KEYS):
        return
    if name not in recipe_keys():
        raise unknown_key(name)
    if any(key.startswith(f"{name}.") for key in recipe_keys()):
        inside = [key for key in recipe_keys() if key.startswith(f"{name}.")]
        raise UsageError(f"{name} is a part of a recipe", expected="one of " + ", ".join(inside))


def unknown_key(path: str) -> UnknownKeyError:
    """The error for a key that no recipe has; names the nearest known ones."""
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
    """Refuse settings, each in its range, that contradict each other.

    Raises:
        UsageError: names the key, its value and the range.
    """
    model, train = recipe.model, recipe.train
    # A setting without effect would look like an ablation of it.
    _need(
        "model.low_band",
        model.low_band,
        not model.low_band or model.experts == "frequency",
        f"false with model.experts={model.experts}: only the frequency domain has an LL band",
    )
    _check_guide(recipe.guide)
    for level, heads in enumerate(model.num_heads):
        channels = model.width * 2**level
        _need(
            "model.num_heads",
            model.num_heads,
            channels % heads == 0,
            f"heads that divide the {channels} channels of level {level + 1}",
        )
    for stage in train.stages:
        _need(
            "train.stages.batch_size",
            stage.batch_size,
            stage.batch_size % train.accumulate == 0,
            f"a multiple of train.accumulate, {train.accumulate}",
        )
    _need(
        "train.aligned_crops",
        train.aligned_crops,
        train.aligned_crops == 0 or train.view == "crop",
        "0, or the number of fixed crops together with train.view=crop",
    )
    _view("eval.view", recipe.eval.view)
    for view in recipe.training_views:
        _view("train.stages.resolution, train.view or train.aligned_crops", view)


def _check_guide(guide: GuideConfig) -> None:
    prompts = guide.prompts
    if prompts is not None:
        twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
        _need("guide.prompts", twice, not twice, "every prompt once")
        known = ", ".join(map(repr, prompts))
        asked = repr(guide.prompt)
        _need("guide.prompt", asked, guide.prompt in prompts, f"one of guide.prompts: {known}")
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


def _need(key: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise out_of_range(key, value, expected)


def out_of_range(key: str, value: object, expected: str) -> UsageError:
    """The error for a value of the right type and out of its range."""
    return UsageError(f"out of range in the recipe: {key}", got=value, expected=expected)
