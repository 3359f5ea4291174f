"""`mmfe ablate`: a plan's missing caches, runs and reports are made, on the same caches."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.guides.base import guide_calls
from mmfe_cache.machine import pick_device
from mmfe_cache.progress import Progress
from mmfe_cache.samples import SampleSet
from mmfe_restore.evaluation.ablation_plan import CacheNeed, Plan, check_run
from mmfe_restore.evaluation.ablation_rows import Evaluation, Row, Run
from mmfe_restore.evaluation.compare import SavedReport, read_report
from mmfe_restore.evaluation.evaluate import evaluate
from mmfe_restore.evaluation.inputs import load_checkpoint, open_eval_cache
from mmfe_restore.evaluation.significance import mean_scores, seed_difference
from mmfe_restore.evaluation.statistics import bootstrap

MEASURED = ("protocol", "crop", "range", "rounding", "view", "guide")
"""What a row says of how it was judged."""

TRAINED = ("evaluated", "trained")
"""States of a run that need no training."""

COMPARED = ("psnr", "ssim_gaussian", "ssim_uniform")
"""The figures in which rows are compared with the reference."""


@dataclass
class Counts:
    """How often a guide was called, and for what; training and evaluation must stay at 0."""

    build: int = 0
    train: int = 0
    eval: int = 0
    per_row: dict[str, int] = field(default_factory=dict[str, int])


def run_plan(plan: Plan, progress: Progress, *, device: str = "auto") -> dict[str, Any]:
    """Build, train and judge what is missing; a second call goes on where the first stopped.

    All rows are trained with the first seed before any is with the second: whoever stops there
    has a whole table.

    Returns:
        the plan's JSON with each row's figures, and how often a guide was called for what.

    Raises:
        MmfeError: what `check_run` refuses, or training and evaluation do.
        UsageError: ``device`` is not there, or is not the one on which a missing row is trained.
        KeyboardInterrupt: a signal stopped a row's training, which is saved.
    """
    _check_device(plan, device)  # refused now, and not after the first row's training
    counts = Counts()
    before = guide_calls()
    for need in plan.caches:
        if need.missing:
            _build(plan, need, progress, device)
    counts.build = guide_calls() - before
    for row in plan.rows:
        for run in row.runs:
            check_run(plan, run)
    tests: dict[str, SampleSet] = {}
    for index in range(len(plan.rows[0].runs)):
        for row in plan.rows:
            calls = guide_calls()
            _run(plan, row.runs[index], tests, counts, progress, device)
            name = row.recipe.name
            counts.per_row[name] = counts.per_row.get(name, 0) + guide_calls() - calls
    return _result(plan, counts)


def _check_device(plan: Plan, device: str) -> None:
    chosen, taken = pick_device(device, for_training=True), pick_device()
    trains = any(run.state not in TRAINED for row in plan.rows for run in row.runs)
    if trains and (chosen.type, chosen.index or 0) != (taken.type, 0):
        raise UsageError(
            "rows are to be trained, and training takes the first GPU",
            got=f"--device {device}",
            expected="auto",
            remedy="the GPUs of CUDA_VISIBLE_DEVICES are all that it sees, such as 1, or none: ''",
        )


def _build(plan: Plan, need: CacheNeed, progress: Progress, device: str) -> None:
    from mmfe_cache.guides import load_guide
    from mmfe_cache.precompute import build_cache

    dataset = plan.rows[0].recipe.data.dataset
    samples = load_dataset(dataset, need.split, plan.root)
    progress.message(f"building {need.path}: {', '.join(need.missing)}")
    guide = load_guide(need.guide, device=device, prompt=need.prompt, joint=need.joint)
    build_cache(samples, guide, need.missing, need.path, progress=progress)


def _run(
    plan: Plan,
    run: Run,
    tests: dict[str, SampleSet],
    counts: Counts,
    progress: Progress,
    device: str,
) -> None:
    from mmfe_restore.training import train

    recipe, calls = run.recipe, guide_calls()
    if run.state not in TRAINED:
        several = len(plan.rows[0].runs) > 1
        progress.message(
            f"training {recipe.name}" + (f", seed {recipe.train.seed}" if several else "")
        )
        done = train(recipe, root=plan.root, cache=plan.cache, out=run.out, progress=progress)
        if not done.completed:
            progress.message(f"{recipe.name} was stopped by {done.stopped_by}, and saved")
            raise KeyboardInterrupt
    counts.train += guide_calls() - calls
    missing = [evaluation for evaluation in run.evaluations if not evaluation.done]
    dataset = recipe.data.dataset
    if missing and dataset not in tests:
        tests[dataset] = load_dataset(dataset, "test", plan.root)
    calls = guide_calls()
    for evaluation in missing:
        _evaluate(run, evaluation, tests[dataset], plan.cache, progress, device)
    counts.eval += guide_calls() - calls


def _evaluate(
    run: Run,
    evaluation: Evaluation,
    samples: SampleSet,
    cache: Path | None,
    progress: Progress,
    device: str,
) -> None:
    opened = load_checkpoint(run.out)
    store = open_eval_cache(opened.recipe, samples, evaluation.view, cache)
    evaluate(
        opened.restorer,
        opened.recipe,
        samples,
        store,
        out=evaluation.folder,
        view=evaluation.view,
        progress=progress,
        checkpoint=opened.path,
        device=device,
    )


def _result(plan: Plan, counts: Counts) -> dict[str, Any]:
    result = plan.to_json()
    reference = _reports(plan.reference)
    for entry, row in zip(result["rows"], plan.rows, strict=True):
        reports = _reports(row)
        about = reports[0].about
        entry["state"] = "evaluated"
        entry |= _figures(reports)
        entry["difference"] = None if row is plan.reference else _differences(reference, reports)
        entry["measured"] = {name: about[name] for name in MEASURED}
        entry["guide_calls"] = counts.per_row[row.recipe.name]
        for seed, report in zip(entry["seeds"], reports, strict=True):
            seed["state"], seed["average"] = "evaluated", report.about["average"]
        entry["also"] = [
            {
                "view": evaluation.view,
                **_figures(further := _reports(row, place)),
                "difference": _differences(reference, further),
            }
            for place, evaluation in enumerate(row.runs[0].evaluations)
            if place
        ]
    for cache in result["caches"]:
        cache["built"], cache["missing"] = cache["missing"], []
    result["guide_calls"] = {"build": counts.build, "train": counts.train, "eval": counts.eval}
    return result


def _reports(row: Row, place: int = 0) -> list[SavedReport]:
    """The reports of a row's trainings, in the order of their seeds."""
    return [read_report(run.evaluations[place].folder) for run in row.runs]


def _figures(reports: Sequence[SavedReport]) -> dict[str, Any]:
    """The averages' means over the seeds, their spread, and the interval over scenes."""
    first = reports[0].about
    averages = [report.about["average"] for report in reports]
    if len(reports) == 1:
        return {
            "average": first["average"],
            "spread": None,
            "interval": first["intervals"]["average"]["psnr"],
        }
    common = {name: [average.get(name) for average in averages] for name in averages[0]}
    known = {name: values for name, values in common.items() if None not in values}
    _, overall = bootstrap(mean_scores(reports))
    return {
        "average": {
            name: statistics.fmean(known[name]) if name in known else None for name in common
        },
        "spread": {name: statistics.stdev(values) for name, values in known.items()},
        "interval": overall["psnr"].to_json(),
    }


def _differences(
    reference: Sequence[SavedReport], reports: Sequence[SavedReport]
) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for figure in COMPARED:
        try:
            found[figure] = seed_difference(reference, reports, figure).to_json()
        except DataError:  # such as images that are all smaller than a window
            found[figure] = None
    return found
