"""What all figures share: the look, the colours, and how they are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mmfe_cache.degradations import COMPOSITIONS, KIND_NAMES, KINDS
from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.io import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito (2008): distinguishable by every common kind of colour vision, on paper too.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000",
)  # fmt: skip
MARKERS = "osD^vPX*<>h"

KIND_COLOURS: dict[str, str] = dict(zip(KINDS, COLOURS, strict=False))
"""The single degradations; a composition is drawn in the mean of its parts' colours."""

BALANCED = "balanced"
"""What a sample without a dominant degradation is called."""

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


@dataclass(frozen=True)
class ClassStyle:
    """How a class is drawn.

    Attributes:
        colour: red, green and blue in [0, 1].
        marker: Matplotlib's letter.
    """

    colour: tuple[float, float, float]
    marker: str


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
                remedy="in mmfe's checkout: pip install -c constraints.txt -e '.[plots]'",
            ) from None
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(height: float, *, placed: bool = False) -> Figure:
    """An empty figure, drawn without a display; ``placed``: `axes_at` says what stands where."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout=None if placed else "constrained")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the figure's upper left corner, which no layout moves."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def bare(axes: Axes) -> None:
    """Take ticks and frame away: what is drawn is a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def class_styles(labels: Iterable[str]) -> dict[str, ClassStyle]:
    """A colour and a marker for each distinct label, in order; no two of 88 are the same.

    CDD11's classes have theirs in every figure: the colour of the degradation, or the mean of the
    parts' colours. Other names take theirs in their order.
    """
    from matplotlib.colors import to_rgb

    found: dict[str, ClassStyle] = {}
    # 88 pairs: a colour comes again eight names later, and then with another marker.
    pairs = range(len(COLOURS) * len(MARKERS))
    free = (ClassStyle(to_rgb(COLOURS[k % len(COLOURS)]), MARKERS[k % len(MARKERS)]) for k in pairs)
    for label in in_order(labels):
        if label == BALANCED:
            found[label] = ClassStyle(to_rgb("#777777"), "1")
        elif label in COMPOSITIONS:
            parts = [to_rgb(KIND_COLOURS[part]) for part in label.split("_")]
            red, green, blue = (sum(values) / len(parts) for values in zip(*parts, strict=True))
            marker = MARKERS[list(COMPOSITIONS).index(label)]
            found[label] = ClassStyle((red, green, blue), marker)
        else:
            found[label] = next(look for look in free if look not in found.values())
    return found


def spelled_out(label: str) -> str:
    """A class's name for people."""
    return label.replace("_", " + ")


def abbreviated(label: str) -> str:
    """A class's name as the paper abbreviates it: ``L+H+R`` for low, haze and rain."""
    parts = label.split("_")
    if all(part in KIND_NAMES for part in parts):
        return "+".join(part[0].upper() for part in parts)
    return spelled_out(label)


def abbreviations(labels: Iterable[str]) -> str:
    """What the letters of `abbreviated` stand for, of those among ``labels``; or nothing."""
    parts = {part for label in labels for part in label.split("_")}
    said = [f"{kind[0].upper()}: {name}" for kind, name in KIND_NAMES.items() if kind in parts]
    return ", ".join(said)


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
