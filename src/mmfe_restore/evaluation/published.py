"""How the peers measured, by name, and the paper's tables as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mmfe_cache.datasets import DATASETS
from mmfe_cache.errors import UsageError

if TYPE_CHECKING:
    from mmfe_restore.metrics.base import Channel
    from mmfe_restore.metrics.psnr_ssim import Covariance, Window

ProtocolName = Literal["mmfe", "promptir", "moce-ir", "onerestore", "restormer"]


@dataclass(frozen=True)
class Protocol:
    """One way to turn two images into published figures.

    Attributes:
        name: as in ``--protocol``.
        description: one sentence for people.
        crop_multiple: centre-crop both images to a multiple of this first; None leaves it to
            the recipe. Some data sets are never cropped: `DatasetInfo.whole_images`.
        rounded: round the restored image to 8 bits first, as saving it as PNG does.
        ssim_window: the window behind this protocol's published SSIM.
        covariance: of SSIM.
        luma_rain: judge the test sets of deraining in Y instead of RGB.
        source: where it was read.
    """

    name: ProtocolName
    description: str
    crop_multiple: int | None = None
    rounded: bool = False
    ssim_window: Window = "uniform"
    covariance: Covariance = "sample"
    luma_rain: bool = False
    source: str = ""

    def crop_for(self, dataset: str, recipe_multiple: int) -> int:
        """The crop multiple for a dataset; 1 means the whole image.

        Where the protocol leaves it to the recipe, the data set's own is the least: its peers judge
        no more of a picture.
        """
        info = DATASETS.get(dataset)
        if info is not None and info.whole_images:
            return 1
        if self.crop_multiple is not None:
            return self.crop_multiple
        return max(recipe_multiple, 1 if info is None else info.crop_multiple)

    def channel_for(self, dataset: str, label: str) -> Channel:
        """The colour space that images of a dataset's label are judged in."""
        # CDD11's "rain" is one of eleven compositions, which everyone judges in RGB.
        whole = dataset in DATASETS and DATASETS[dataset].whole_images
        is_deraining = not whole and label.split("-")[0] == "rain"
        return "y" if self.luma_rain and is_deraining else "rgb"

    def to_json(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "name": self.name,
            "description": self.description,
            "ssim_window": self.ssim_window,
            "ssim_covariance": self.covariance,
            "luma_rain": self.luma_rain,
            "source": self.source,
        }


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "mmfe",
                "RGB, the recipe's crop (the data set's at least), no rounding; both SSIM windows",
                ssim_window="gaussian",
                source="the paper compares with MoCE-IR's rows, hence the Gaussian window",
            ),
            Protocol(
                "promptir",
                "RGB, centre crop to a multiple of 16, no rounding, 7×7 SSIM",
                crop_multiple=16,
                source="PromptIR, AdaIR, AirNet and DFPIR: test code",
            ),
            Protocol(
                "moce-ir",
                "RGB, centre crop to a multiple of 16 (CDD11 whole), no rounding, 11×11 SSIM",
                crop_multiple=16,
                ssim_window="gaussian",
                source="MoCE-IR: test code",
            ),
            Protocol(
                "onerestore",
                "RGB, whole images, rounded to 8 bits, 7×7 SSIM",
                crop_multiple=1,
                rounded=True,
                source="OneRestore: evaluation of saved PNG files",
            ),
            Protocol(
                "restormer",
                "whole images, rounded to 8 bits; deraining in Y, the rest in RGB; Wang's SSIM",
                crop_multiple=1,
                rounded=True,
                ssim_window="gaussian",
                covariance="population",
                luma_rain=True,
                source="Restormer: Deraining/evaluate_PSNR_SSIM.m",
            ),
        )
    }
)
"""Every protocol by its name."""


def protocol_named(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise UsageError("unknown protocol", got=name, expected=" | ".join(PROTOCOLS))
    return PROTOCOLS[name]


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
