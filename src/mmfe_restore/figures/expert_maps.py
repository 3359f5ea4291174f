"""Figures 6, 7 and 8: what each expert changes in the picture, ordered by measured frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfe_cache.samples import ImageArray
from mmfe_restore.figures.canvas import (
    WIDTH,
    Drawing,
    Table,
    axes_at,
    bare,
    check_targets,
    in_our_style,
    new_figure,
    save,
)
from mmfe_restore.figures.embeddings import answers_of
from mmfe_restore.figures.routing import expert_weights
from mmfe_restore.figures.spectrum import BINS, CORNER, Curve, Expert, measure_experts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmfe_cache.store import CacheReader
    from mmfe_restore.model import Restorer

DEFAULT_SITE = "encoder2"
"""The site with the largest maps."""

_TALLEST = 8.8
"""Inches: a page of text. More experts are drawn in more columns instead."""

# Inches: between two cells, of the line above a map, of a run's name, below and beside a curve.
_GAP, _LINE, _NAME, _BELOW, _BESIDE = 0.08, 0.17, 0.2, 0.36, 0.45

_TOP, _FOOT = 0.26, 0.5
"""Inches above the input and the spectra, and below the maps."""

_FAINTEST = 1e-4
"""The smallest share of power that is drawn."""


@dataclass(frozen=True)
class Subject:
    """The degraded picture that the experts work on.

    Attributes:
        pixels: (H, W, 3) uint8.
        name: a sample's id, or a file's name.
        cache: holds its guide's embeddings, where the experts' weights are wanted too.
        view: which of the cache's views; None takes the one that each run is judged by.
    """

    pixels: ImageArray
    name: str
    cache: CacheReader | None = None
    view: str | None = None


@in_our_style
def plot_experts(
    restorers: Sequence[tuple[str, Restorer]],
    subject: Subject,
    out: Path,
    *,
    site: str = DEFAULT_SITE,
    force: bool = False,
) -> Drawing:
    """Draw the input and every expert's difference map of it, by rising spectral centroid.

    Args:
        restorers: name and network of each run; several make Figures 7 and 8.
        subject: the degraded picture.
        out: folder for experts.png, .svg and .csv.
        site: which MoFE.
        force: write over figures that are there.

    Returns:
        The files; ``site``, ``sample``, ``pixel`` (the sides, in pixels of the input, of one
        pixel of the maps and of "cycles per pixel") and ``centroids``: run to expert to centroid.

    Raises:
        UsageError: a network has no such site, or the figure exists.
        CacheError: the cache lacks the picture's embedding.
    """
    check_targets(out, ["experts"], force=force)
    runs: list[tuple[str, list[Expert]]] = []
    for name, restorer in restorers:
        weights = _weights(name, restorer, subject, site)
        runs.append((name, measure_experts(restorer, subject.pixels, site, name, weights)))
    figure = _draw(runs, subject, site)
    files = save(figure, _table(runs), out, "experts")
    facts = {
        "site": site,
        "sample": subject.name,
        "pixel": _pixel(site),
        "centroids": {name: {str(e.index): e.centroid for e in experts} for name, experts in runs},
    }
    return Drawing(files, facts)


def _pixel(site: str) -> int:
    from mmfe_restore.model import MOFE_SITES

    return 2 ** MOFE_SITES[site]


def _weights(name: str, restorer: Restorer, subject: Subject, site: str) -> Curve | None:
    if subject.cache is None or site not in restorer.mofe:
        return None
    view = subject.view
    if view is None and restorer.recipe is not None:
        view = restorer.recipe.eval.view
    used = subject.cache.views[-1] if view is None else view
    place = subject.cache.index_of([subject.name])
    answers = answers_of(subject.cache, place, used)
    return expert_weights(name, restorer, subject.cache, answers)[site][0]


@dataclass(frozen=True)
class _Layout:
    """Where every map stands: columns, inches, and the first row and column of each run."""

    columns: int
    width: float
    height: float
    starts: tuple[tuple[int, int], ...]
    rows: int

    @property
    def name(self) -> float:
        """The height of runs' names; a single run needs none."""
        return _NAME if len(self.starts) > 1 else 0.0

    @property
    def row(self) -> float:
        """The height of one row of maps."""
        return self.height + _LINE + _GAP

    @property
    def total(self) -> float:
        """The height of all rows; each line of runs has their names above it."""
        return self.rows * self.row + len({row for row, _ in self.starts}) * self.name


