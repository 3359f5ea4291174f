"""The measurements themselves: checked on answers whose scores are known."""

from dataclasses import replace

import numpy as np
import pytest

from mmfe_cache.guides.scene.evaluation import (
    Seen,
    average_precision,
    dominant_share,
    severity_errors,
    spearman,
)


def seen(answer, truth, names):
    truth = np.array(truth, float)
    none = np.full((len(truth), 3), np.nan)
    return Seen(np.array(answer, float), truth, truth > 0, np.array(names), none)


def test_average_precision_equals_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    for decimals in (1, 6):  # with ties and without
        present = draw.uniform(size=300) < 0.3
        score = np.round(draw.normal(size=300) + present, decimals)
        expected = metrics.average_precision_score(present, score)
        assert average_precision(present, score) == pytest.approx(expected, abs=1e-12)


def test_spearman_equals_scipys_and_has_no_opinion_on_constants():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(1)
    first = draw.normal(size=100).round(1)
    second = (first + draw.normal(size=100)).round(1)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_an_embedding_of_severities_places_mixtures_at_their_dominant_part():
    singles = seen(np.eye(4) * 0.75, np.eye(4) * 0.75, ["low", "haze", "rain", "snow"])
    truth = [[0.9, 0.3, 0.2, 0], [0.1, 0.8, 0.3, 0], [0.5, 0.4, 0.4, 0]]
    names = ["low_haze_rain"] * 3
    assert dominant_share(singles, seen(truth, truth, names)) == (1.0, 1.0, 2)
    # An embedding with two of the axes exchanged puts both at the wrong centroid.
    wrong = np.array(truth)[:, [1, 0, 2, 3]]
    assert dominant_share(singles, seen(wrong, truth, names)) == (0.0, 0.0, 2)


def test_without_a_dominant_part_there_is_nothing_to_say():
    singles = seen(np.eye(4), np.eye(4), ["low", "haze", "rain", "snow"])
    share, cosine, count = dominant_share(
        singles, seen(np.eye(4)[:1], [[0.5, 0.4, 0.4, 0]], ["low_haze_rain"])
    )
    assert np.isnan(share)
    assert np.isnan(cosine)
    assert count == 0


def test_errors_of_severity_count_only_what_is_there():
    found = seen(np.zeros((5, 4)), [*np.eye(4) * 0.6, [0.8, 0, 0, 0]], ["x"] * 5)
    assert severity_errors(found) is None
    said = np.full((5, 4), 0.5)
    errors = severity_errors(replace(found, predicted=said))
    assert errors == pytest.approx(
        {"low": np.sqrt((0.1**2 + 0.3**2) / 2), "haze": 0.1, "rain": 0.1, "snow": 0.1}
    )
