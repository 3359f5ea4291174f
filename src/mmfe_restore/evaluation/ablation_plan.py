"""`mmfe ablate`, what there is to do: a table's rows, its caches, and what is there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmfe_cache.datasets import load_dataset
from mmfe_cache.embeddings import JointTokens
from mmfe_cache.errors import CacheError, DataError, MmfeError, UsageError
from mmfe_cache.guides import check_guide
from mmfe_cache.places import RUNS
from mmfe_cache.store import open_cache
from mmfe_restore.data import find_store
from mmfe_restore.evaluation.ablation_rows import (
    PROMPT_ROWS,
    Row,
    Run,
    equal_recipes,
    identity,
    make_row,
)
from mmfe_restore.evaluation.published import PublishedRow, PublishedTable, published_table
from mmfe_restore.recipes import (
    Recipe,
    load_recipe,
    recipe_from_dict,
    recipe_names,
    recipe_to_dict,
)
from mmfe_restore.training.inputs import check_trained_on

ABLATIONS = ("table4a", "table4b", "table5a", "table5b", "table5c", "tableS1")
"""The tables whose rows are recipes."""

PROMPTS = "prompts"
"""The table whose rows differ in what the guide is asked."""

REFERENCE = "cdd11"
"""The recipe whose row the others are compared with."""


@dataclass(frozen=True)
class CacheNeed:
    """One store that a table reads.

    Attributes:
        guide: whose embeddings.
        split: of the dataset.
        path: where the store lies or will lie.
        prompt: what the guide is asked, if it is asked anything.
        joint: which of its tokens E_Joint pools.
        views: that are needed.
        missing: those of ``views`` that are not there, finished.
    """

    guide: str
    split: str
    path: Path
    prompt: str
    joint: JointTokens
    views: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a table needs and what is there.

    Attributes:
        table: as printed.
        rows: in printed order.
        reference: the row that the others are compared with.
        caches: every store that any row reads.
        root: where the data set lies; None for its default place.
        cache: the folder of its stores; None for the default place.
    """

    table: PublishedTable
    rows: tuple[Row, ...]
    reference: Row
    caches: tuple[CacheNeed, ...]
    root: Path | None
    cache: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values of what there is to do."""
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "reference": self.reference.recipe.name,
            "rows": [
                {
                    "recipe": row.recipe.name,
                    "method": row.published.method,
                    "parameters": row.parameters,
                    "published": published_json(row.published),
                    "state": row.state,
                    "shares": list(row.shares),
                    "out": str(row.runs[0].out),
                    "seeds": [
                        {"seed": run.recipe.train.seed, "state": run.state, "out": str(run.out)}
                        for run in row.runs
                    ],
                }
                for row in self.rows
            ],
            "caches": [
                {
                    "guide": need.guide,
                    "split": need.split,
                    "path": str(need.path),
                    "prompt": need.prompt,
                    "views": list(need.views),
                    "missing": list(need.missing),
                }
                for need in self.caches
            ],
        }


def make_plan(
    name: str,
    overrides: Sequence[str] = (),
    *,
    root: Path | None = None,
    cache: Path | None = None,
    out: Path | None = None,
    seeds: int = 1,
    prompts: Sequence[str] = (),
) -> Plan:
    """Look at everything a table needs; reads no image, loads no guide and imports no torch.

    Args:
        name: one of `ABLATIONS`, or `PROMPTS`.
        overrides: for every row, as ``--set`` takes them.
        root: where the data set lies; None for its default place.
        cache: the folder of the data set's stores; None for its default place.
        out: the runs go to ``out/<table>/<row>``, those of further seeds to
            ``out/<table>/<row>-seed<S>``, unless the same training is there already under the
            name of another table's row; None for their default place.
        seeds: trainings of each row, at least 1: with the recipe's seed and those that follow.
        prompts: of the table of prompts, a row each, the first the reference; those of the shipped
            recipes without any.

    Raises:
        UsageError: an unknown table or override, overrides that make two rows equal, or a run
            of another recipe in a row's place, or one that was judged in another way.
        DataError: a row's report is damaged.
    """
    if name not in (*ABLATIONS, PROMPTS):
        raise UsageError("unknown ablation", got=name, expected=" | ".join((*ABLATIONS, PROMPTS)))
    if prompts and name != PROMPTS:
        raise UsageError(
            f"the rows of {name} are not prompts",
            got=f"--prompt {prompts[0]!r}",
            expected=f"mmfe ablate {PROMPTS}, or --set guide.prompt=... for every row",
        )
    if seeds < 1:
        raise UsageError("a row has at least one training", got=f"--seeds {seeds}")
    out = RUNS.folder if out is None else out
    table, recipes = (
        _prompt_table(overrides, prompts) if name == PROMPTS else _printed_table(name, overrides)
    )
    equal = equal_recipes(overrides)
    rows = tuple(
        make_row(row, recipe, out, equal, seeds)
        for row, recipe in zip(table.rows, recipes, strict=True)
    )
    _check_distinct(rows, overrides)
    # Whoever names the rows also says, by their order, which one the others are compared with.
    reference = rows[0] if prompts else _reference(rows, overrides)
    return Plan(table, rows, reference, _needs(rows, cache), root, cache)


def missing_inputs(plan: Plan) -> tuple[MmfeError, ...]:
    """What would stop the work that is left, found without torch: importing it takes seconds.

    Returns:
        An error for each split of the data set that is still needed and not there, for each guide
        that is not there and whose cache is still to be built, and for each run that was trained on
        other data; none twice.
    """
    dataset = plan.rows[0].recipe.data.dataset  # one and the same for a table's rows
    runs = [run for row in plan.rows for run in row.runs]
    splits = {need.split for need in plan.caches if need.missing}
    if any(run.state in ("missing", "started") for run in runs):
        splits.add("train")
    if any(not one.done for run in runs for one in run.evaluations):
        splits.add("test")
    guides = dict.fromkeys(need.guide for need in plan.caches if need.missing)
    looks: list[Callable[[], object]] = [
        *(partial(load_dataset, dataset, split, plan.root) for split in sorted(splits)),
        *(partial(check_guide, guide) for guide in guides),
        *(partial(check_run, plan, run) for run in runs),
    ]
    problems: dict[str, MmfeError] = {}
    for look in looks:
        try:
            look()
        except MmfeError as problem:
            problems.setdefault(str(problem), problem)
    return tuple(problems.values())


def check_run(plan: Plan, run: Run) -> None:
    """Refuse a trained run of other data than the plan's: one table, one data set.

    Raises:
        CacheError: it read other embeddings than the cache of training holds.
        DataError: without a guide, it saw other pictures.
        UsageError: its record is damaged.
    """
    if run.state not in ("trained", "evaluated"):
        return  # `train` looks when it goes on
    try:
        check_trained_on(run.recipe, root=plan.root, cache=plan.cache, out=run.out)
    except (CacheError, DataError) as problem:
        raise type(problem)(
            f"{run.out}: {problem.problem}",
            got=problem.got,
            expected=problem.expected,
            remedy="give its data set and caches (--root, --cache), or choose another --out for "
            "the runs of this table",
        ) from None


def _printed_table(name: str, overrides: Sequence[str]) -> tuple[PublishedTable, list[Recipe]]:
    table = published_table(name)
    names = [row.recipe for row in table.rows]
    assert None not in names, "every row of an ablation names its recipe"
    return table, [load_recipe(str(name), overrides) for name in names]


def _prompt_table(
    overrides: Sequence[str], prompts: Sequence[str]
) -> tuple[PublishedTable, list[Recipe]]:
    """The shipped recipes of prompts, or one for each of ``prompts``; the paper prints no figures.

    Raises:
        UsageError: a prompt is empty or there twice, or the guide takes none.
    """
    if prompts:
        _refuse_repeated(prompts)
        recipes = [_asking(prompt, overrides) for prompt in prompts]
    else:
        names = [name for name in recipe_names() if name.startswith(PROMPT_ROWS)]
        recipes = [load_recipe(name, overrides) for name in names]
        recipes.sort(key=lambda recipe: recipe.name != f"{PROMPT_ROWS}paper")
    rows = tuple(PublishedRow(_question(recipe), None, {}, recipe.name) for recipe in recipes)
    title, source = "What the guide is asked", "nothing (the paper has no figures by prompt)"
    return PublishedTable(PROMPTS, title, source, (REFERENCE,), (), rows), recipes


def _question(recipe: Recipe) -> str:
    if recipe.guide.prompts is None:
        return recipe.guide.asked
    return f"one of {len(recipe.guide.prompts)} for every draw; judged: {recipe.guide.asked}"


def _refuse_repeated(prompts: Sequence[str]) -> None:
    twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if twice:
        raise UsageError("a prompt is there twice", got=repr(twice[0]), expected="every one once")


def _asking(prompt: str, overrides: Sequence[str]) -> Recipe:
    """The reference's recipe with another prompt, named after its words and a hash of all of it."""
    values = recipe_to_dict(load_recipe(REFERENCE, overrides))
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:32].strip("-")
    digest = hashlib.blake2b(prompt.encode(), digest_size=4).hexdigest()
    values |= {
        "name": f"{PROMPT_ROWS}{words}-{digest}".replace("/-", "/"),
        "description": f"Asked: {prompt}",
        "guide": {**values["guide"], "prompt": prompt, "prompts": None},
    }
    return recipe_from_dict(values)


