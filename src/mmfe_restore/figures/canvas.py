"""What all figures share: the look, the colours, and how they are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.io import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito (2008): told apart by every common kind of colour vision, on paper too.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
)  # fmt: skip
MARKERS = "osD^vPX*<>h"

KIND_COLOURS = {
    "low": COLOURS[0],
    "haze": COLOURS[1],
    "rain": COLOURS[2],
    "snow": COLOURS[3],
    "balanced": "#999999",
}
"""The single degradations, and none of them dominant; a composition is drawn in the mean of its
parts' colours."""

WIDTH = 6.9
"""Inches: a page of two columns."""


@dataclass(frozen=True)
class Table:
    """The data behind a figure.

    Attributes:
        columns: their names.
        rows: a value per column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Drawing:
    """A written figure.

    Attributes:
        files: PNG, SVG and CSV files.
        facts: what the figure shows, in numbers.
    """

    files: tuple[Path, ...]
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"files": [str(path) for path in self.files], **self.facts}


STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # A dollar sign in the name of a file, class or run is a dollar sign.
    "text.parse_math": False,
    "svg.hashsalt": "mmfe",
}
"""Matplotlib's settings of every figure here, and of no other."""


def in_our_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Give a function that draws a figure our settings, and its caller's back afterwards.

    The function raises MmfeError where matplotlib is not installed, before it computes anything.
    """

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import matplotlib as mpl
        except ModuleNotFoundError:
            raise MmfeError(
                "figures need matplotlib, which is an extra",
                remedy="in mmfe's checkout: pip install -c constraints.txt '.[plots]'",
            ) from None
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour_of(label: str) -> tuple[float, float, float]:
    """A class's colour: its degradation's, or the mean of its parts'; any other name has one."""
    from matplotlib.colors import to_rgb

    parts = [KIND_COLOURS[part] for part in label.split("_") if part in KIND_COLOURS]
    if not parts:
        parts = [COLOURS[sum(label.encode()) % len(COLOURS)]]
    channels = zip(*(to_rgb(part) for part in parts), strict=True)
    red, green, blue = (sum(values) / len(parts) for values in channels)
    return red, green, blue


def marker_of(label: str) -> str:
    """A class's marker: each of CDD11's eleven has its own, any other name has one."""
    if label in COMPOSITIONS:
        return MARKERS[list(COMPOSITIONS).index(label)]
    return MARKERS[sum(label.encode()) % len(MARKERS)]


def nice(label: str) -> str:
    """A class's name for people."""
    return label.replace("_", " + ")


def short(label: str) -> str:
    """A class's name as the paper abbreviates it: ``L+H+R`` for low, haze and rain."""
    parts = label.split("_")
    if all(part in KIND_COLOURS for part in parts):
        return "+".join(part[0].upper() for part in parts)
    return nice(label)


def in_order(labels: Iterable[str]) -> list[str]:
    """The distinct labels; CDD11's in Table 1's order, any others after them by name."""
    known = {label: place for place, label in enumerate(COMPOSITIONS)}
    return sorted(set(labels), key=lambda label: (known.get(label, len(known)), label))


def check_targets(out: Path, names: Sequence[str], *, force: bool) -> None:
    """Refuse to write over figures that are there.

    Raises:
        UsageError: one is there and ``force`` is not set.
    """
    there = [f"{name}{end}" for name in names for end in (".png", ".svg", ".csv")]
    found = [name for name in there if (out / name).exists()]
    if found and not force:
        raise UsageError(
            f"{out / found[0]} exists",
            expected="a folder without these figures",
            remedy="write over them with --force, or choose another folder with --out",
        )


def save(figure: Figure, table: Table, out: Path, name: str) -> tuple[Path, ...]:
    """Write ``name``.png, .svg and .csv to ``out``; each file appears whole."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for suffix in ("png", "svg"):
        stream = io.BytesIO()
        # No date in the file: the same data gives the same bytes.
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(stream, format=suffix, dpi=220, metadata=metadata)
        written.append(out / f"{name}.{suffix}")
        write_file(written[-1], stream.getvalue())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    written.append(out / f"{name}.csv")
    write_file(written[-1], text.getvalue())
    return tuple(written)
