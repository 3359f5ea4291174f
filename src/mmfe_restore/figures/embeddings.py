"""Figures 1 and 5, left: how a guide arranges degraded images, and what dominates them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfe_cache.degradations import KIND_NAMES, KINDS
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.scene.evaluation import dominant, nearest_is_dominant
from mmfe_restore.figures.canvas import (
    BALANCED,
    Drawing,
    Table,
    abbreviated,
    check_targets,
    in_order,
    in_our_style,
    new_figure,
    save,
)
from mmfe_restore.figures.scatter import (
    Matrix,
    cosine_similarity,
    name_classes,
    pca,
    scatter,
    spread_sample,
    tsne,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mmfe_cache.store import CacheReader

Severities = Mapping[str, Mapping[str, float]]
"""Sample id to degradation to severity in [0, 1]."""

DOMINANCE = 1.25
"""How many times the next severity the dominant one must be. Lower than in `mmfe guide evaluate`,
because CDD11's severities are all from 0.5 to 1."""


@dataclass(frozen=True)
class Arrangement:
    """Where a guide puts the samples of a cache.

    Attributes:
        title: the guide and the view.
        names: N sample ids.
        labels: N classes.
        dominant: what dominates each sample (`KINDS` or ``balanced``); None where severities are
            unknown.
        answers: (N, D) E_Answer.
        components: (N, 2) principal components.
        variance: their share of the variance.
        near: (N, 2) t-SNE.
    """

    title: str
    names: list[str]
    labels: list[str]
    dominant: list[str] | None
    answers: Matrix
    components: Matrix
    variance: float
    near: Matrix

    @property
    def order(self) -> list[str]:
        """The classes in the paper's order."""
        return in_order(self.labels)


def choose_samples(cache: CacheReader, most: int) -> tuple[NDArray[np.int64], list[str]]:
    """Places of samples that the cache holds, chosen by `spread_sample`, and their classes.

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


def answers_of(cache: CacheReader, chosen: Any, view: str) -> Matrix:
    """(N, D) E_Answer of the chosen samples."""
    answer = cache.gather(chosen, view, arrays=("answer",)).answer
    assert answer is not None
    return answer.double().numpy()


def arrange(
    cache: CacheReader, view: str, *, severities: Severities | None = None, most: int = 1100
) -> Arrangement:
    """Lay a cache's E_Answer out in a plane; see `plot_embeddings` for the arguments.

    Raises:
        CacheError: the view is not there.
        UsageError: there is only one class.
        MmfeError: scikit-learn is not installed.
    """
    chosen, labels = choose_samples(cache, most)
    if len(set(labels)) < 2:
        raise UsageError("this figure compares classes", got=f"{len(set(labels))} in {cache.path}")
    answers = answers_of(cache, chosen, view)
    names = [cache.ids[place] for place in chosen]
    components, share = pca(answers)
    return Arrangement(
        title=f"E_Answer of {cache.guide}, view {view}, {len(names)} samples",
        names=names,
        labels=labels,
        dominant=None if severities is None else dominant_names(names, severities),
        answers=answers,
        components=components,
        variance=share,
        near=tsne(answers),
    )


@in_our_style
def plot_embeddings(
    cache: CacheReader,
    view: str,
    out: Path,
    *,
    severities: Severities | None = None,
    most: int = 1100,
    force: bool = False,
) -> Drawing:
    """Draw E_Answer of a cache on its principal components and by t-SNE (Figures 1 and 5).

    Coloured by composition and, where severities are known, by the dominant one; below them the
    classes' mean cosine similarities and what the signs mean.

    Args:
        cache: an open cache.
        view: which of its views.
        out: folder for embeddings.png, .svg and .csv.
        severities: sample id to degradation to severity in [0, 1]; None leaves dominance out.
        most: samples to draw, the same number of every class and two at least.
        force: write over figures that are there.

    Returns:
        The files; the share of variance of the two components; and, with severities,
        `dominance_facts`.

    Raises:
        CacheError: the view is not there.
        UsageError: the figure exists, or there is only one class.
        MmfeError: matplotlib or scikit-learn is not installed.
    """
    check_targets(out, ["embeddings"], force=force)
    shown = arrange(cache, view, severities=severities, most=most)
    table = Table(COLUMNS, tuple(rows_of(shown)))
    files = save(_draw(shown), table, out, "embeddings")
    return Drawing(files, facts_of(shown, cache, view, severities))


def facts_of(
    shown: Arrangement, cache: CacheReader, view: str, severities: Severities | None
) -> dict[str, Any]:
    """What a figure says of an arrangement: its guide, view and variance, and what dominates."""
    facts: dict[str, Any] = {"guide": cache.guide, "view": view, "samples": len(shown.names)}
    facts["variance"] = shown.variance
    if severities is None:
        return facts
    return facts | dominance_facts(shown.answers, shown.names, shown.labels, severities)


COLUMNS = ("id", "label", "dominant", "pc1", "pc2", "tsne1", "tsne2")
"""Of embeddings.csv."""


def rows_of(shown: Arrangement) -> Iterator[tuple[Any, ...]]:
    """A row of `COLUMNS` for each sample."""
    strongest = shown.dominant or [""] * len(shown.names)
    places = np.concatenate([shown.components, shown.near], axis=1).tolist()
    for *row, place in zip(shown.names, shown.labels, strongest, places, strict=True):
        yield *row, *place


# Which degradation dominates


def severities_of(names: Sequence[str], recorded: Severities) -> Matrix:
    """(N, 4) severities in the order of ``KINDS``, 0 where a degradation is absent."""
    rows = [[recorded[name].get(kind, 0.0) for kind in KINDS] for name in names]
    return np.array(rows, dtype=np.float64)


def dominant_names(names: Sequence[str], recorded: Severities) -> list[str]:
    """Each sample's dominant degradation, or ``balanced``."""
    found = dominant(severities_of(names, recorded), DOMINANCE)
    return [BALANCED if kind < 0 else KINDS[kind] for kind in found]


