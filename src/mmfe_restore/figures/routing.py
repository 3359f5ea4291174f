"""Figure 5: what the router makes of the embedding space, with and without L_MGL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.guides.lineage import differing_guide, guide_fingerprint, only_precision
from mmfe_restore.data import guide_name
from mmfe_restore.figures.canvas import (
    COLOURS,
    Drawing,
    Table,
    abbreviated,
    abbreviations,
    check_targets,
    in_order,
    in_our_style,
    new_figure,
    save,
)
from mmfe_restore.figures.embeddings import answers_of, choose_samples
from mmfe_restore.figures.scatter import (
    Matrix,
    alignment,
    cosine_similarity,
    name_classes,
    pca,
    scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmfe_cache.store import CacheReader
    from mmfe_restore.model import Restorer

_ACROSS = 3
"""Spaces in a row."""


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
        most: samples to use, the same number of every class and two at least.
        force: write over figures that are there.

    Raises:
        UsageError: a network has no experts or takes embeddings of another width, or the
            figure exists.
        CacheError: the cache is of another guide than a network was trained with.
    """
    check_targets(out, ["routing"], force=force)
    chosen, shown = choose_samples(cache, most)
    answers = answers_of(cache, chosen, view)
    reference = cosine_similarity(answers)
    runs = [Routed(name, expert_weights(name, net, cache, answers)) for name, net in restorers]
    found = {
        run.name: {
            "all sites": alignment(reference, cosine_similarity(run.joined)),
            **{site: alignment(reference, cosine_similarity(s)) for site, s in run.sites.items()},
        }
        for run in runs
    }
    spaces = [(f"embedding space\nE_Answer of {cache.guide}", answers)]
    for run in runs:
        said = _said(found[run.name]["all sites"])
        spaces.append((f"router space of {run.name}\nr = {said}", run.joined))
    figure = _draw(spaces, runs, found, shown)
    files = save(figure, _table(runs, shown, cache, chosen), out, "routing")
    return Drawing(files, {"view": view, "samples": len(chosen), "alignment": found})


def expert_weights(
    name: str, restorer: Restorer, cache: CacheReader, answers: Matrix
) -> dict[str, Matrix]:
    """S of Eq. 4 at every site.

    Args:
        name: of the network's run, for the message.
        restorer: the network.
        cache: where the answers come from.
        answers: (N, D) E_Answer.

    Returns:
        Site to (N, num_experts).

    Raises:
        UsageError: the network has no experts, takes embeddings of another width, or is a control.
        CacheError: the cache is of another guide than the one it was trained with.
    """
    if restorer.config.experts == "none":
        raise UsageError(f"{name} has no experts to route", expected="a recipe with MoFE")
    one_by_one = "draw runs of different guides one by one, or name a cache with --cache"
    if restorer.config.guidance_dim != answers.shape[1]:
        raise UsageError(
            f"{name} was trained with another guide than the one whose embeddings are drawn",
            got=f"embeddings of width {answers.shape[1]}",
            expected=f"width {restorer.config.guidance_dim}",
            remedy=one_by_one,
        )
    recipe, trained = restorer.recipe, restorer.guide_fingerprint
    if recipe is not None and recipe.guide.control != "none":
        raise UsageError(
            f"the routers of {name} do not read the embeddings of the samples that are drawn",
            got=f"guide.control={recipe.guide.control}",
            expected="a run that was trained with each sample's own",
        )
    if recipe is not None and guide_name(recipe) != cache.guide:
        raise CacheError(
            f"{name} was trained with another guide than the one whose embeddings are drawn",
            got=f"{cache.guide} ({cache.path})",
            expected=guide_name(recipe),
            remedy=one_by_one,
        )
    other = (
        [] if trained is None else differing_guide(trained, guide_fingerprint(cache.fingerprint))
    )
    if not only_precision(other):
        raise CacheError(
            f"{cache.path} was built by another state of the guide than {name} was trained "
            "with (trained / cache)",
            got="; ".join(other),
            expected="the same weights, prompt and pooling",
            remedy="build it with the guide of the training cache",
        )
    with torch.no_grad():
        weights = restorer.cpu().router_weights(torch.from_numpy(answers).to(restorer.dtype))
    return {site: s.double().numpy() for site, s in weights.items()}


def class_weights(weights: Matrix, labels: Sequence[str], order: Sequence[str]) -> Matrix:
    """(K, M) the mean over each class's samples of (N, M) weights."""
    return np.stack([weights[np.array(labels) == label].mean(axis=0) for label in order])


