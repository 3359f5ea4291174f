"""Which commands there are; a new command is one file and one line here."""

from __future__ import annotations

import importlib

import typer

from .data_pack import FOLDER_NAMES

COMMANDS = (
    "demo",
    "train",
    "eval",
    "compare",
    "ablate",
    "restore",
    "inspect",
    "export",
    "web",
    "doctor",
)
"""Files that hold one command each: a function ``command``."""

OPEN_DATA = ("train", "eval")
"""Those of them that open a data set: their help names the folders of one's own."""

GROUPS = ("data", "guide", "cache", "model", "plot")
"""Files that hold a group of commands each: a typer application ``app``."""


def register(app: typer.Typer) -> None:
    """Add every command and group to ``app``, in the order of `COMMANDS` and `GROUPS`."""
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        app.command(name, epilog=FOLDER_NAMES if name in OPEN_DATA else None)(module.command)
    for name in GROUPS:
        module = importlib.import_module(f".{name}", __package__)
        app.add_typer(module.app, name=name)