def dominance_facts(
    answers: Matrix, names: Sequence[str], labels: Sequence[str], recorded: Severities
) -> dict[str, Any]:
    """Figure 1's claim in numbers: does a mixture lie nearest to what dominates it?

    Args:
        answers: (N, D) E_Answer.
        names: N sample ids.
        labels: N compositions.
        recorded: severities by sample id.

    Returns:
        ``dominated``, the mixtures with a dominant part (`DOMINANCE` times the next); ``nearest``
        and ``nearest_cosine``, the share of them nearest to the centroid of the pictures that
        suffer from that part alone; ``composition_alone``, the largest share that is reached
        without a look at severities, by one answer for each composition: a guide that tells
        compositions apart and nothing more reaches no more. None where there is none, or where a
        degradation never occurs alone.
    """
    kinds = np.array(labels)
    none = {"dominated": 0, "nearest": None, "nearest_cosine": None, "composition_alone": None}
    if not all((kinds == kind).any() for kind in KINDS):
        return none
    centroids = np.stack([answers[kinds == kind].mean(axis=0) for kind in KINDS])
    mixed = np.array(["_" in label for label in labels])
    truth = severities_of(names, recorded)
    euclidean, cosine_share, count = nearest_is_dominant(
        answers[mixed], truth[mixed], centroids, ratio=DOMINANCE
    )
    if not count:
        return none
    strongest = dominant(truth, DOMINANCE)
    pairs = Counter(
        (labels[n], int(strongest[n])) for n in range(len(labels)) if mixed[n] and strongest[n] >= 0
    )
    best: dict[str, int] = {}
    for (label, _), number in pairs.items():
        best[label] = max(best.get(label, 0), number)
    return {
        "dominated": count,
        "nearest": euclidean,
        "nearest_cosine": cosine_share,
        "composition_alone": sum(best.values()) / count,
    }


