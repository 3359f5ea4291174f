"""Tables for people: laid out for the terminal's width, and no figure in them is ever cut."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_WORD = 24
"""Longer words of a text, such as paths, may be broken to fit; figures never are."""

SHORTEST_NAME = 6
"""The first column is never narrower, whatever stands beside it."""

FEW_ROWS = 3
"""A table with so many rows at most is turned on its side before it is split."""

_BORDER = 3  # a column's border and the blank on either side of its text
_TEXT = re.compile(r"[^\W\d_]{2}")
_FOLDERS = re.compile(r"(?<=/)(?=\w)")
_BREAKS = re.compile(r"(?<=[/_.,=-])(?=\w)")


@dataclass(frozen=True)
class _Column:
    """One column.

    Attributes:
        heading: as given.
        cells: as printed.
        text: its cells are words, which may be folded and stand on the left.
        unbroken: its cells are commands to copy, which are folded only where no screen line
            would hold them.
    """

    heading: str
    cells: tuple[str, ...]
    text: bool
    unbroken: bool = False

    @property
    def natural(self) -> int:
        """Characters it takes unfolded."""
        return max(map(_width, (self.heading, *self.cells)), default=0)

    @property
    def least(self) -> int:
        """Characters it takes at least, with heading and texts folded at their words."""
        if self.unbroken:
            return self.natural
        words = self.heading.split()
        if self.text:
            words += [word for cell in self.cells for word in cell.split()]
        longest = min(max(map(_width, words), default=0), LONGEST_WORD)
        return longest if self.text else max([longest, *map(_width, self.cells)])


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str | None = None,
    commands: str | None = None,
) -> None:
    """Write a table to stdout; figures stand on the right, texts and the first column on the left.

    On a terminal it is laid out for its width: first headings and texts are folded; a table of a
    few rows is then turned on its side; any other continues below, under its first column. A
    figure is never cut and a name never shortened, so that no two rows can look the same. A pipe
    or file has no width unless ``COLUMNS`` gives one: the table is written whole. Columns without
    any value are left out, and the caption says so.

    Args:
        title: the line above.
        columns: their headings.
        rows: a cell per column; None has no value, a float is written with two decimals.
        caption: the line below.
        commands: the heading of a column of commands to copy, which stay in one line wherever
            the screen holds them beside the first column.
    """
    from rich.console import Console

    width = screen(sys.stdout)
    kept, empty = _columns(columns, rows)
    kept = [
        replace(column, unbroken=_beside_first(column, kept[0], width))
        if column.heading == commands
        else column
        for column in kept
    ]
    # Wide enough for whatever is decided here: rich cuts what it finds too wide.
    console = Console(file=sys.stdout, width=1 << 14)
    # As lines of their own: rich folds a title to the width of its table.
    _lines(console, title, width, "bold")
    for block in _layout(kept, width):
        _draw(console, block, width)
    if empty:
        without = f"no value in: {', '.join(empty)}"
        caption = without if caption is None else f"{caption}; {without}"
    if caption is not None:
        _lines(console, caption, width)


def screen(stream: TextIO) -> int | None:
    """Columns of a stream's terminal, or those that ``COLUMNS`` names; None for no limit."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # such as a test's stand-in for a terminal
        return None