def _said(alignment: float) -> str:
    return "undefined: it tells nothing apart" if np.isnan(alignment) else f"{alignment:.2f}"


def _draw(
    spaces: Sequence[tuple[str, Matrix]],
    runs: Sequence[Routed],
    found: dict[str, dict[str, float]],
    shown: list[str],
) -> Figure:
    lines = -(-len(spaces) // _ACROSS)
    across = -(-len(spaces) // lines)
    classes = len(set(shown))
    tall = 2.5 if across == 2 else 2.3
    heat = 0.75 + 0.13 * classes
    heights = [tall * lines, 1.55, *[heat] * len(runs)]
    figure = new_figure(sum(heights) + 0.2)
    blocks = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    drawn = blocks[0].subplots(lines, across, squeeze=False).flat
    coordinates: list[Matrix] = []
    for axes, (title, vectors) in zip(drawn, spaces, strict=False):
        places, share = pca(vectors)
        coordinates.append(places)
        scatter(axes, places, shown)
        axes.set_title(title, loc="left", fontsize=8)
        axes.set_xlabel(f"component 1 (1 and 2: {share:.0%} of the variance)", fontsize=7)
        axes.set_ylabel("principal component 2", fontsize=7)
    for axes in drawn[len(spaces) :]:
        axes.set_axis_off()
    _draw_alignment(blocks[1].subplots(), found)
    for block, run in zip(blocks[2:], runs, strict=True):
        _draw_weights(block.subplots(), run, shown)
    if abbreviations(shown):
        figure.supxlabel(abbreviations(shown), fontsize=7, x=0.01, ha="left")
    for axes, places in zip(drawn, coordinates, strict=False):
        name_classes(axes, places, shown)
    return figure


def _draw_alignment(axes: Axes, found: dict[str, dict[str, float]]) -> None:
    sites = list(next(iter(found.values())))
    width = 0.8 / len(found)
    for index, (name, values) in enumerate(found.items()):
        places = np.arange(len(sites)) + (index - (len(found) - 1) / 2) * width
        heights = [values[site] for site in sites]
        colour = COLOURS[index % len(COLOURS)]
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=name)
        if len(found) <= 4:
            # Numbers that are undefined have no bar and no label.
            said = ["" if np.isnan(height) else f"{height:.2f}" for height in heights]
            axes.bar_label(bars, said, fontsize=5.5, padding=1)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.tick_params(labelsize=7)
    axes.set_xticks(range(len(sites)), ["all sites,\njoined", *sites[1:]])
    axes.set_ylabel("Pearson's r")
    lowest = np.nanmin([0.0, *(v for row in found.values() for v in row.values())])
    axes.set_ylim(lowest * 1.15, 1.12)
    axes.set_title(
        "r of Sim(S) and Sim(E_Answer), over all pairs of samples", loc="left", fontsize=8
    )
    if len(found) > 1:
        axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(1, 0), borderaxespad=0.3)


def _draw_weights(axes: Axes, run: Routed, shown: list[str]) -> None:
    order = in_order(shown)
    weights = class_weights(run.joined, shown, order)
    image = axes.imshow(weights, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    counts = [s.shape[1] for s in run.sites.values()]
    edges = np.cumsum(counts)
    for edge in edges[:-1]:
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)
    # Counted from 1 at every site, as in the figures of experts; every second of many.
    step = -(-sum(counts) // 60)
    numbers = [n if n % step == 0 or step == 1 else "" for c in counts for n in range(1, c + 1)]
    axes.set_xticks(range(len(numbers)), [str(n) for n in numbers], fontsize=6)
    for edge, count, site in zip(edges, counts, run.sites, strict=True):
        place = (edge - count / 2) / edges[-1]
        axes.text(place, 1.02, site, transform=axes.transAxes, ha="center", va="bottom", fontsize=7)
    axes.set_yticks(range(len(order)), [abbreviated(label) for label in order], fontsize=6.5)
    axes.set_xlabel("expert", fontsize=7, labelpad=1)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{run.name}: mean weight S of each expert by class", loc="left", pad=14)
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize=6.5)


def _table(runs: Sequence[Routed], shown: list[str], cache: CacheReader, chosen: object) -> Table:
    rows = [
        (run.name, cache.ids[int(place)], label, site, expert + 1, float(s[index, expert]))
        for run in runs
        for index, (place, label) in enumerate(zip(np.asarray(chosen), shown, strict=True))
        for site, s in run.sites.items()
        for expert in range(s.shape[1])
    ]
    return Table(("run", "id", "label", "site", "expert", "weight"), tuple(rows))
