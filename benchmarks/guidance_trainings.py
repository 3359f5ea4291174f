"""The trainings of benchmarks/guidance_study.py: which there are, one, and many side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.guidance_rows import BUDGET_ROWS, recipe_of
from mmfe_cache.io import write_file
from mmfe_cache.machine import usable_cores
from mmfe_cache.samples import SampleSet
from mmfe_cache.store import open_cache, store_path
from mmfe_restore.evaluation import evaluate
from mmfe_restore.model import Restorer, parameters_of
from mmfe_restore.recipes import Recipe
from mmfe_restore.training import train
from mmfe_restore.training.run_dir import claim


@dataclass(frozen=True)
class Test:
    """A set that rows are judged on.

    Attributes:
        name: ``test``, or ``scenes`` for the second one.
        samples: of it.
        cache: the folder of its caches.
    """

    name: str
    samples: SampleSet
    cache: Path


@dataclass(frozen=True)
class Sources:
    """What every row reads.

    Attributes:
        root: of the training set.
        cache: the folder of its caches.
        tests: what rows are judged on; the first is the study's own.
    """

    root: Path
    cache: Path
    tests: tuple[Test, ...]


def tag(guide: str) -> str:
    """A guide's name for a folder: that of its caches, which tells files and weights apart."""
    return store_path("cdd11", "train", guide).stem


@dataclass(frozen=True)
class Row:
    """One line of the study: what is trained for it, a seed each.

    Attributes:
        name: the row.
        guide: its guide; None where the row has no guidance.
        budget: how many times ``--steps``.
        trainings: each seed's recipe and folder.
    """

    name: str
    guide: str | None
    budget: int
    trainings: tuple[tuple[Recipe, Path], ...]


def rows_of(arguments: argparse.Namespace) -> list[Row]:
    """Every row that the command asks for, in the order in which they are shown."""
    found: list[Row] = []
    for budget in arguments.budgets:
        for row in arguments.rows:
            if budget != 1 and row not in BUDGET_ROWS:
                continue
            guided = bool(recipe_of(row, arguments.guides[0], 0, 1, arguments.set).model.reads)
            for guide in arguments.guides if guided else arguments.guides[:1]:
                trainings = trainings_of(row, guide, guided, budget, arguments)
                found.append(Row(row, guide if guided else None, budget, trainings))
    return found


def trainings_of(
    row: str, guide: str, guided: bool, budget: int, arguments: argparse.Namespace
) -> tuple[tuple[Recipe, Path], ...]:
    """A row's recipes and folders, a seed each."""
    found: list[tuple[Recipe, Path]] = []
    count = arguments.seeds if row in arguments.seeded else 1
    for seed in range(arguments.first_seed, arguments.first_seed + count):
        recipe = recipe_of(row, guide, seed, budget * arguments.steps, arguments.set)
        known = tag(guide)
        knows = f"{known}-without-{arguments.unknown}" if arguments.unknown else known
        name = f"{row}-{knows}-{seed}" if guided else f"{row}-{seed}"
        longer = f"-x{budget}" if budget != 1 else ""
        found.append((recipe, arguments.out / "runs" / f"{name}{longer}"))
    return tuple(found)


def run_side_by_side(
    trainings: Sequence[tuple[Recipe, Path]], sources: Sources, jobs: int, quiet: bool
) -> None:
    """Train and judge all of them, ``jobs`` at a time, each in a process of its own.

    A training of this size leaves most of a GPU idle. One that fails leaves the others alone and
    is told when they are done.

    Raises:
        Exception: of the first that failed.
    """
    threads = max(1, usable_cores() // jobs)
    with ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(threads,),
    ) as pool:
        running = {pool.submit(run, recipe, sources, out): out for recipe, out in trainings}
        for count, done in enumerate(as_completed(running), 1):
            problem = done.exception()
            if problem is not None:
                said = f"failed: {type(problem).__name__}: {problem}"
            else:
                said = f"{done.result()['average']['psnr']:.2f} dB"
            if not quiet or problem is not None:
                name = running[done].name
                print(f"{count} of {len(running)}: {name} {said}", file=sys.stderr, flush=True)
    for done in running:
        done.result()


def run(recipe: Recipe, sources: Sources, out: Path) -> dict[str, Any]:
    """Train and judge one row; what is there of it is read back.

    Raises:
        UsageError: other settings trained what is there.
        SystemExit: a signal ended the training.
    """
    result = out / "result.json"
    found: dict[str, Any] = json.loads(result.read_text("utf-8")) if result.exists() else {}
    if found:
        claim(out, recipe)
    # A result of an earlier version lacks its scenes, one without --scenes the second set, one
    # of another --test-scenes has others.
    scenes = {name: set(judged["scenes"]) for name, judged in found.get("tests", {}).items()}
    missing = [
        test
        for test in sources.tests
        if scenes.get(test.name) != {sample.scene for sample in test.samples}
    ]
    if found and not missing:
        return found
    report = train(recipe, root=sources.root, cache=sources.cache, out=out)
    if not report.completed:
        raise SystemExit(f"{out.name} was interrupted; the same command goes on from there")
    judged = found.get("tests", {}) | {
        test.name: judge(recipe, test, out / "model") for test in missing
    }
    found = {
        "parameters": parameters_of(recipe.model),
        "steps": report.total_steps,
        "average": judged["test"]["average"],
        "classes": judged["test"]["classes"],
        "tests": judged,
    }
    write_file(result, json.dumps(found, indent=2))
    return found


def judge(recipe: Recipe, test: Test, model: Path, guide: str | None = None) -> dict[str, Any]:
    """One row on one test set: its averages, and the mean over the classes of every scene.

    Args:
        recipe: of the row.
        test: the set.
        model: the trained network's folder.
        guide: whose cache is read; None for the recipe's own.
    """
    store = store_path("cdd11", "test", guide or recipe.guide.name, root=test.cache)
    report = evaluate(
        Restorer.from_pretrained(model),
        recipe,
        test.samples,
        open_cache(store) if recipe.model.reads else None,
        checkpoint=model,
        with_pictures=False,
    )
    scores = report.to_json()
    scenes: dict[str, list[float]] = {}
    for score in report.scores:
        scenes.setdefault(score.scene, []).append(score.values["psnr"])
    return {
        "average": scores["average"],
        "classes": scores["classes"],
        "scenes": {scene: mean(values) for scene, values in sorted(scenes.items())},
    }