def wrapped(text: str, width: int | None, first: str = "", rest: str | None = None) -> list[str]:
    """A paragraph in lines that end between words; a longer word, such as a path, stays whole.

    Args:
        text: without line breaks.
        width: characters of a line; None for one line of any length.
        first: begins the first line.
        rest: begins the others; as ``first`` without it.
    """
    if width is None:
        return [first + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns(
    headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[list[_Column], list[str]]:
    """The columns to show, and the headings of those that hold nothing."""
    kept: list[_Column] = []
    empty: list[str] = []
    for index, heading in enumerate(headings):
        values = [row[index] for row in rows]
        if index and rows and all(value is None for value in values):
            empty.append(heading)
            continue
        cells = tuple(map(_cell, values))
        kept.append(_Column(heading, cells, text=not index or any(map(_is_text, cells))))
    return kept, empty


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _is_text(cell: str) -> bool:
    """Whether a cell is words or a list rather than figures with their units: never folded."""
    letters = sum(map(str.isalpha, cell))
    return ", " in cell or (bool(_TEXT.search(cell)) and letters > 2 * sum(map(str.isdigit, cell)))


def _layout(columns: list[_Column], width: int | None) -> list[list[_Column]]:
    """One table, or those that it is split into."""
    if width is None or _total(column.least for column in columns) <= width:
        return [columns]
    turned = _turned(columns)
    if len(turned) <= FEW_ROWS + 1 and _total(column.least for column in turned) <= width:
        return [turned]
    key, *others = columns
    blocks: list[list[_Column]] = []
    for column in others:
        fits = blocks and _total(c.least for c in (*blocks[-1], column)) <= width
        if fits:
            blocks[-1].append(column)
        else:
            blocks.append([key, column])
    return blocks or [columns]


def _turned(columns: Sequence[_Column]) -> list[_Column]:
    """The same with a row for each column; the first column's cells are the headings."""
    key, *others = columns
    names = _Column(key.heading, tuple(column.heading for column in others), text=True)
    return [
        names,
        *(
            _Column(
                heading,
                tuple(column.cells[row] for column in others),
                text=any(column.text for column in others),
            )
            for row, heading in enumerate(key.cells)
        ),
    ]


def _beside_first(column: _Column, first: _Column, width: int | None) -> bool:
    """Whether the screen holds a column unfolded, in a table with the first one alone."""
    return width is None or _total((first.least, column.natural)) <= width


def _total(widths: Iterable[int]) -> int:
    """Characters of a table whose columns have these widths."""
    every = list(widths)
    return sum(every) + _BORDER * len(every) + 1


def _draw(console: Console, columns: Sequence[_Column], width: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    sizes = _sizes(columns, width)
    table = Table()
    for index, (column, size) in enumerate(zip(columns, sizes, strict=True)):
        right = index and not column.text
        table.add_column(
            Text(_fold(column.heading, size)),
            justify="right" if right else "left",
            no_wrap=True,
            min_width=size,
        )
    for row in range(len(columns[0].cells)):
        folded = (
            Text(_fold(column.cells[row], size) if column.text else column.cells[row])
            for column, size in zip(columns, sizes, strict=True)
        )
        table.add_row(*folded)
    console.print(table)


def _sizes(columns: Sequence[_Column], width: int | None) -> list[int]:
    """Characters for each column: what it takes, or its share of what there is."""
    natural = [column.natural for column in columns]
    if width is None or _total(natural) <= width:
        return natural
    sizes = [column.least for column in columns]
    spare = width - _total(sizes)
    if spare < 0:  # the first column and one of figures, on a very narrow screen
        sizes[0] = max(SHORTEST_NAME, sizes[0] + spare)
    while spare > 0:
        # Whoever is shortest of what it would take gets the next character.
        wanting = [index for index, size in enumerate(sizes) if size < natural[index]]
        if not wanting:
            break
        poorest = min(wanting, key=lambda index: sizes[index] / natural[index])
        sizes[poorest] += 1
        spare -= 1
    return sizes


def _fold(text: str, width: int) -> str:
    """Lines of at most ``width`` characters: broken at blanks, and inside longer words."""
    lines = [""]
    for word in text.split(" "):
        glue = " "
        for part in _parts(word, width):
            if lines[-1] and _width(lines[-1] + glue + part) > width:
                lines.append(part)
            else:
                lines[-1] += (glue if lines[-1] else "") + part
            glue = ""
    return "\n".join(lines)


def _parts(word: str, width: int) -> list[str]:
    """A word, or its parts where it is too long.

    A path is broken between its names where these fit, any other word after a sign, else anywhere.
    """
    for parts in ([word], _FOLDERS.split(word)):
        if all(_width(part) <= width for part in parts):
            return parts
    pieces: list[str] = []
    for part in _BREAKS.split(word):
        line = ""
        for character in part:
            if line and _width(line + character) > width:
                pieces.append(line)
                line = ""
            line += character
        pieces.append(line)
    return pieces


def _width(text: str) -> int:
    """Characters of a terminal: two for each of Chinese, Japanese or Korean."""
    from rich.cells import cell_len

    return cell_len(text)


def _lines(console: Console, text: str, width: int | None, style: str | None = None) -> None:
    for line in wrapped(text, width):
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
