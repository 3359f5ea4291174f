"""What the commands print: data on stdout, progress and messages on stderr."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .tables import print_table as print_table, screen, wrapped

if TYPE_CHECKING:
    from mmfe_cache.progress import Progress


class StoppedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP, where Ctrl-C is another thing: it ends a page that is being served."""


@dataclass
class Verbosity:
    """The global switches of this process, and whether it was told of an interruption.

    Attributes:
        quiet: ``--quiet``.
        debug: ``--debug``.
        told: an interruption was reported already.
        step: of `mmfe demo`, whose commands run in this process; empty outside of it.
    """

    quiet: bool = False
    debug: bool = False
    told: bool = False
    step: str = ""


VERBOSITY = Verbosity()


def write_any_name() -> None:
    """Let both streams print every file name: as its own bytes, or with ? for what they lack.

    What the caller has closed (`mmfe ... >&-`, some services) leads nowhere from here on: else the
    first file that is opened would take its number, and whatever is printed would end in an error.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if unicode else "replace")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write one JSON document to stdout; non-finite numbers become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # such as a file name that is no UTF-8: escaped, it is JSON still
        text = json.dumps(_finite(value), indent=2)
    print_line(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def signed(value: float | None, digits: int = 2) -> str | None:
    """A difference with its sign; None, an empty cell, where there is none."""
    return None if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def print_line(text: str) -> None:
    """Write one line for people to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_wrapped(text: str) -> None:
    """Write a sentence for people to stdout, wrapped at its words where there is a width.

    Not for commands and paths that are to be copied: those stay in one line, by `print_line`.
    """
    print_line("\n".join(wrapped(text, screen(sys.stdout))))


def note(text: str) -> None:
    """Write one line for people to stderr, ``--quiet`` or not: warnings, what failed."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def message(text: str) -> None:
    """Write one line for people to stderr that ``--quiet`` leaves out."""
    if not VERBOSITY.quiet:
        note(text)


def remark(text: str) -> None:
    """Write ``note:`` and a sentence to stderr, wrapped at its words where there is a width."""
    note("\n".join(wrapped(f"note: {text}", screen(sys.stderr))))


def note_repeated(overrides: Sequence[str]) -> None:
    """Say which keys ``--set`` was given for more than once."""
    from mmfe_restore.recipes.loading import repeated_keys

    for key in repeated_keys(overrides):
        remark(f"{key} is set more than once; the last value counts")


def warn(text: str) -> None:
    """Write ``warning:`` and a sentence to stderr, wrapped at its words where there is a width."""
    note("\n".join(wrapped(f"warning: {text}", screen(sys.stderr))))


def warn_plainly() -> None:
    """Let Python show what picture files hold and is not read as every other warning here."""
    from mmfe_cache.errors import PictureWarning

    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, PictureWarning):
            warn(str(message))
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def error(text: str) -> None:
    """Write an error message to stderr."""
    sys.stderr.write(f"mmfe: {text}\n")


def note_driver(device: str = "auto") -> None:
    """Say where ``auto`` leaves a GPU out because NVIDIA's driver is too old for PyTorch."""
    from mmfe_cache.machine import driver_problem

    if device == "auto" and (found := driver_problem()):
        problem, remedy = found
        warn(f"no GPU is used: {problem}")
        note("\n".join(wrapped(f"  to do: {remedy}", screen(sys.stderr))))


def take_threads(device: str = "auto") -> None:
    """Choose how many threads this process computes on, once, and say so on stderr.

    Before that, say where ``device`` is ``auto`` and a GPU is left out: `note_driver`.
    """
    global _threads_taken
    import torch

    from mmfe_cache.machine import choose_threads, has_gpu

    if _threads_taken or has_gpu():  # on a GPU the CPU's threads hardly count
        return
    note_driver(device)
    _threads_taken = True
    chosen = choose_threads()
    torch.set_num_threads(chosen.count)
    message(str(chosen))


_threads_taken = False


def console_progress(first: bool = True) -> Progress:
    """The progress sink of the command line; of several processes all but the first only warn."""
    from .progress import ConsoleProgress, OnlyWarnings

    return ConsoleProgress() if first else OnlyWarnings()
