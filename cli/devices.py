"""The option ``--device``, alike in every command that computes."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completion

Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, cuda, cuda:N or mps.",
        autocompletion=completion.devices,
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
