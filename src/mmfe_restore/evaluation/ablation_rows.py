"""The rows of an ablation: their trainings, one a seed, where each lies and how far it has come."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.parsing import DuplicateKeyError, parse_yaml
from mmfe_restore.data.cache import guide_name
from mmfe_restore.evaluation.compare import read_report
from mmfe_restore.evaluation.published import PublishedRow, published_tables
from mmfe_restore.evaluation.report import METRICS_FILE
from mmfe_restore.model.folders import (
    CONFIG,
    model_folder,
    recipe_of,
    recorded_guide,
    with_trained_prompt,
)
from mmfe_restore.recipes import (
    Recipe,
    load_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_settings,
)

STATES = ("missing", "started", "trained", "evaluated")
"""How far a training can have come, in order."""


PROMPT_ROWS = "prompts/"
"""How the names of recipes begin that differ in what the guide is asked."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one training.

    Attributes:
        view: that the guide's embeddings are read at.
        folder: of its report.
        done: whether the report is there.
    """

    view: str
    folder: Path
    done: bool


@dataclass(frozen=True)
class Run:
    """One training of a row.

    Attributes:
        recipe: with the overrides and this training's seed.
        out: its folder.
        evaluations: the row's own first.
        state: one of `STATES`.
    """

    recipe: Recipe
    out: Path
    evaluations: tuple[Evaluation, ...]
    state: str


@dataclass(frozen=True)
class Row:
    """One row of the table and how far it has come.

    Attributes:
        published: as printed.
        recipe: with the overrides; its seed is that of the first run.
        runs: its trainings, in the order of their seeds.
        shares: recipes of this and other tables that are the same training, labels aside.
    """

    published: PublishedRow
    recipe: Recipe
    runs: tuple[Run, ...]
    shares: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """That of the training which has come least far."""
        return min((run.state for run in self.runs), key=STATES.index)

    @cached_property
    def parameters(self) -> int:
        """Of the network, counted when asked for: that takes torch, and a plan does not."""
        from mmfe_restore.model import parameters_of

        return parameters_of(self.recipe.model)


def make_row(
    row: PublishedRow,
    recipe: Recipe,
    out: Path,
    equal: Mapping[str, Sequence[str]],
    seeds: int,
) -> Row:
    """Look a row up on the disk.

    Args:
        row: as printed.
        recipe: that the row trains, with the overrides.
        out: the folder of all runs.
        equal: the names of all tables' recipes by their `identity`.
        seeds: how many trainings it has: the recipe's seed and those that follow.

    Raises:
        UsageError: a run of another recipe lies in its place, or was judged in another way.
    """
    shares = tuple(name for name in equal.get(identity(recipe), ()) if name != recipe.name)
    runs = tuple(
        _run(row, replace(recipe, train=replace(recipe.train, seed=seed)), shares, out, step)
        for step, seed in enumerate(range(recipe.train.seed, recipe.train.seed + seeds))
    )
    return Row(row, recipe, runs, shares)


def identity(recipe: Recipe) -> str:
    """What a recipe trains, as text: two recipes of equal text train the same model.

    Its labels are left out: a name or description changes nothing that is computed.
    """
    return json.dumps(recipe_settings(recipe), sort_keys=True)


def equal_recipes(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The names of all tables' recipes by what they train."""
    printed = (row.recipe for table in published_tables().values() for row in table.rows)
    prompts = (name for name in recipe_names() if name.startswith(PROMPT_ROWS))
    names = dict.fromkeys(name for name in (*printed, *prompts) if name is not None)
    found: dict[str, list[str]] = {}
    for name in names:
        try:
            recipe = load_recipe(name, overrides)
        except UsageError:
            continue  # another table's row that these overrides do not fit
        found.setdefault(identity(recipe), []).append(name)
    return found


def place_of(name: str, runs: Path) -> Path:
    """Where the training of a recipe lies: equal recipes of several tables share one run.

    Args:
        name: of the recipe, such as ``table4b/full``.
        runs: the folder of all runs.

    Returns:
        ``runs/name``, unless it holds no model and the folder of an equal recipe does: one that
        was trained without other settings, or else one that was.
    """
    own = runs / name
    if _holds_model(own):
        return own
    trains, names = next((one for one in equal_recipes(()).items() if name in one[1]), ("", []))
    equal = [runs / other for other in names if _holds_model(runs / other)]
    same = [folder for folder in equal if _trained(folder, trains)]
    return (*same, *equal, own)[0]


def _trained(folder: Path, trains: str) -> bool:
    """Whether the model of a run, or of a checkpoint, is of a recipe of this `identity`."""
    try:
        return identity(recipe_of(model_folder(folder))) == trains
    except MmfeError:
        return False


def _holds_model(folder: Path) -> bool:
    """Whether it is a finished run's, or itself a checkpoint's."""
    return _is_trained(folder) or (folder / CONFIG).is_file()


def _is_trained(folder: Path) -> bool:
    return (folder / "model" / CONFIG).is_file()


