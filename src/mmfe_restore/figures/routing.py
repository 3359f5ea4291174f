"""Figure 5: what the router makes of the embedding space, with and without L_MGL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmfe_cache.errors import UsageError
from mmfe_restore.figures.canvas import (
    Drawing,
    Table,
    check_targets,
    in_order,
    in_our_style,
    new_figure,
    save,
    short,
)
from mmfe_restore.figures.embeddings import answers_of, choose_samples
from mmfe_restore.figures.scatter import name_classes, scatter
from mmfe_restore.figures.similarity import Matrix, alignment, cosine, plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmfe_cache.store import CacheReader
    from mmfe_restore.model import Restorer


@dataclass(frozen=True)
class Routed:
    """One restorer's routing of the chosen samples.

    Attributes:
        name: of its run.
        sites: site to S, (N, num_experts).
    """

    name: str
    sites: dict[str, Matrix]

    @property
    def joined(self) -> Matrix:
        """(N, sites * num_experts) all routers' weights side by side."""
        return np.concatenate(list(self.sites.values()), axis=1)


@in_our_style
def plot_routing(
    restorers: Sequence[tuple[str, Restorer]],
    cache: CacheReader,
    view: str,
    out: Path,
    *,
    most: int = 550,
    force: bool = False,
) -> Drawing:
    """Draw expert weights by class, and router space beside embedding space.

    The alignment is the correlation of the two cosine similarity matrices, Sim(E_Answer) and
    Sim(S) of Eq. 7, over all pairs of samples: what L_MGL is meant to raise. Give two runs, one
    trained with ``loss.mgl=0``, to see its effect.

    Args:
        restorers: name and network of each run.
        cache: the embeddings of their guide.
        view: which view.
        out: folder for routing.png, .svg and .csv.
        most: samples to use, the same number of every class.
        force: write over figures that are there.

    Raises:
        UsageError: a network has no experts or takes embeddings of another width, or the
            figure exists.
    """
    check_targets(out, ["routing"], force=force)
    chosen, shown = choose_samples(cache, most)
    answers = answers_of(cache, chosen, view)
    reference = cosine(answers)
    runs = [_route(name, restorer, answers) for name, restorer in restorers]
    found = {
        run.name: {
            "all sites": alignment(reference, cosine(run.joined)),
            **{site: alignment(reference, cosine(s)) for site, s in run.sites.items()},
        }
        for run in runs
    }

    figure = new_figure(2.5 * (1 + len(runs)))
    grid = figure.subplots(1 + len(runs), 2, width_ratios=(1, 1.25), squeeze=False)
    planes = [plane(answers), *(plane(run.joined) for run in runs)]
    titles = [f"embedding space\nE_Answer of {cache.guide}"] + [
        f"router space of {run.name}\nalignment {_said(found[run.name]['all sites'])}"
        for run in runs
    ]
    for axes, (coordinates, share), title in zip(grid[:, 0], planes, titles, strict=True):
        scatter(axes, coordinates, shown)
        axes.set_title(title, loc="left", fontsize=8)
        axes.set_xlabel(f"principal component 1 (both: {share:.0%} of the variance)", fontsize=7)
        axes.set_ylabel("principal component 2", fontsize=7)
    _bars(grid[0][1], found)
    for axes, run in zip(grid[1:, 1], runs, strict=True):
        _heat(axes, run, shown)
    for axes, (coordinates, _) in zip(grid[:, 0], planes, strict=True):
        name_classes(axes, coordinates, shown)
    files = save(figure, _table(runs, shown, cache, chosen), out, "routing")
    return Drawing(files, {"view": view, "samples": len(chosen), "alignment": found})


def _route(name: str, restorer: Restorer, answers: Matrix) -> Routed:
    if restorer.config.experts == "none":
        raise UsageError(f"{name} has no experts to route", expected="a recipe with MoFE")
    if restorer.config.guidance_dim != answers.shape[1]:
        raise UsageError(
            f"{name} was trained with another guide than the one whose embeddings are drawn",
            got=f"embeddings of width {answers.shape[1]}",
            expected=f"width {restorer.config.guidance_dim}",
            remedy="draw runs of different guides one by one, or name a cache with --cache",
        )
    with torch.no_grad():
        weights = restorer.cpu().router_weights(torch.from_numpy(answers).to(restorer.dtype))
    return Routed(name, {site: s.double().numpy() for site, s in weights.items()})


def _said(alignment: float) -> str:
    return "undefined: it tells nothing apart" if np.isnan(alignment) else f"{alignment:.2f}"


def _bars(axes: Axes, found: dict[str, dict[str, float]]) -> None:
    from mmfe_restore.figures.canvas import COLOURS

    sites = list(next(iter(found.values())))
    width = 0.8 / len(found)
    for index, (name, values) in enumerate(found.items()):
        places = np.arange(len(sites)) + (index - (len(found) - 1) / 2) * width
        heights = [values[site] for site in sites]
        axes.bar(places, heights, width * 0.92, color=COLOURS[index % 8], label=name)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(sites)), sites, rotation=30, ha="right")
    axes.set_ylabel("correlation")
    axes.set_ylim(
        min(0, *(v for row in found.values() for v in row.values())) - 0.05,
        1.0 + 0.15 * (1 + (len(found) - 1) // 2),
    )
    axes.set_title("alignment of Sim(S) with Sim(E_Answer)", loc="left", fontsize=8)
    axes.legend(fontsize=7, loc="upper left", ncols=2, borderaxespad=0)


def _heat(axes: Axes, run: Routed, shown: list[str]) -> None:
    order = in_order(shown)
    weights = np.stack([run.joined[np.array(shown) == label].mean(axis=0) for label in order])
    image = axes.imshow(weights, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    edges = np.cumsum([s.shape[1] for s in run.sites.values()])
    for edge in edges[:-1]:
        axes.axvline(edge - 0.5, color="white", linewidth=1)
    centres = [e - s.shape[1] / 2 - 0.5 for e, s in zip(edges, run.sites.values(), strict=True)]
    axes.set_xticks(centres, list(run.sites), rotation=30, ha="right")
    axes.set_yticks(range(len(order)), [short(label) for label in order], fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("mean expert weight S by class", loc="left", fontsize=8)
    axes.figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)  # pyright: ignore[reportAttributeAccessIssue]


def _table(runs: Sequence[Routed], shown: list[str], cache: CacheReader, chosen: object) -> Table:
    rows = [
        (run.name, cache.ids[int(place)], label, site, expert, float(s[index, expert]))
        for run in runs
        for index, (place, label) in enumerate(zip(np.asarray(chosen), shown, strict=True))
        for site, s in run.sites.items()
        for expert in range(s.shape[1])
    ]
    return Table(("run", "id", "label", "site", "expert", "weight"), tuple(rows))
