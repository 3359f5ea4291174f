"""The guidance study in blocks: trainings of several machines and sessions in one comparison.

    python -m benchmarks.guidance_blocks collect study --name BLOCK
    python -m benchmarks.guidance_blocks show [--json]

`collect` copies what benchmarks/guidance_study.py found in a folder to benchmarks/results/guidance,
a file a block: one machine, one version of the code. Another machine's arithmetic moves a training
too, so rows are compared within a block and a seed alone: `show` takes
the difference of every such pair, and then their mean. Over scenes and over pairs it gives the
95 % intervals and sign-flip tests of benchmarks/guidance_contrasts.py; with K pairs the latter
cannot go below 2 / 2^K.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.guidance_contrasts import CONTRASTS, by_name, interval, resampled
from benchmarks.guidance_rows import ROWS
from mmfe_cache.io import counted, write_file
from mmfe_restore.evaluation.significance import sign_flip_test, t_interval

RESULTS = Path(__file__).parent / "results" / "guidance"

BETWEEN_GUIDES = ("full",)
"""Rows that are also compared from guide to guide."""


@dataclass(frozen=True)
class Result:
    """One training, judged.

    Attributes:
        row: its name in `ROWS`.
        guide: its guide, as folders name it; None for a row without guidance.
        budget: how many times the study's steps it was trained for.
        seed: of the training.
        steps: that it took.
        psnr: dB, the mean over the classes.
        scenes: photograph to dB, the mean over the classes.
        test: the set it was judged on; ``scenes`` is that of the study's ``--scenes``.
    """

    row: str
    guide: str | None
    budget: int
    seed: int
    steps: int
    psnr: float
    scenes: dict[str, float]
    test: str = "test"


def results_of(run: Path) -> list[Result]:
    """What a run of the study found, test set by test set.

    Its folder is named ROW-GUIDE-SEED or ROW-SEED, maybe -xN.

    Raises:
        ValueError: a folder of another name.
    """
    row = max((name for name in ROWS if run.name.startswith(f"{name}-")), key=len, default=None)
    found = None if row is None else re.fullmatch(
        rf"{re.escape(row)}(?:-(.+?))?-(\d+)(?:-x(\d+))?", run.name
    )  # fmt: skip
    if row is None or found is None:
        raise ValueError(f"{run.name} is no run of the study")
    content = json.loads((run / "result.json").read_text("utf-8"))
    return [
        Result(
            row=row,
            guide=found[1],
            budget=int(found[3] or 1),
            seed=int(found[2]),
            steps=content["steps"],
            psnr=round(judged["average"]["psnr"], 4),
            scenes={scene: round(value, 4) for scene, value in judged["scenes"].items()},
            test=test,
        )
        for test, judged in content["tests"].items()
    ]


def collect(study: Path, name: str, note: str) -> Path:
    """Write a block of every finished run in ``study``; returns its file."""
    runs = sorted(path.parent for path in (study / "runs").glob("*/result.json"))
    if not runs:
        raise SystemExit(
            f"{study / 'runs'} holds no finished run: benchmarks.guidance_study --out {study} "
            "makes them"
        )
    block = {
        "machine": f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        "note": note,
        "results": [asdict(result) for run in runs for result in results_of(run)],
    }
    path = RESULTS / f"{name}.json"
    write_file(path, json.dumps(block, indent=1) + "\n")
    return path


Blocks = dict[str, list[Result]]
"""The results of each block by its name."""


def read_blocks(folder: Path) -> Blocks:
    """Every block of ``folder``."""
    return {
        path.stem: [Result(**one) for one in json.loads(path.read_text("utf-8"))["results"]]
        for path in sorted(folder.glob("*.json"))
    }


def comparisons(blocks: Blocks) -> list[dict[str, Any]]:
    """Every contrast that some block holds both sides of."""
    everything = [result for results in blocks.values() for result in results]
    guides = sorted({one.guide for one in everything if one.guide is not None})
    wanted = [((one, g), (other, g)) for one, other in CONTRASTS for g in (None, *guides)]
    wanted += [
        ((row, one), (row, other))
        for row in BETWEEN_GUIDES
        for one, other in combinations(guides, 2)
    ]
    found: list[dict[str, Any]] = []
    judged = {(one.budget, one.test) for one in everything}
    for budget, test in sorted(judged, key=lambda one: (one[0], one[1] != "test", one[1])):
        for one, other in wanted:
            pairs = pairs_of(blocks, one, other, budget, test)
            if pairs:
                about = {"one": list(one), "other": list(other), "budget": budget, "test": test}
                found.append(about | compared(pairs))
    return found


Pair = tuple[str, Result, Result]
"""A block, and its two results of one seed."""


def pairs_of(
    blocks: Blocks,
    one: tuple[str, str | None],
    other: tuple[str, str | None],
    budget: int,
    test: str = "test",
) -> list[Pair]:
    """The results of two rows under their guides that share block, seed, budget and test set.

    A row without guidance stands for every guide's.
    """
    pairs: list[Pair] = []
    for name, results in blocks.items():
        here = {
            (r.row, r.guide, r.seed): r for r in results if (r.budget, r.test) == (budget, test)
        }
        for (row, guide, seed), result in sorted(here.items(), key=lambda item: item[0][2]):
            if (row, guide) != one:
                continue
            against = here.get((*other, seed), here.get((other[0], None, seed)))
            if against is not None:
                pairs.append((name, result, against))
    return pairs


def compared(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The mean difference of pairs, in dB, and what makes it uncertain."""
    values = by_name(*(result.scenes for _, one, two in pairs for result in (one, two)))
    scenes = np.mean(np.subtract(values[::2], values[1::2]), axis=0)
    each = [one.psnr - two.psnr for _, one, two in pairs]
    over_pairs = t_interval(each)
    return {
        "difference": mean(each),
        "pairs": [
            {"block": b, "seed": one.seed, "dB": [one.psnr, two.psnr]} for b, one, two in pairs
        ],
        "scenes": len(scenes),
        "interval_scenes": interval(resampled(scenes).mean(axis=1)),
        "p_scenes": sign_flip_test(scenes.tolist()),
        "interval_pairs": None if over_pairs is None else [over_pairs.low, over_pairs.high],
        "p_pairs": sign_flip_test(each) if len(each) > 1 else None,
    }