def _run(row: PublishedRow, recipe: Recipe, shares: Sequence[str], out: Path, step: int) -> Run:
    suffix = f"-seed{recipe.train.seed}" if step else ""
    folder = _place(recipe, shares, out, suffix)
    views = (recipe.eval.view, *_further_views(row, recipe))
    evaluations = tuple(_evaluation(folder, recipe, view) for view in views)
    return Run(recipe, folder, evaluations, _state(folder, evaluations, recipe))


def _further_views(row: PublishedRow, recipe: Recipe) -> tuple[str, ...]:
    """The view of the last stage, for a row that is also to be judged as it was trained."""
    if not row.also_as_trained or not recipe.model.reads:
        return ()
    trained = recipe.stage_views(recipe.train.stages[-1])[0]
    return () if trained == recipe.eval.view else (trained,)


def _evaluation(folder: Path, recipe: Recipe, view: str) -> Evaluation:
    # Beside eval/, not in it: a run with one report there is its own name for `mmfe compare`.
    own = view == recipe.eval.view
    above = folder / ("eval" if own else f"eval-at-{view.replace('@', '-').replace('#', '-')}")
    report = above / f"{recipe.data.dataset}-test"
    return Evaluation(view, report, (report / METRICS_FILE).is_file())


def _place(recipe: Recipe, shares: Sequence[str], out: Path, suffix: str) -> Path:
    """Its own folder, or that of an equal run which has come further."""
    own = out / f"{recipe.name}{suffix}"
    begun = (own / "recipe.yaml").is_file()
    if begun and (_is_trained(own) or not _holds(own, recipe)):
        return own  # which is refused where it is another recipe's
    others = (out / f"{other}{suffix}" for other in shares)
    equal = [folder for folder in others if _holds(folder, recipe)]
    finished = [folder for folder in equal if _is_trained(folder)]
    started = [own] if begun else equal
    return (*finished, *started, own)[0]


def _holds(folder: Path, recipe: Recipe) -> bool:
    there = _recipe_in(folder)
    return there is not None and identity(there) == identity(recipe)


def _recipe_in(folder: Path) -> Recipe | None:
    """The recipe of a run; None where there is none that can be read.

    Of a trained one it names what the guide was asked: a recipe without a prompt takes the one of
    the store that ``--cache`` names.
    """
    try:
        file = folder / "recipe.yaml"
        recipe = recipe_from_dict(parse_yaml(file.read_text(encoding="utf-8"), file))
        return with_trained_prompt(recipe, recorded_guide(folder / "model"))
    except DuplicateKeyError:
        raise
    except (OSError, UsageError, yaml.YAMLError, ValueError):
        return None


def _state(folder: Path, evaluations: Sequence[Evaluation], recipe: Recipe) -> str:
    file = folder / "recipe.yaml"
    if not file.is_file():
        return "missing"
    if not _holds(folder, recipe):
        there = _recipe_in(folder)
        other = there is not None and there.guide.asked != recipe.guide.asked
        raise UsageError(
            f"{folder} holds a run of another recipe than this table's row",
            got=f"guide.prompt={there.guide.asked!r}" if there is not None and other else None,
            expected=f"a run of {recipe.name} with the same --set"
            + (f" and guide.prompt={recipe.guide.asked!r}" if other else ""),
            remedy="choose another place with --out, or remove the folder",
        )
    for evaluation in evaluations:
        if evaluation.done:
            _check_judged(folder, evaluation, recipe)
    if all(evaluation.done for evaluation in evaluations):
        return "evaluated"
    return "trained" if _is_trained(folder) else "started"


def _check_judged(folder: Path, evaluation: Evaluation, recipe: Recipe) -> None:
    """One table, one way to measure: a row may have been judged by hand in between."""
    about = read_report(evaluation.folder).about
    guided = bool(recipe.model.reads)
    expected = {
        "protocol": recipe.eval.protocol,
        "guide": recipe.guide.name if guided else None,
        "view": evaluation.view if guided else None,
        "attention_window": recipe.model.attention_window,
    }
    # Earlier reports do not say whose embeddings were read, such as a student's.
    if guided and about.get("embeddings") is not None:
        expected["embeddings"] = guide_name(recipe)
    # Without a prompt of the recipe's own it is that of the store which ``--cache`` names.
    if guided and about.get("prompt") is not None and recipe.guide.prompt is not None:
        expected["prompt"] = recipe.guide.prompt
    for key in ("tokens", "control"):
        if guided and about.get(key) is not None:
            expected[key] = getattr(recipe.guide, key)
    found = {name: about.get(name) for name in expected}
    if found != expected:
        raise UsageError(
            f"{evaluation.folder} was judged in another way than this table's rows are",
            got=", ".join(f"{name} {value}" for name, value in found.items()),
            expected=", ".join(f"{name} {value}" for name, value in expected.items()),
            remedy=f"{_judging(folder, evaluation, recipe)}, with the --root and --cache of this "
            "command",
        )


def _judging(folder: Path, evaluation: Evaluation, recipe: Recipe) -> str:
    """The command that makes this report anew; without ``--out`` it is the one at the own view."""
    own = evaluation.view == recipe.eval.view
    place = [] if own else ["--view", evaluation.view, "--out", str(evaluation.folder)]
    return shlex.join(["mmfe", "eval", "--checkpoint", str(folder), *place, "--force"])