def _lay_out(names: Sequence[str], counts: Sequence[int], aspect: float, room: float) -> _Layout:
    """The fewest columns, so the largest maps, that fit into ``room`` inches of height."""
    found = [_columns(names, counts, aspect, columns) for columns in (4, 5, 6, 8, 10)]
    return next((layout for layout in found if layout.total <= room), found[-1])


def _columns(names: Sequence[str], counts: Sequence[int], aspect: float, columns: int) -> _Layout:
    width = (WIDTH - _GAP * (columns - 1)) / columns
    starts: list[tuple[int, int]] = []
    row, column = 0, 0
    for name, count in zip(names, counts, strict=True):
        # A run stands beside the one before where its maps and its name fit there.
        named = -(-int(1 + len(name) * 0.065 / width * 100) // 100)
        wide = max(count, named)
        if column and column + wide > columns:
            row, column = row + 1, 0
        starts.append((row, column))
        lines = -(-count // columns)
        row, column = (row, column + wide) if lines == 1 else (row + lines, 0)
        if column >= columns:
            row, column = row + 1, 0
    return _Layout(columns, width, width * aspect, tuple(starts), row + (column > 0))


def _draw(runs: Sequence[tuple[str, list[Expert]]], subject: Subject, site: str) -> Figure:
    shape = subject.pixels.shape
    # The input's side of the figure; a tall picture is held to a square.
    across = min(2.2, 2.2 * shape[1] / shape[0])
    down = across * shape[0] / shape[1]
    lines = 1 if len(runs) <= 2 else 2
    panels = -(-len(runs) // lines)
    one = max(1.15, down - _BELOW) if lines == 1 else 0.95
    header = _TOP + max(down, lines * (one + _BELOW) + (lines - 1) * 0.2) + 0.05
    maps = runs[0][1][0].change.shape
    names = [name for name, _ in runs]
    counts = [len(experts) for _, experts in runs]
    layout = _lay_out(names, counts, maps[0] / maps[1], _TALLEST - header - _FOOT)
    figure = new_figure(header + layout.total + _FOOT, placed=True)
    picture = axes_at(figure, 0.02, _TOP, across, down)
    picture.imshow(subject.pixels)
    picture.set_title(f"input: {subject.name}", fontsize=8, pad=4, loc="left")
    bare(picture)
    left = across + 0.2 + _BESIDE
    side = (WIDTH - left - 0.05 - (panels - 1) * 0.12) / panels
    for number, (name, experts) in enumerate(runs):
        line, place = divmod(number, panels)
        axes = axes_at(
            figure, left + place * (side + 0.12), _TOP + line * (one + _BELOW + 0.2), side, one
        )
        _draw_spectra(axes, experts, first=place == 0)
        last = number + panels >= len(runs)
        if len(runs) > 1:
            axes.set_title(name, fontsize=7, pad=3, loc="left")
        else:
            axes.set_title("spectrum of each expert's change", fontsize=8, pad=4, loc="left")
        if last:
            said = "spatial frequency (cycles/pixel)" if side > 1.7 else "cycles/pixel"
            axes.set_xlabel(said, fontsize=7, labelpad=1)
    _draw_maps(figure, runs, layout, header)
    figure.text(0.003, 0.06 / figure.get_figheight(), _said(site, runs), fontsize=6.5, va="bottom")
    return figure


def _said(site: str, runs: Sequence[tuple[str, list[Expert]]]) -> str:
    weighed = any(e.weight is not None for _, experts in runs for e in experts)
    pixel = _pixel(site)
    return (
        f"Experts of MoFE at {site}, by rising spectral centroid: the number above each map, and "
        "the triangle below its spectrum (cycles/pixel).\n"
        "Map: the expert's absolute change of the input, from 0 (dark) to the map's 99.5th "
        "percentile (bright); its frame has its spectrum's colour.\n"
        f"A pixel is {pixel}×{pixel} pixels of the input."
        + (" S: the router's weight of the expert for this input." if weighed else "")
    )


def _draw_spectra(axes: Axes, experts: list[Expert], *, first: bool) -> None:
    colours = _colours(len(experts))
    for expert, colour in zip(experts, colours, strict=True):
        label = f"{expert.index}"
        axes.plot(expert.frequencies, expert.shares, color=colour, linewidth=1.1, label=label)
        axes.plot(
            expert.centroid,
            0,
            transform=axes.get_xaxis_transform(),
            marker="^",
            markersize=4,
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.3,
            clip_on=False,
            zorder=5,
        )
    axes.set_xlim(0, CORNER)
    # A constant change of a band is a single peak of the picture, beside which the rest of the
    # power could not be seen on a linear axis.
    axes.set_yscale("log")
    axes.set_ylim(_FAINTEST, 1)
    axes.set_yticks([1, 0.01, _FAINTEST], ["1", "0.01", f"{_FAINTEST:g}"])
    axes.set_yticks([0.1, 0.001], [], minor=True)
    axes.set_xticks([0, 0.25, 0.5])
    axes.tick_params(labelsize=6.5, pad=2)
    if first:
        axes.set_ylabel("share of power", fontsize=7, labelpad=2)
    else:
        axes.tick_params(labelleft=False)
    wide = axes.get_position().width * WIDTH
    if wide < 1.7:
        return  # Too narrow for a legend: the maps' frames have the curves' colours.
    columns = 1 if len(experts) <= 4 else 2 if wide < 2.5 else 4
    axes.legend(
        title="expert",
        title_fontsize=6.5,
        fontsize=6,
        loc="best",
        ncols=columns,
        handlelength=0.9,
        handletextpad=0.3,
        columnspacing=0.6,
        labelspacing=0.12,
        borderaxespad=0.1,
    )


def _draw_maps(
    figure: Figure, runs: Sequence[tuple[str, list[Expert]]], layout: _Layout, header: float
) -> None:
    for (name, experts), (row, column) in zip(runs, layout.starts, strict=True):
        names_above = len({start for start, _ in layout.starts if start <= row})
        top = header + row * layout.row + names_above * layout.name
        if len(runs) > 1:
            left = column * (layout.width + _GAP) / WIDTH
            height = 1 - (top - 0.01) / figure.get_figheight()
            figure.text(left, height, name, fontsize=8, weight="bold", va="bottom")
        colours = _colours(len(experts))
        for number, (expert, colour) in enumerate(zip(experts, colours, strict=True)):
            line, place = divmod(column + number, layout.columns)
            axes = axes_at(
                figure,
                place * (layout.width + _GAP) + 0.015,
                top + line * layout.row + _LINE,
                layout.width - 0.03,
                layout.height - 0.03,
            )
            _draw_map(axes, expert, colour, layout.width)


def _draw_map(axes: Axes, expert: Expert, colour: Any, width: float) -> None:
    # Each map is stretched by itself: its pattern counts here, not its size.
    top = float(np.quantile(expert.change, 0.995)) or 1.0
    axes.imshow(expert.change, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
    said = f"expert {expert.index}" if width > 1 else str(expert.index)
    said += f" · {expert.centroid:.3f}"
    if expert.weight is not None:
        said += f" · S {expert.weight:.2f}"
    axes.set_title(said, fontsize=7 if width > 1 else 6, pad=2.5)
    bare(axes)
    axes.spines[:].set(visible=True, color=colour, linewidth=1.6)


def _colours(count: int) -> Any:
    import matplotlib as mpl

    return mpl.colormaps["viridis"](np.linspace(0.0, 0.9, count))


def _table(runs: Sequence[tuple[str, list[Expert]]]) -> Table:
    rows = [
        (
            name,
            e.index,
            e.centroid,
            float(e.change.mean()),
            "" if e.weight is None else e.weight,
            float(e.frequencies[b]),
            float(e.shares[b]),
        )
        for name, experts in runs
        for e in experts
        for b in range(BINS)
    ]
    columns = ("run", "expert", "centroid", "mean_change", "weight", "frequency", "share")
    return Table(columns, tuple(rows))