def class_similarities(vectors: Matrix, labels: list[str], order: list[str]) -> Matrix:
    """(K, K) mean cosine similarity of each two classes; no sample is paired with itself.

    nan for a class of one sample with itself.
    """
    similarity = cosine_similarity(vectors)
    np.fill_diagonal(similarity, 0.0)
    member = np.array([[label == name for label in labels] for name in order], dtype=np.float64)
    pairs = member @ (1.0 - np.eye(len(labels))) @ member.T
    with np.errstate(invalid="ignore"):
        return (member @ similarity @ member.T) / pairs


# Drawing


def _draw(shown: Arrangement) -> Figure:
    strongest = shown.dominant
    places: list[Any] = [["pca", "tsne"], ["matrix", "legend"]]
    if strongest is not None:
        places.insert(1, ["pca dominant", "tsne dominant"])
    figure = new_figure(2.6 * (len(places) - 1) + 3.3)
    axes = figure.subplot_mosaic(places, height_ratios=[2.6] * (len(places) - 1) + [3.0])
    spaces = {
        "pca": (shown.components, f"PCA ({shown.variance:.0%} of the variance)"),
        "tsne": (shown.near, "t-SNE"),
    }
    for place, (coordinates, title) in spaces.items():
        scatter(axes[place], coordinates, shown.labels)
        axes[place].set_title(f"{title}, by composition", loc="left")
        if strongest is not None:
            scatter(axes[f"{place} dominant"], coordinates, strongest)
            axes[f"{place} dominant"].set_title(f"{title}, by dominant severity", loc="left")
    means = class_similarities(shown.answers, shown.labels, shown.order)
    draw_matrix(axes["matrix"], means, shown.order)
    figure.suptitle(shown.title, x=0.01, ha="left")
    handles, labels = axes["pca"].get_legend_handles_labels()
    said = [f"{abbreviated(label)}:  {in_words(label)}" for label in labels]
    axes["legend"].set_axis_off()
    # Two legends stand one above the other.
    small: dict[str, Any] = {"fontsize": 6.5, "labelspacing": 0.25} if strongest else {}
    first = axes["legend"].legend(
        handles,
        said,
        loc="upper left",
        title="composition",
        alignment="left",
        fontsize=6.5,
        labelspacing=0.25,
    )
    if strongest is not None:
        axes["legend"].add_artist(first)
        handles, labels = axes["pca dominant"].get_legend_handles_labels()
        said = [KIND_NAMES.get(label, "none") for label in labels]
        axes["legend"].legend(
            handles,
            said,
            loc="lower left",
            title=f"dominant severity ({DOMINANCE} times the next)",
            alignment="left",
            **small,
        )
    for place, (coordinates, _) in spaces.items():
        name_classes(axes[place], coordinates, shown.labels)
    return figure


def in_words(label: str) -> str:
    """A class's degradations spelled out: ``low light + haze``."""
    return " + ".join(KIND_NAMES.get(part, part) for part in label.split("_"))


def draw_matrix(axes: Axes, matrix: Matrix, order: list[str]) -> None:
    """Draw class similarities on a scale from 0 to 1, the value in each cell.

    The scale is the same in every figure, so that two guides can be set side by side.
    """
    image = axes.imshow(matrix, cmap="cividis", vmin=0.0, vmax=1.0)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        ink = "black" if value > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=5.2, color=ink)
    names = [abbreviated(label) for label in order]
    axes.set_xticks(range(len(order)), names, rotation=60, fontsize=6.5)
    axes.set_yticks(range(len(order)), names, fontsize=6.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("mean cosine similarity of classes", loc="left")
    figure = axes.get_figure()
    assert figure is not None
    below = bool((matrix[~np.isnan(matrix)] < 0).any())
    bar = figure.colorbar(
        image, ax=axes, shrink=0.75, pad=0.02, aspect=22, extend="min" if below else "neither"
    )
    bar.ax.tick_params(labelsize=6.5)
