"""Names of classes: none over another, none outside, none that moves the layout."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_restore.figures.canvas import STYLE, marker_of, new_figure
from mmfe_restore.figures.scatter import name_classes, scatter


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


def test_every_composition_has_its_marker():
    assert len({marker_of(label) for label in COMPOSITIONS}) == len(COMPOSITIONS)
