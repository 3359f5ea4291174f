"""`mmfe ablate`, what there is to do: a table's rows, its caches, and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.places import RUNS
from mmfe_cache.store import open_cache
from mmfe_restore.data import find_store
from mmfe_restore.evaluation.ablation_rows import Row, equal_recipes, identity, make_row
from mmfe_restore.evaluation.published import PublishedRow, PublishedTable, published_table
from mmfe_restore.recipes import load_recipe

ABLATIONS = ("table4a", "table4b", "table5a", "table5b", "table5c", "tableS1")
"""The tables whose rows are recipes."""

REFERENCE = "cdd11"
"""The recipe whose row the others are compared with."""


@dataclass(frozen=True)
class CacheNeed:
    """One store that a table reads.

    Attributes:
        guide: whose embeddings.
        split: of the dataset.
        path: where the store lies or will lie.
        views: that are needed.
        missing: those of ``views`` that are not there, finished.
    """

    guide: str
    split: str
    path: Path
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
) -> Plan:
    """Look at everything a table needs; reads no image and loads no guide.

    Args:
        name: one of `ABLATIONS`.
        overrides: for every row, as ``--set`` takes them.
        root: where the data set lies; None for its default place.
        cache: the folder of the data set's stores; None for its default place.
        out: the runs go to ``out/<table>/<row>``, those of further seeds to
            ``out/<table>/<row>-seed<S>``, unless the same training is there already under the
            name of another table's row; None for their default place.
        seeds: trainings of each row, at least 1: with the recipe's seed and those that follow.

    Raises:
        UsageError: an unknown table or override, overrides that make two rows equal, or a run
            of another recipe in a row's place, or one that was judged in another way.
        DataError: a row's report is damaged.
    """
    if name not in ABLATIONS:
        raise UsageError("unknown ablation", got=name, expected=" | ".join(ABLATIONS))
    if seeds < 1:
        raise UsageError("a row has at least one training", got=f"--seeds {seeds}")
    out = RUNS.folder if out is None else out
    table = published_table(name)
    equal = equal_recipes(overrides)
    rows = tuple(make_row(row, overrides, out, equal, seeds) for row in table.rows)
    _check_distinct(rows, overrides)
    return Plan(table, rows, _reference(rows, overrides), _needs(rows, cache), root, cache)


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
    wanted: dict[tuple[str, str, Path], dict[str, None]] = {}
    for row in rows:
        if not row.recipe.model.reads:
            continue
        guide, dataset = row.recipe.guide.name, row.recipe.data.dataset
        judged = tuple(judgement.view for judgement in row.runs[0].judgements)
        for split, views in (("train", row.recipe.training_views), ("test", judged)):
            path = find_store(row.recipe, dataset, split, cache)
            wanted.setdefault((guide, split, path), {}).update(dict.fromkeys(views))
    return tuple(
        CacheNeed(guide, split, path, tuple(views), _missing(path, tuple(views)))
        for (guide, split, path), views in wanted.items()
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
