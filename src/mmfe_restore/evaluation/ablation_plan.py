"""`mmfe ablate`, what there is to do: a table's rows, its caches, and what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.parsing import DuplicateKeyError, parse_yaml
from mmfe_cache.store import open_cache
from mmfe_restore.data import find_store
from mmfe_restore.evaluation.compare import read_report
from mmfe_restore.evaluation.published import (
    PublishedRow,
    PublishedTable,
    published_table,
    published_tables,
)
from mmfe_restore.evaluation.report import METRICS
from mmfe_restore.recipes import Recipe, load_recipe, recipe_from_dict, recipe_to_dict

ABLATIONS = ("table4a", "table4b", "table5a", "table5b", "table5c", "tableS1")
"""The tables whose rows are recipes."""


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
class Row:
    """One row of the table and how far it has come.

    Attributes:
        published: as printed.
        recipe: with the overrides.
        parameters: of the network, counted.
        out: its run's folder.
        report: its evaluation's folder.
        state: ``evaluated``, ``trained``, ``started`` or ``missing``.
        shares: recipes of this and other tables that are the same training, labels aside.
    """

    published: PublishedRow
    recipe: Recipe
    parameters: int
    out: Path
    report: Path
    state: str
    shares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a table needs and what is there.

    Attributes:
        table: as printed.
        rows: in printed order.
        caches: every store that any row reads.
        root: where the data set lies; None for its default place.
        cache: the folder of its stores; None for the default place.
    """

    table: PublishedTable
    rows: tuple[Row, ...]
    caches: tuple[CacheNeed, ...]
    root: Path | None
    cache: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values of what there is to do."""
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "rows": [
                {
                    "recipe": row.recipe.name,
                    "method": row.published.method,
                    "parameters": row.parameters,
                    "published": published_json(row.published),
                    "state": row.state,
                    "shares": list(row.shares),
                    "out": str(row.out),
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
    out: Path = Path("runs"),
) -> Plan:
    """Look at everything a table needs; reads no image and loads no guide.

    Args:
        name: one of `ABLATIONS`.
        overrides: for every row, as ``--set`` takes them.
        root: where the data set lies; None for its default place.
        cache: the folder of the data set's stores; None for its default place.
        out: the runs go to ``out/<table>/<row>``, unless the same training is there already
            under the name of another table's row.

    Raises:
        UsageError: an unknown table or override, overrides that make two rows equal, or a run
            of another recipe in a row's place, or one that was judged in another way.
        DataError: a row's report is damaged.
    """
    if name not in ABLATIONS:
        raise UsageError("unknown ablation", got=name, expected=" | ".join(ABLATIONS))
    table = published_table(name)
    equal = _equal_recipes(overrides)
    rows = tuple(_row(row, overrides, out, equal) for row in table.rows)
    _check_distinct(rows, overrides)
    return Plan(table, rows, _needs(rows, cache), root, cache)


def identity(recipe: Recipe) -> str:
    """What a recipe trains, as text: two recipes of equal text train the same model.

    Its labels are left out: a name or description changes nothing that is computed.
    """
    values = recipe_to_dict(recipe)
    for label in ("name", "description", "published_parameters"):
        del values[label]
    return json.dumps(values, sort_keys=True)


def _equal_recipes(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The names of the published rows' recipes by what they train."""
    names = dict.fromkeys(
        row.recipe for table in published_tables().values() for row in table.rows if row.recipe
    )
    found: dict[str, list[str]] = {}
    for name in names:
        try:
            recipe = load_recipe(name, overrides)
        except UsageError:
            continue  # another table's row that these overrides do not fit
        found.setdefault(identity(recipe), []).append(name)
    return found


def _place(name: str, recipe: Recipe, shares: Sequence[str], out: Path) -> Path:
    """Its own folder, or that of an equal run which is there already."""
    own = out / name
    if (own / "recipe.yaml").is_file():
        return own
    equal = [out / other for other in shares if _holds(out / other, recipe)]
    finished = [folder for folder in equal if (folder / "model" / "config.json").is_file()]
    return (*finished, *equal, own)[0]


def _holds(folder: Path, recipe: Recipe) -> bool:
    there = _recipe_in(folder)
    return there is not None and identity(there) == identity(recipe)


def _recipe_in(folder: Path) -> Recipe | None:
    """The recipe of a run; None where there is none that can be read."""
    try:
        file = folder / "recipe.yaml"
        return recipe_from_dict(parse_yaml(file.read_text(encoding="utf-8"), file))
    except DuplicateKeyError:
        raise
    except (OSError, UsageError, yaml.YAMLError, ValueError):
        return None


def _row(
    row: PublishedRow, overrides: Sequence[str], out: Path, equal: Mapping[str, Sequence[str]]
) -> Row:
    assert row.recipe is not None, "every row of an ablation names its recipe"
    recipe = load_recipe(row.recipe, overrides)
    shares = tuple(name for name in equal[identity(recipe)] if name != row.recipe)
    folder = _place(row.recipe, recipe, shares, out)
    report = folder / "eval" / f"{recipe.data.dataset}-test"
    return Row(
        row, recipe, _parameters(recipe), folder, report, _state(folder, report, recipe), shares
    )


def _parameters(recipe: Recipe) -> int:
    from mmfe_restore.model import Restorer, count_parameters

    with torch.device("meta"):
        return count_parameters(Restorer(recipe.model))


def _state(folder: Path, report: Path, recipe: Recipe) -> str:
    file = folder / "recipe.yaml"
    if not file.is_file():
        return "missing"
    if not _holds(folder, recipe):
        raise UsageError(
            f"{folder} holds a run of another recipe than this table's row",
            expected=f"a run of {recipe.name} with the same --set",
            remedy="choose another place with --out, or remove the folder",
        )
    if (report / METRICS).is_file():
        _check_judged(folder, report, recipe)
        return "evaluated"
    return "trained" if (folder / "model" / "config.json").is_file() else "started"


def _check_judged(folder: Path, report: Path, recipe: Recipe) -> None:
    """One table, one way to measure: a row may have been judged by hand in between."""
    about = read_report(report).about
    guided = bool(recipe.model.reads)
    expected = {
        "protocol": recipe.eval.protocol,
        "guide": recipe.guide.name if guided else None,
        "view": recipe.eval.view if guided else None,
    }
    found = {name: about.get(name) for name in expected}
    if found != expected:
        raise UsageError(
            f"{report} was judged in another way than this table's rows are",
            got=", ".join(f"{name} {value}" for name, value in found.items()),
            expected=", ".join(f"{name} {value}" for name, value in expected.items()),
            remedy=f"mmfe eval --checkpoint {folder} --force, with the --root and --cache of this "
            "command",
        )


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
        for split, views in (
            ("train", row.recipe.training_views),
            ("test", (row.recipe.eval.view,)),
        ):
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
