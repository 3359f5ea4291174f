"""Which commands there are; a new command is one file and one line here."""

from __future__ import annotations

import importlib

import typer

COMMANDS = ("demo", "train", "eval", "compare", "ablate", "restore", "inspect")
"""Files that hold one command each: a function ``command``."""

GROUPS = ("data", "guide", "cache", "model", "plot")
"""Files that hold a group of commands each: a typer application ``app``."""


def register(app: typer.Typer) -> None:
    """Add every command and group to ``app``, in the order of `COMMANDS` and `GROUPS`."""
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        app.command(name)(module.command)
    for name in GROUPS:
        module = importlib.import_module(f".{name}", __package__)
        app.add_typer(module.app, name=name)
