"""The options that say how photographs are degraded, shared by every command that does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmfe_cache.degradations import DegradationConfig

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


def open_config(
    rain_masks: Path | None,
    snow_masks: Path | None,
    depth: Path | None,
    light_maps: Path | None,
    dark_photos: Path | None,
    mask_share: float,
    varied_share: float,
) -> DegradationConfig:
    """The options as one value; folders are looked into."""
    from mmfe_cache.degradations import DegradationConfig

    return DegradationConfig.from_folders(
        rain_masks=rain_masks,
        snow_masks=snow_masks,
        depth=depth,
        light_maps=light_maps,
        dark=dark_photos,
        mask_share=mask_share,
        varied_share=varied_share,
    )