def line(found: dict[str, Any]) -> str:
    """One comparison for people."""
    one, other = (" of ".join(filter(None, found[side])) for side in ("one", "other"))
    low, high = found["interval_scenes"]
    judged = "" if found["test"] == "test" else f" on {found['test']}"
    text = (
        f"{one} less {other}, ×{found['budget']}{judged}: {found['difference']:+.2f} dB in "
        f"{counted(len(found['pairs']), 'pair')}; over {found['scenes']} scenes {low:+.2f} to "
        f"{high:+.2f}, p = {found['p_scenes']:.3f}"
    )
    if found["interval_pairs"] is None:
        return text
    low, high = found["interval_pairs"]
    return f"{text}; over pairs {low:+.2f} to {high:+.2f}, p = {found['p_pairs']:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Collect a block, or show what all of them say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    collecting = actions.add_parser("collect")
    collecting.add_argument("study", type=Path)
    collecting.add_argument("--name", required=True, help="of the block, such as a date")
    collecting.add_argument("--note", default="", help="what else its trainings have in common")
    showing = actions.add_parser("show")
    showing.add_argument("--folder", type=Path, default=RESULTS)
    showing.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.action == "collect":
        print(collect(options.study, options.name, options.note))
        return 0
    found = comparisons(read_blocks(options.folder))
    print(json.dumps(found, indent=2) if options.json else "\n".join(map(line, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
