"""The guidance study's contrasts: which rows are compared, and with what p-values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.guidance_contrasts import contrast, contrast_line, contrasts_of


def results(*averages, scenes=(0.0, 1.0, 2.0)):
    """One result a seed; scene k lies `scenes[k]` above the average."""
    return [
        {
            "tests": {
                "test": {
                    "average": {"psnr": average},
                    "scenes": {f"s{k}": average + more for k, more in enumerate(scenes)},
                }
            }
        }
        for average in averages
    ]


def test_a_contrast_by_hand():
    found = contrast(results(21.0, 21.2, 21.1), results(20.0, 20.1, 19.9), "test")
    assert found["difference"] == pytest.approx(1.1)
    # Every one of three scenes gains as much: 2 of 8 choices of signs are as far from 0.
    assert (found["scenes"], found["p_scenes"]) == (3, pytest.approx(2 / 8))
    assert (found["seeds"], found["p_seeds"]) == ([3, 3], pytest.approx(2 / 20))
    mixed = contrast(results(20.0, scenes=(0, 1, 2)), results(20.0, scenes=(1, 1, 1)), "test")
    assert mixed["p_scenes"] == pytest.approx(1.0)
    assert mixed["p_seeds"] is None


def test_rows_are_compared_under_their_own_guide():
    done = {
        ("baseline", None): results(20.0),
        ("wide", None): results(20.2),
        ("full", "scene"): results(21.0),
        ("full", "oracle"): results(21.5),
        ("shuffled", "scene"): results(19.5),
    }
    found = {(*one["rows"], one["guide"]): one for one in contrasts_of(done, 2, ["test"])}
    assert set(found) == {
        ("full", "baseline", "scene"), ("full", "baseline", "oracle"),
        ("full", "shuffled", "scene"), ("wide", "baseline", None),
        ("shuffled", "baseline", "scene"),
    }  # fmt: skip
    assert found["full", "baseline", "oracle"]["difference"] == pytest.approx(1.5)
    assert contrast_line(found["full", "shuffled", "scene"]) == (
        "full less shuffled (scene, ×2, test): +1.50 dB, over 3 scenes p = 0.250"
    )
