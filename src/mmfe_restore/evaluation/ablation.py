"""`mmfe ablate`: a plan's missing caches, runs and reports are made, on the same caches."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.base import guide_calls
from mmfe_cache.machine import pick_device
from mmfe_cache.progress import Progress
from mmfe_cache.samples import SampleSet
from mmfe_restore.evaluation.ablation_plan import CacheNeed, Plan, Row
from mmfe_restore.evaluation.checkpoint import load_checkpoint, open_eval_cache
from mmfe_restore.evaluation.evaluate import evaluate
from mmfe_restore.evaluation.report import METRICS

MEASURED = ("protocol", "crop", "range", "rounding", "view", "guide")
"""What a row says of how it was judged."""


@dataclass
class Counts:
    """How often a guide was called, and for what; training and evaluation must stay at 0."""

    build: int = 0
    train: int = 0
    eval: int = 0
    per_row: dict[str, int] = field(default_factory=dict[str, int])


def run_plan(plan: Plan, progress: Progress, *, device: str = "auto") -> dict[str, Any]:
    """Build, train and judge what is missing; a second call goes on where the first stopped.

    Returns:
        the plan's JSON with each row's figures, and how often a guide was called for what.
    """
    from mmfe_restore.training import train

    pick_device(device)  # refused now, and not after the first row's training
    counts = Counts()
    before = guide_calls()
    for need in plan.caches:
        if need.missing:
            _build(plan, need, progress, device)
    counts.build = guide_calls() - before
    tests: dict[str, SampleSet] = {}
    for row in plan.rows:
        calls = guide_calls()
        dataset = row.recipe.data.dataset
        if row.state not in {"evaluated", "trained"}:
            progress.message(f"training {row.recipe.name}")
            done = train(
                row.recipe, root=plan.root, cache=plan.cache, out=row.out, progress=progress
            )
            if not done.completed:
                raise UsageError(
                    f"the run of {row.recipe.name} was stopped",
                    got=done.stopped_by,
                    remedy="the same command goes on there",
                )
        counts.train += guide_calls() - calls
        if row.state != "evaluated":
            if dataset not in tests:
                tests[dataset] = load_dataset(dataset, "test", plan.root)
            between = guide_calls()
            _judge(row, tests[dataset], plan.cache, progress, device)
            counts.eval += guide_calls() - between
        counts.per_row[row.recipe.name] = guide_calls() - calls
    return _result(plan, counts)


def _build(plan: Plan, need: CacheNeed, progress: Progress, device: str) -> None:
    from mmfe_cache.guides import load_guide
    from mmfe_cache.precompute import build_cache

    dataset = plan.rows[0].recipe.data.dataset
    samples = load_dataset(dataset, need.split, plan.root)
    progress.message(f"building {need.path}: {', '.join(need.missing)}")
    guide = load_guide(need.guide, device=device)
    build_cache(samples, guide, need.missing, need.path, progress=progress)


def _judge(
    row: Row, samples: SampleSet, cache: Path | None, progress: Progress, device: str
) -> None:
    opened = load_checkpoint(row.out)
    store = open_eval_cache(opened.recipe, samples, opened.recipe.eval.view, cache)
    evaluate(
        opened.restorer,
        opened.recipe,
        samples,
        store,
        out=row.report,
        progress=progress,
        checkpoint=opened.path,
        device=device,
    )


def _result(plan: Plan, counts: Counts) -> dict[str, Any]:
    result = plan.to_json()
    for entry, row in zip(result["rows"], plan.rows, strict=True):
        about = json.loads((row.report / METRICS).read_text(encoding="utf-8"))
        entry["state"] = "evaluated"
        entry["average"] = about["average"]
        entry["interval"] = about["intervals"]["average"]["psnr"]
        entry["measured"] = {name: about[name] for name in MEASURED}
        entry["guide_calls"] = counts.per_row[row.recipe.name]
    for cache in result["caches"]:
        cache["built"], cache["missing"] = cache["missing"], []
    result["guide_calls"] = {"build": counts.build, "train": counts.train, "eval": counts.eval}
    return result
