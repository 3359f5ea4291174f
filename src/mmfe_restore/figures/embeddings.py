"""Figures 1 and 5, left: how a guide arranges degraded images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from mmfe_restore.figures.dominance import dominance_facts, dominant_names
from mmfe_restore.figures.scatter import name_classes, scatter
from mmfe_restore.figures.similarity import Matrix, cosine, neighbours, plane, spread_sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from mmfe_cache.store import CacheReader


def choose_samples(cache: CacheReader, most: int) -> tuple[NDArray[np.int64], list[str]]:
    """Places of at most ``most`` samples that the cache holds, evenly by class; and their classes.

    Samples that were skipped when the cache was built are left out.
    """
    gone = set(cache.skipped)
    held = [place for place, name in enumerate(cache.ids) if name not in gone]
    chosen = spread_sample([label_of(cache.ids[place]) for place in held], most)
    places = np.array(held, dtype=np.int64)[chosen]
    return places, [label_of(cache.ids[place]) for place in places]


def label_of(sample_id: str) -> str:
    """A sample's class: what stands before the slash of its id."""
    return sample_id.rsplit("/", 1)[0]


@in_our_style
def plot_embeddings(
    cache: CacheReader,
    view: str,
    out: Path,
    *,
    severities: Mapping[str, Mapping[str, float]] | None = None,
    most: int = 1100,
    force: bool = False,
) -> Drawing:
    """Draw E_Answer of a cache on its principal components and by t-SNE (Figures 1 and 5).

    Coloured by composition and, where severities are known, by the dominant one; beside them the
    classes' mean cosine similarities.

    Args:
        cache: an open cache.
        view: which of its views.
        out: folder for embeddings.png, .svg and .csv.
        severities: sample id to degradation to severity in [0, 1]; None leaves dominance out.
        most: samples to draw, the same number of every class.
        force: write over figures that are there.

    Returns:
        The files; the share of variance of the two components; and, with severities, how many
        mixtures have a dominant part (`DOMINANCE` times the next) and the share of them that lie
        nearest to that one's centroid, by Euclidean distance and by cosine (None: no such
        mixture, or a degradation never occurs alone).

    Raises:
        CacheError: the view is not there.
        UsageError: the figure exists, or there is only one class.
        MmfeError: matplotlib or scikit-learn is not installed.
    """
    check_targets(out, ["embeddings"], force=force)
    chosen, shown = choose_samples(cache, most)
    order = in_order(shown)
    if len(order) < 2:
        raise UsageError("this figure compares classes", got=f"{len(order)} class in {cache.path}")
    answers = answers_of(cache, chosen, view)
    components, share = plane(answers)
    near = neighbours(answers)
    names = [cache.ids[place] for place in chosen]
    strongest = None if severities is None else dominant_names(names, severities)

    places: list[Any] = [["pca", "tsne"], ["matrix", "."]]
    if strongest is not None:
        places = [["pca", "pca dominant"], ["tsne", "tsne dominant"], ["matrix", "legend"]]
    figure = new_figure(2.7 * len(places) + 0.3)
    axes = figure.subplot_mosaic(places, height_ratios=[1.0] * (len(places) - 1) + [1.25])
    spaces = {
        "pca": (components, f"PCA ({share:.0%} of the variance)"),
        "tsne": (near, "t-SNE"),
    }
    for place, (coordinates, title) in spaces.items():
        scatter(axes[place], coordinates, shown)
        axes[place].set_title(f"{title}, by composition", loc="left")
        if strongest is not None:
            scatter(axes[f"{place} dominant"], coordinates, strongest)
            axes[f"{place} dominant"].set_title(f"{title}, by dominant severity", loc="left")
    means = class_similarities(answers, shown, order)
    draw_matrix(axes["matrix"], means, order, "mean cosine similarity of classes")
    figure.suptitle(f"E_Answer of {cache.guide}, {view}", x=0.01, ha="left")
    facts: dict[str, Any] = {"guide": cache.guide, "view": view, "samples": len(chosen)}
    facts["variance"] = share
    if severities is not None and strongest is not None:
        handles = axes["pca dominant"].get_legend_handles_labels()
        axes["legend"].set_axis_off()
        axes["legend"].legend(*handles, loc="upper left", title="dominant severity")
        facts |= dominance_facts(answers, names, shown, severities)
    for place, (coordinates, _) in spaces.items():
        name_classes(axes[place], coordinates, shown)
    rows = tuple(
        (name, label, "" if strongest is None else strongest[n], *map(float, (*pc, *place)))
        for n, (name, label, pc, place) in enumerate(
            zip(names, shown, components, near, strict=True)
        )
    )
    columns = ("id", "label", "dominant", "pc1", "pc2", "tsne1", "tsne2")
    files = save(figure, Table(columns, rows), out, "embeddings")
    return Drawing(files, facts)


def answers_of(cache: CacheReader, chosen: Any, view: str) -> Matrix:
    """(N, D) E_Answer of the chosen samples."""
    answer = cache.gather(chosen, view, arrays=("answer",)).answer
    assert answer is not None
    return answer.double().numpy()


def class_similarities(vectors: Matrix, labels: list[str], order: list[str]) -> Matrix:
    """(K, K) mean cosine similarity of each two classes; no sample is paired with itself.

    nan for a class of one sample with itself.
    """
    similarity = cosine(vectors)
    np.fill_diagonal(similarity, 0.0)
    member = np.array([[label == name for label in labels] for name in order], dtype=np.float64)
    pairs = member @ (1.0 - np.eye(len(labels))) @ member.T
    with np.errstate(invalid="ignore"):
        return (member @ similarity @ member.T) / pairs


def draw_matrix(axes: Axes, matrix: Matrix, order: list[str], title: str) -> None:
    """Draw class similarities, with the value in each cell."""
    low = float(np.nanmin(matrix))
    axes.imshow(matrix, cmap="cividis", vmin=low, vmax=1.0)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        ink = "black" if value > (low + 1) / 2 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=5.2, color=ink)
    names = [short(label) for label in order]
    axes.set_xticks(range(len(order)), names, rotation=60, fontsize=6)
    axes.set_yticks(range(len(order)), names, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
