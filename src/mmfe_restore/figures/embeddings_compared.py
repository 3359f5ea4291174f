"""Figure 1: what two guides make of the same degraded images, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mmfe_cache.degradations import KIND_NAMES
from mmfe_cache.errors import UsageError
from mmfe_restore.figures.canvas import (
    Drawing,
    Table,
    abbreviated,
    check_targets,
    in_our_style,
    new_figure,
    save,
)
from mmfe_restore.figures.embeddings import (
    COLUMNS,
    DOMINANCE,
    Arrangement,
    Severities,
    arrange,
    facts_of,
    rows_of,
)
from mmfe_restore.figures.scatter import name_classes, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmfe_cache.store import CacheReader

MOST_PANELS = 4
"""Guides that fit side by side."""

_LINE = 112
"""Letters of a heading across the whole figure."""


@in_our_style
def plot_compared(
    caches: Sequence[tuple[CacheReader, str]],
    out: Path,
    *,
    severities: Severities | None = None,
    most: int = 1100,
    force: bool = False,
) -> Drawing:
    """Draw E_Answer of several guides by t-SNE, a column each (the panels of Figure 1).

    Args:
        caches: open caches of one split, and the view to read of each.
        out: folder for embeddings.png, .svg and .csv.
        severities: sample id to degradation to severity in [0, 1]: also colour by what dominates,
            and say how many mixtures lie nearest to it.
        most: samples to draw, the same number of every class and two at least; all guides get the
            same ones.
        force: write over figures that are there.

    Returns:
        The files; and as ``panels`` what `plot_embeddings` says of each guide, with its ``name``
        in the figure and in the CSV.

    Raises:
        CacheError: a view is not there.
        UsageError: the figure exists, the caches are of different samples, there are too many, or
            there is only one class.
        MmfeError: matplotlib or scikit-learn is not installed.
    """
    first = caches[0][0]
    for cache, _ in caches[1:]:
        if (cache.dataset, cache.split, cache.ids) != (first.dataset, first.split, first.ids):
            raise UsageError(
                "guides are compared on the same samples",
                got=f"{first.path} of {first.dataset}/{first.split} ({len(first)} samples), "
                f"{cache.path} of {cache.dataset}/{cache.split} ({len(cache)})",
                expected="caches of one split of one set",
            )
        if cache.skipped != first.skipped:
            raise UsageError(
                "guides are compared on the same samples, and one of these caches left some out",
                got=f"{len(first.skipped)} and {len(cache.skipped)} skipped",
                remedy="mmfe cache repair PATH",
            )
        other = (cache.pixel_digests != first.pixel_digests).any(axis=1)
        if other.any():
            raise UsageError(
                "guides are compared on the same samples, and these caches are of other pixels",
                got=f"{int(other.sum())} of {len(first)} samples, such as "
                f"{first.ids[int(other.argmax())]!r}, differ between {first.path} and {cache.path}",
                expected="caches that were built from one set",
            )
    if len(caches) > MOST_PANELS:
        raise UsageError(
            "too many caches for one figure", got=len(caches), expected=f"up to {MOST_PANELS}"
        )
    check_targets(out, ["embeddings"], force=force)
    shown: list[Arrangement] = []
    panels: list[dict[str, Any]] = []
    for (cache, view), name in zip(caches, _names(caches), strict=True):
        shown.append(arrange(cache, view, severities=severities, most=most))
        facts = facts_of(shown[-1], cache, view, severities)
        panels.append({**facts, "name": name, "cache": str(cache.path)})
    rows = [
        (facts["name"], *row)
        for one, facts in zip(shown, panels, strict=True)
        for row in rows_of(one)
    ]
    table = Table(("guide", *COLUMNS), tuple(rows))
    return Drawing(save(_draw(shown, panels), table, out, "embeddings"), {"panels": panels})


def _names(caches: Sequence[tuple[CacheReader, str]]) -> list[str]:
    """The guides' names; with the stores' where one guide comes twice, as of two prompts."""
    guides = [cache.guide for cache, _ in caches]
    # A store may also be an address.
    stores = [f"{cache.guide} ({PurePath(str(cache.path)).stem})" for cache, _ in caches]
    if len(set(stores)) < len(stores):
        stores = [str(cache.path) for cache, _ in caches]
    if len(set(stores)) < len(stores):  # one store at several views
        stores = [f"{cache.path} at {view}" for cache, view in caches]
    return [
        store if guides.count(guide) > 1 else guide
        for guide, store in zip(guides, stores, strict=True)
    ]


def claim(facts: dict[str, Any]) -> str:
    """The number behind Figure 1's claim, or the variance where severities are not known."""
    if facts.get("nearest") is None:
        return f"two components: {facts['variance']:.0%} of the variance"
    return (
        f"{facts['nearest']:.0%} of mixtures nearest to what dominates\n"
        f"(cosine {facts['nearest_cosine']:.0%}, composition alone "
        f"{facts['composition_alone']:.0%}, chance 25%)"
    )


def _draw(shown: Sequence[Arrangement], panels: Sequence[dict[str, Any]]) -> Figure:
    dominated = shown[0].dominant is not None
    rows = 2 if dominated else 1
    figure = new_figure(3.0 * rows + 1.0)
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for column, (one, facts) in enumerate(zip(shown, panels, strict=True)):
        scatter(axes[0, column], one.near, one.labels)
        axes[0, column].set_title(_heading(column, facts, len(shown)), loc="left", fontsize=7)
        if one.dominant is not None:
            scatter(axes[1, column], one.near, one.dominant)
    axes[0, 0].set_ylabel("by composition")
    legends = [(axes[0, 0], abbreviated)]
    if dominated:
        axes[1, 0].set_ylabel(f"by dominant severity ({DOMINANCE} times the next)")
        legends.append((axes[1, 0], lambda label: KIND_NAMES.get(label, "none")))
    handles: list[Any] = []
    names: list[str] = []
    for place, say in legends:
        found, labels = place.get_legend_handles_labels()
        handles += found
        names += [say(label) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=6.5)
    figure.suptitle(f"E_Answer by t-SNE, {len(shown[0].names)} samples", x=0.01, ha="left")
    for column, one in enumerate(shown):
        name_classes(axes[0, column], one.near, one.labels)
    return figure


def _heading(column: int, facts: dict[str, Any], panels: int) -> str:
    """What stands above a panel, in lines no wider than it."""
    said = f"({'abcd'[column]}) {facts['name']}, {facts['view']}\n{claim(facts)}"
    return "\n".join(fill(line, _LINE // panels) for line in said.splitlines())
