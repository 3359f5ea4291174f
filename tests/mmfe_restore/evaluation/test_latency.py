"""Table 5c's column: what stands beside what, and when the command fails."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.cache_support import Pattern
from benchmarks.latency import PROMPT_BASED, REPORTED, in_turns, judge, measure, show


def row(guide, seconds, **more):
    return {
        "guide": guide,
        "guide_share": 0.01,
        "limit_guide_share": None,
        "total_seconds": seconds,
        "cached_ratio": 1.0,
        "published_seconds": REPORTED.get(guide),
        **more,
    }


def test_ratios_are_to_the_papers_prompt_based_row():
    assert REPORTED[PROMPT_BASED] == 1.05
    rows = [row("qwen2.5-vl-3b", 3.0), row("prompt", 2.0), row("scene", 2.0)]
    assert judge(rows)
    assert [one["ratio"] for one in rows] == [1.5, 1.0, 1.0]
    assert rows[0]["published_ratio"] == pytest.approx(1.75 / 1.05)
    assert rows[2]["published_ratio"] is None


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"guide_share": 0.031, "limit_guide_share": 0.03}, False),
        ({"guide_share": 0.029, "limit_guide_share": 0.03}, True),
        ({"cached_ratio": 1.11}, False),
    ],
)
def test_a_limit_that_is_missed_fails_the_command(more, kept):
    assert judge([row("prompt", 2.0), row("mine", 2.0, **more)]) is kept


def test_all_are_measured_in_turns():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    assert set(in_turns(works, 2)) == {"a", "b", "c"}
    assert order == [*"abc"] * 3  # one round to warm up


def test_a_small_network_is_measured_with_its_guide(capsys):
    sizes = ["model.width=8", "model.num_blocks=[1,1,1,1]", "model.num_refinement_blocks=1"]
    options = Namespace(recipe="small", overrides=sizes, view="native", repeats=1)
    found = measure("prompt", options, Pattern(0, 64, 80))
    assert found is not None
    assert found["guide_share"] == found["guide_seconds"] / found["restorer_seconds"] > 0
    assert (found["kind"], found["limit_guide_share"]) == ("prompt", None)
    assert measure("qwen2.5-vl-3b", options, Pattern(0, 64, 80)) is None
    assert "qwen2.5-vl-3b: not here" in capsys.readouterr().err
    judge([found])
    show({
        "size": "80x64", "device": "cpu", "threads": 1, "recipe": "small", "view": "native",
        "limit_cached_ratio": 1.1, "rows": [found],
    })  # fmt: skip
    assert "prompt " in capsys.readouterr().out
