"""Figures 6, 7 and 8: what each expert changes, ordered by measured frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.errors import UsageError
from mmfe_cache.samples import ImageArray
from mmfe_restore.evaluation.scores import to_tensor
from mmfe_restore.figures.canvas import (
    Drawing,
    Table,
    check_targets,
    in_our_style,
    new_figure,
    save,
)
from mmfe_restore.figures.spectrum import BINS, centroid, radial_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.gridspec import GridSpec

    from mmfe_restore.model import Restorer

DEFAULT_SITE = "encoder2"
"""The site with the largest maps."""

_COLUMNS = 4
_RATIOS = (*[1.0] * _COLUMNS, 1.5)
_MAP_WIDTH = 1.15
"""Inches, about."""


@dataclass(frozen=True)
class Expert:
    """One expert's work on one image.

    Attributes:
        index: counted from 1, as the paper does.
        change: (H, W) mean over the channels of |M_i(F_HF) − F_HF|.
        frequencies: (BINS,) cycles per pixel of the site's grid.
        shares: (BINS,) of the power of M_i(F_HF) − F_HF.
        centroid: its mean frequency.
    """

    index: int
    change: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    shares: NDArray[np.float64]
    centroid: float


def measure_experts(
    restorer: Restorer, image: ImageArray, site: str, name: str = "the network"
) -> list[Expert]:
    """Run every expert of a site by itself on one degraded image, lowest centroid first.

    Args:
        restorer: the network.
        image: (H, W, 3) uint8, degraded.
        site: which MoFE.
        name: of the network, for the message.

    Raises:
        UsageError: the network has no such site.
    """
    from mmfe_restore.model import MOFE_SITES
    from mmfe_restore.model.mofe import MoFE
    from mmfe_restore.model.padding import pad_to_multiple

    if site not in restorer.mofe:
        raise UsageError(
            f"{name} has no experts there",
            got=site,
            expected=" | ".join(restorer.mofe) or "a recipe with MoFE",
        )
    mofe = restorer.mofe[site]
    assert isinstance(mofe, MoFE)
    with torch.no_grad():
        padded = pad_to_multiple(to_tensor(image).to(restorer.dtype), restorer.size_multiple)
        bands = restorer.cpu().bands(padded)[MOFE_SITES[site] - 1]
        found = [
            _expert(index, mofe.experts.single(index, bands) - bands)
            for index in range(restorer.config.num_experts)
        ]
    return sorted(found, key=lambda expert: expert.centroid)


def _expert(index: int, difference: torch.Tensor) -> Expert:
    maps = difference[0].permute(2, 0, 1).double().numpy()
    frequencies, shares = radial_spectrum(maps)
    middle = centroid(frequencies, shares)
    return Expert(index + 1, np.abs(maps).mean(axis=0), frequencies, shares, middle)


@in_our_style
def plot_experts(
    restorers: Sequence[tuple[str, Restorer]],
    image: ImageArray,
    out: Path,
    *,
    site: str = DEFAULT_SITE,
    force: bool = False,
) -> Drawing:
    """Draw every expert's difference map of one image, by rising spectral centroid.

    Args:
        restorers: name and network of each run; several make Figures 7 and 8.
        image: (H, W, 3) uint8, degraded.
        out: folder for experts.png, .svg and .csv.
        site: which MoFE.
        force: write over figures that are there.

    Raises:
        UsageError: a network has no such site, or the figure exists.
    """
    check_targets(out, ["experts"], force=force)
    runs = [(name, measure_experts(restorer, image, site, name)) for name, restorer in restorers]
    rows = [-(-len(experts) // _COLUMNS) for _, experts in runs]
    height, width = runs[0][1][0].change.shape
    tall = min(1.6, _MAP_WIDTH * height / width)
    heights = [max(1.9, count * (tall + 0.24) + 0.3) for count in rows]
    figure = new_figure(sum(heights))
    blocks = figure.subfigures(len(runs), 1, height_ratios=heights, squeeze=False)
    for (name, experts), count, block in zip(runs, rows, blocks[:, 0], strict=True):
        title = (
            f"{name}: MoFE at {site}, maps by rising spectral centroid (cycles per pixel); "
            "frame = curve"
        )
        block.suptitle(title, fontsize=8, x=0.01, ha="left")
        _draw_run(block.add_gridspec(count, _COLUMNS + 1, width_ratios=_RATIOS), block, experts)
    files = save(figure, _table(runs), out, "experts")
    facts = {
        "site": site,
        "centroids": {name: {str(e.index): e.centroid for e in experts} for name, experts in runs},
    }
    return Drawing(files, facts)


def _draw_run(grid: GridSpec, block: SubFigure, experts: list[Expert]) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(experts)))
    for index in range(grid.nrows * _COLUMNS):
        axes = block.add_subplot(grid[index // _COLUMNS, index % _COLUMNS])
        if index >= len(experts):
            axes.set_axis_off()
            continue
        _draw_map(axes, experts[index], colours[index])
    # Two rows at most: beside sixteen experts a taller curve would say no more.
    spectrum = block.add_subplot(grid[: min(2, grid.nrows), _COLUMNS])
    for expert, colour in zip(experts, colours, strict=True):
        spectrum.plot(expert.frequencies, expert.shares, color=colour, linewidth=1.1)
        spectrum.axvline(expert.centroid, color=colour, linewidth=0.5, linestyle=":")
    spectrum.set_box_aspect(0.8)
    spectrum.set_anchor("N")
    spectrum.set_xlim(0, 0.5**0.5)
    spectrum.set_ylim(bottom=0)
    spectrum.set_xticks([0, 0.25, 0.5])
    spectrum.tick_params(labelsize=6)
    spectrum.set_xlabel("cycles per pixel", fontsize=7)
    spectrum.set_title("share of power", fontsize=7, pad=3)


def _draw_map(axes: Axes, expert: Expert, colour: Any) -> None:
    # Each map is stretched by itself: its pattern counts here, not its size.
    top = float(np.quantile(expert.change, 0.995)) or 1.0
    axes.imshow(expert.change, cmap="inferno", vmin=0, vmax=top)
    axes.set_title(f"expert {expert.index} · {expert.centroid:.3f}", fontsize=7, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=colour, linewidth=2)


def _table(runs: Sequence[tuple[str, list[Expert]]]) -> Table:
    rows = [
        (name, e.index, e.centroid, float(e.frequencies[b]), float(e.shares[b]))
        for name, experts in runs
        for e in experts
        for b in range(BINS)
    ]
    return Table(("run", "expert", "centroid", "frequency", "share"), tuple(rows))
