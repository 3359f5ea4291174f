"""Names of classes: none over another, none outside, none that moves the layout."""

from __future__ import annotations

from itertools import combinations, pairwise

import matplotlib as mpl
import numpy as np
import pytest

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_restore.figures.canvas import BALANCED, STYLE, class_styles, new_figure
from mmfe_restore.figures.embeddings_compared import _heading
from mmfe_restore.figures.scatter import name_classes, pca, scatter, tsne


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
def test_names_keep_apart_and_inside(spread):
    random = np.random.default_rng(0)
    labels = [label for label in COMPOSITIONS for _ in range(4)]
    # All classes in one corner but one, which stretches the axes: the tightest case.
    coordinates = random.normal(0, spread + 1e-6, (len(labels), 2))
    coordinates[-1] = (9, 9)
    with mpl.rc_context(STYLE):
        figure = new_figure(3.0)
        axes = figure.subplots()
        scatter(axes, coordinates, labels)
        name_classes(axes, coordinates, labels)
        figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    # An extent counts the line to the class in: the words alone are compared.
    words = [super(type(text), text).get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(words) == len(COMPOSITIONS)
    assert not any(a.overlaps(b) for a, b in combinations(words, 2))
    inside = axes.get_window_extent().padded(0.5)
    assert all(inside.contains(*box.min) and inside.contains(*box.max) for box in words)


def test_a_name_hides_no_marker_where_there_is_room():
    coordinates = np.array([(0, 0), (0, 0.1), (1, 0), (1, 0.1), (0.5, 1), (0.5, 0.9)], dtype=float)
    labels = ["low", "low", "snow", "snow", "haze", "haze"]
    with mpl.rc_context(STYLE):
        figure = new_figure(3.0)
        axes = figure.subplots()
        scatter(axes, coordinates, labels)
        name_classes(axes, coordinates, labels)
        figure.draw_without_rendering()
        # A marker of 18 square points is about 4.2 points wide.
        reach = 2.1 * figure.dpi / 72
        points = axes.transData.transform(coordinates)
        boxes = [super(type(text), text).get_window_extent() for text in axes.texts]
    touched = [
        (box.min < point + reach).all() and (box.max > point - reach).all()
        for box in boxes
        for point in points
    ]
    assert not any(touched)


def test_every_class_has_a_marker_that_means_nothing_else():
    many = [*COMPOSITIONS, BALANCED, "blur", "noise-15", "noise-25", "noise-50"]
    found = class_styles(many)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(many)
    of_cdd11 = [found[label].marker for label in (*COMPOSITIONS, BALANCED)]
    assert len(set(of_cdd11)) == len(of_cdd11)
    # A class looks alike in every figure.
    assert class_styles(["snow", "low"])["snow"] == found["snow"]


def test_equal_vectors_have_one_place():
    random = np.random.default_rng(0)
    classes = random.normal(size=(12, 8))
    which = random.permutation(np.repeat(np.arange(12), 9))
    found = tsne(classes[which])
    places = np.stack([found[which == k][0] for k in range(12)])
    np.testing.assert_array_equal(found, places[which])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(12, k=1)]
    assert gaps.min() > 0.05 * gaps.max()
    # As of the classes alone, in the order in which they come.
    order = list(dict.fromkeys(which.tolist()))
    np.testing.assert_array_equal(places[order], tsne(classes[order]))
    few = classes[[0, 1, 0, 2, 1, 0]]
    np.testing.assert_array_equal(tsne(few), pca(classes[:3])[0][[0, 1, 0, 2, 1, 0]])


@pytest.mark.parametrize("panels", [2, 3, 4])
def test_a_panels_heading_is_no_wider_than_the_panel(panels):
    facts = {
        "name": "timm:tf_efficientnet_lite0,weights=random", "view": "crop@224", "variance": 0.5,
        "nearest": 0.62, "nearest_cosine": 0.62, "composition_alone": 0.65,
    }  # fmt: skip
    with mpl.rc_context(STYLE):
        figure = new_figure(3.0)
        for column, axes in enumerate(figure.subplots(1, panels)):
            axes.set_title(_heading(column, facts, panels), loc="left", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
        figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
