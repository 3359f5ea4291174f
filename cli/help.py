"""Help that a narrow terminal shows whole.

typer draws boxes with columns, and what does not fit a column it cuts: at 60 characters names of
options end in an ellipsis. Below `BOXED` characters each option is a line of its own here, its
text beneath it, and no word is ever cut.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import output
from .tables import wrapped

BOXED = 100
"""Characters from which typer's boxes have room for their columns."""

_INDENT, _DEEPER = "  ", "      "


class Application(typer.Typer):
    """A group of commands whose help is laid out for the terminal's width."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As typer's."""
        return super().command(name, cls=_Command, **options)


class _Command(TyperCommand):
    def __init__(self, *positional: Any, **options: Any) -> None:
        super().__init__(*positional, **options)
        for parameter in self.params:
            if parameter.param_type_name == "argument" and parameter.metavar is None:
                # In capitals, as the texts of the help name it.
                parameter.metavar = str(parameter.name).upper()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse words that the command does not take, and say how it is called.

        `mmfe`'s own switches are understood after the command too.
        """
        args = _take_switches(args)
        if (empty := _empty(args)) is not None and not ctx.resilient_parsing:
            ctx.fail(
                f"{empty} is empty, maybe of a variable that is not set. Write . for this folder."
            )
        allowed, ctx.allow_extra_args = ctx.allow_extra_args, True
        rest = super().parse_args(ctx, args)
        ctx.allow_extra_args = allowed
        if rest and not allowed and not ctx.resilient_parsing:
            ctx.fail(_about_extra(self, ctx, rest))
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of one command."""
        width = _width()
        if width >= BOXED:
            super().format_help(ctx, formatter)
            return
        formatter.write(_layout(self, ctx, width))


def _take_switches(words: list[str]) -> list[str]:
    """Obey ``--quiet`` and ``--debug``, and give back the other words; after ``--`` all stay."""
    end = words.index("--") if "--" in words else len(words)
    switches = {"--debug": "debug", "--quiet": "quiet", "-q": "quiet"}
    for name in switches.keys() & set(words[:end]):
        setattr(output.VERBOSITY, switches[name], True)
    return [word for word in words[:end] if word not in switches] + words[end:]


def _empty(words: list[str]) -> str | None:
    """Where there is a word without letters: as a path it would be the current folder.

    A suffix alone may be one.
    """
    for before, word in pairwise(["", *words]):
        name, _, value = word.partition("=")
        if not word and before != "--suffix":
            return f"What follows {before}" if before.startswith("-") else "One of the arguments"
        if word.startswith("--") and "=" in word and not value and name != "--suffix":
            return f"What follows {name}"
    return None


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help where nothing was given; take the switches of `mmfe` out.

        typer's exception for it prints nothing: typer's own layout has printed by then.
        """
        if ctx.parent is not None:  # mmfe itself has them among its options
            args = _take_switches(args)
        asked = not args and self.no_args_is_help and not ctx.resilient_parsing
        if asked and _width() < BOXED:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; a name that is none gets the nearest one, else all there are."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, names, n=1)
            told = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
            ctx.fail(f"No such command {name!r}. {told}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of a group."""
        width = _width()
        if width >= BOXED:
            super().format_help(ctx, formatter)
            return
        formatter.write(_layout(self, ctx, width))


def _about_extra(command: Any, ctx: Any, words: list[str]) -> str:
    kinds = [p for p in command.params if p.param_type_name == "argument"]
    takes = " ".join(str(argument.metavar) for argument in kinds)
    if takes:
        what = f"{takes} and options"
    else:
        first = next((p.opts[0] for p in command.params if not getattr(p, "is_flag", False)), None)
        what = "options only, each by its name" + (f", such as {first}" if first else "")
    said = f"Got unexpected {' '.join(words)}: {ctx.command_path} takes {what}."
    example = [
        text
        for text in _paragraphs(command.help or "")
        if text.startswith(("Example: ", "For example: "))
    ]
    return " ".join([said, *example])


def _width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _layout(command: Any, ctx: Any, width: int) -> str:
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [*wrapped(f"Usage: {ctx.command_path} {usage}", width), ""]
    for paragraph in _paragraphs(command.help or ""):
        lines += [*wrapped(paragraph, width), ""]
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or kind
            panels.setdefault(panel, []).append(record)
    for panel, records in panels.items():
        lines.append(f"{panel}:")
        for name, text in records:
            lines += wrapped(_named(name), width, _INDENT, _DEEPER)
            lines += wrapped(_plain(text), width, _DEEPER)
        lines.append("")
    lines += _commands(command, ctx, width)
    for paragraph in _paragraphs(command.epilog or ""):
        lines += [*wrapped(paragraph, width), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _commands(command: Any, ctx: Any, width: int) -> list[str]:
    if not hasattr(command, "list_commands"):
        return []
    lines = ["Commands:"]
    for name in command.list_commands(ctx):
        about = command.get_command(ctx, name)
        if about is not None and not about.hidden:
            lines.append(f"{_INDENT}{name}")
            first = next(_paragraphs(about.help or ""), "")
            lines += wrapped(first, width, _DEEPER)
    return [*lines, ""]


def _paragraphs(text: str) -> Iterator[str]:
    """A docstring's paragraphs, each in one line."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.strip():
            yield _plain(" ".join(paragraph.split()))


def _plain(text: str) -> str:
    return text.replace("`", "")


def _named(name: str) -> str:
    """An option's names and values; a long list of values may be broken between them."""
    return re.sub(r"(?<=[^\s\[<])\|(?=\S)", " | ", name)