def _reference(rows: Sequence[Row], overrides: Sequence[str]) -> Row:
    """The row that is the full model; the first where overrides leave none."""
    try:
        full = identity(load_recipe(REFERENCE, overrides))
    except UsageError:
        return rows[0]
    return next((row for row in rows if identity(row.recipe) == full), rows[0])


def _check_distinct(rows: Sequence[Row], overrides: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        text = identity(row.recipe)
        if text in seen:
            raise UsageError(
                f"with these overrides two rows are the same: {seen[text]} and {row.recipe.name}",
                got=" ".join(f"--set {o}" for o in overrides) or "no override",
                expected="overrides that leave alone what the table varies",
            )
        seen[text] = row.recipe.name


def _needs(rows: Sequence[Row], cache: Path | None) -> tuple[CacheNeed, ...]:
    wanted: dict[tuple[str, str, Path, str, JointTokens], dict[str, None]] = {}
    for row in rows:
        if not row.recipe.model.reads:
            continue
        dataset = row.recipe.data.dataset
        judged = tuple(evaluation.view for evaluation in row.runs[0].evaluations)
        reads = [("train", one, one.training_views) for one in row.recipe.each_prompt]
        for split, one, views in (*reads, ("test", row.recipe, judged)):
            path, guide = find_store(one, dataset, split, cache), one.guide
            key = (guide.name, split, path, guide.asked, guide.joint)
            wanted.setdefault(key, {}).update(dict.fromkeys(views))
    return tuple(
        CacheNeed(*key, tuple(views), _missing(key[2], tuple(views)))
        for key, views in wanted.items()
    )


def _missing(path: Path, views: tuple[str, ...]) -> tuple[str, ...]:
    try:
        there = open_cache(path).views
    except CacheError:
        if path.exists():
            raise
        return views
    return tuple(view for view in views if view not in there)


def published_json(row: PublishedRow) -> dict[str, Any]:
    """What the paper prints in a row; None where it prints nothing."""
    return {
        "psnr": None if row.average is None else row.average.psnr,
        "ssim": None if row.average is None else row.average.ssim,
        "parameters": row.parameters,
        "latency": row.latency,
    }
