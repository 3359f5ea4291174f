"""Options that several commands have, spelled once: they are called alike and take the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion

if TYPE_CHECKING:
    from mmfe_cache.degradations import DegradationConfig

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Dataset = Annotated[
    str, typer.Option(help="A data set of `mmfe data list`.", autocompletion=completion.datasets)
]
FOLDER_NAMES = (
    "The data set `folder` is pairs of your own: two folders of equal file names in ROOT, or in "
    "ROOT/train and ROOT/test, called input+target, degraded+clean, input+gt, lq+gt, low+high, "
    "low+gt, rainy+gt, rain+norain, hazy+gt, hazy+clear, blur+sharp or noisy+clean."
)
"""The end of the help of every command that opens a data set."""

Root = Annotated[
    Path | None, typer.Option(help="Its folder; default: $MMFE_DATA/DATASET, else data/DATASET.")
]
Splits = Annotated[
    list[str] | None,
    typer.Option(help="train or test; default: both.", autocompletion=completion.splits),
]

Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, cuda, cuda:N or mps.",
        autocompletion=completion.devices,
    ),
]
"""Of a command that restores."""

Window = Annotated[
    str,
    typer.Option(
        "--window",
        help="Side in pixels of the windows that attention sums over, such as 384: somewhat more "
        "than the training's crops; small ones take time and memory. off: the whole image. auto: "
        "model.attention_window of the network.",
        autocompletion=completion.wholes,
    ),
]
"""Of a command that restores."""

GuideDevice = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, cuda or cuda:N.",
        autocompletion=completion.guide_devices,
    ),
]
"""Of a command that trains, or runs a guide: a Mac's GPU does neither."""

_PANEL = "Degradations"

RainMasks = Annotated[
    Path | None,
    typer.Option(
        help="Folder of rain masks (streaks on black); each picture draws one.",
        rich_help_panel=_PANEL,
    ),
]
SnowMasks = Annotated[
    Path | None,
    typer.Option(
        help="Folder of snow masks (flakes on black); each picture draws one.",
        rich_help_panel=_PANEL,
    ),
]
Depth = Annotated[
    Path | None,
    typer.Option(
        help="Folder of depth maps, bright near, named as the photographs.", rich_help_panel=_PANEL
    ),
]
LightMaps = Annotated[
    Path | None,
    typer.Option(
        help="Folder of illumination maps, named as the photographs.", rich_help_panel=_PANEL
    ),
]
DarkPhotos = Annotated[
    Path | None,
    typer.Option(
        help="Folder of real low-light photographs of the same scenes, named as the photographs; "
        "scenes without one get the model's low light.",
        rich_help_panel=_PANEL,
    ),
]
MaskShare = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="How often masks are used where there are any.", rich_help_panel=_PANEL
    ),
]
VariedShare = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="How often degradations are drawn from wide ranges instead of CDD11's.",
        rich_help_panel=_PANEL,
    ),
]


def degradation_config(
    rain_masks: Path | None,
    snow_masks: Path | None,
    depth: Path | None,
    light_maps: Path | None,
    dark_photos: Path | None,
    mask_share: float,
    varied_share: float,
) -> DegradationConfig:
    """The options as one value; folders are looked into.

    Raises:
        UsageError: a share of masks, and no masks.
        DataError: see `DegradationConfig.from_folders`.
    """
    from mmfe_cache.degradations import DegradationConfig
    from mmfe_cache.errors import UsageError

    if mask_share != 1 and rain_masks is None and snow_masks is None:
        raise UsageError(
            "--mask-share says how often masks are used, and there are none",
            got=f"--mask-share {mask_share:g}",
            expected="--rain-masks or --snow-masks beside it",
            remedy="name a folder of masks, or leave --mask-share out",
        )
    return DegradationConfig.from_folders(
        rain_masks=rain_masks,
        snow_masks=snow_masks,
        depth=depth,
        light_maps=light_maps,
        dark=dark_photos,
        mask_share=mask_share,
        varied_share=varied_share,
    )


def given_besides(context: typer.Context, *expected: str) -> list[str]:
    """The options of a command line that go with another way to call the command.

    Args:
        context: of the command.
        expected: the parameters' names that may be given.

    Returns:
        such as ``["--view"]``, in the command's order; what a default fills in is not one.
    """
    return [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name not in expected
        and getattr(context.get_parameter_source(parameter.name or ""), "name", "") == "COMMANDLINE"
    ]
