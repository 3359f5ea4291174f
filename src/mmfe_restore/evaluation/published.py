"""The paper's tables as data, and ours set beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mmfe_cache.errors import UsageError


@dataclass(frozen=True)
class Score:
    """A printed pair: PSNR in dB and SSIM."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class PublishedRow:
    """A printed row.

    Attributes:
        method: its name.
        average: the printed average; None where there is none.
        values: class to score, for Tables 1 to 3; a class that is not printed is left out.
        recipe: the recipe here that the row belongs to; None for a peer's method.
        parameters: printed, in millions.
        latency: printed, in seconds.
        also_as_trained: whether the row is also judged at the view of its last training stage,
            where that differs from the view of the others.
    """

    method: str
    average: Score | None
    values: Mapping[str, Score]
    recipe: str | None = None
    parameters: float | None = None
    latency: float | None = None
    also_as_trained: bool = False


@dataclass(frozen=True)
class PublishedTable:
    """A printed table.

    Attributes:
        name: such as ``"table4a"``.
        title: what it shows.
        source: where it is printed.
        datasets: the datasets whose results stand beside it.
        columns: its classes in printed order; empty for tables of averages.
        rows: in printed order.
    """

    name: str
    title: str
    source: str
    datasets: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@cache
def published_tables() -> Mapping[str, PublishedTable]:
    """Every published table by name, in the paper's order."""
    text = files("mmfe_restore.evaluation").joinpath("published.yaml").read_text(encoding="utf-8")
    return {name: _table(name, raw) for name, raw in yaml.safe_load(text).items()}


def published_table(name: str) -> PublishedTable:
    """Look a table up.

    Raises:
        UsageError: the paper has none of that name.
    """
    tables = published_tables()
    if name not in tables:
        raise UsageError("unknown table", got=name, expected=" | ".join(tables))
    return tables[name]


def comparison_for(dataset: str) -> PublishedTable | None:
    """The table by classes that a dataset's results stand beside; None where there is none."""
    for table in published_tables().values():
        if table.columns and dataset in table.datasets:
            return table
    return None


def _table(name: str, raw: Mapping[str, Any]) -> PublishedTable:
    columns = tuple(raw.get("columns", ()))
    return PublishedTable(
        name=name,
        title=raw["title"],
        source=raw["source"],
        datasets=tuple(raw["datasets"]),
        columns=columns,
        rows=tuple(_row(row, columns) for row in raw["rows"]),
    )


def _row(raw: Mapping[str, Any], columns: tuple[str, ...]) -> PublishedRow:
    pairs = zip(columns, raw.get("values", ()), strict=True)
    return PublishedRow(
        method=raw["method"],
        average=None if raw["average"] is None else Score(*raw["average"]),
        values={label: Score(*pair) for label, pair in pairs if pair is not None},
        recipe=raw.get("recipe"),
        parameters=raw.get("parameters"),
        latency=raw.get("latency"),
        also_as_trained=raw.get("also_as_trained", False),
    )
