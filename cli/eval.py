"""`mmfe eval`: judge a checkpoint on a test set."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import choices, completion, output
from .options import Device, Window

if TYPE_CHECKING:
    from mmfe_restore.evaluation import EvalReport
    from mmfe_restore.evaluation.statistics import Gain, Interval
    from mmfe_restore.metrics.registry import MetricInfo


def command(
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A run's folder, its model/, a network of `mmfe model list`, or OWNER/NAME or "
            "OWNER/NAME@REVISION on the Hugging Face Hub; without it, the run that finished last.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Test set; the one it was trained for.", autocompletion=completion.datasets
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="The folder of the data set's caches, or one cache.")
    ] = None,
    split: Annotated[choices.Split, typer.Option(help="Which split to judge.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Report folder [default: eval/DATASET-SPLIT in the run's or network's folder; "
            "of a shipped network or one of the Hub, in $MMFE_RUNS/NAME, else runs/NAME].",
        ),
    ] = None,
    protocol: Annotated[choices.Protocol | None, typer.Option(help="How peers measure.")] = None,
    view: Annotated[str | None, typer.Option(help="The guide's view, such as whole@224.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe of a checkpoint that does not name its own.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    no_guide: Annotated[
        bool,
        typer.Option("--no-guide", help="Use the network's null guidance instead of a cache."),
    ] = False,
    guide: Annotated[
        Literal["none"] | None, typer.Option(help="none is the same as --no-guide.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size at a time.")] = 1,
    device: Device = "auto",
    window: Window = "auto",
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Also LPIPS; its backbone weights must be here.")
    ] = False,
    metric: Annotated[
        list[choices.Metric] | None,
        typer.Option(
            help=f"Measure this one too: {', '.join(choices.OPTIONAL_METRICS)}; all but lpips "
            "by pyiqa, without a ground truth. May be repeated."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="A report of another training on the same test set, for the page; may be repeated."
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also print ours beside the published table."),
    ] = False,
    table_format: Annotated[
        choices.TableFormat | None,
        typer.Option("--format", help="Of --report's table [default: text]."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a report that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Judge a checkpoint: PSNR and SSIM per class, before and after, as table, JSON and page.

    Reads embeddings from a cache and never runs a guide. Under torchrun every process takes a
    share of the images.
    """
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.errors import UsageError
    from mmfe_cache.machine import check_device, pick_device
    from mmfe_cache.views import View
    from mmfe_restore.evaluation.compare import read_report
    from mmfe_restore.evaluation.inputs import load_checkpoint, open_eval_cache
    from mmfe_restore.evaluation.report import check_free
    from mmfe_restore.evaluation.report.eval_report import comparison_json
    from mmfe_restore.metrics.no_reference import LICENCE, SCORES
    from mmfe_restore.model.folders import model_folder, newest_checkpoint, recipe_of
    from mmfe_restore.recipes import load_recipe

    if table_format is not None and (as_json or not report):
        raise UsageError(
            "--format is that of the table beside the published one, which is not printed here",
            got=f"--format {table_format} {'with --json' if as_json else 'without --report'}",
            expected="--report --format, without --json",
        )
    # What is missing or misspelt is said before torch is imported, which takes seconds.
    unguided = no_guide or guide == "none"
    of_a_guide = [name for name, value in (("--cache", cache), ("--view", view)) if value]
    if unguided and of_a_guide:
        raise UsageError(
            "without a guide no embeddings are read",
            got=" and ".join(["--no-guide", *of_a_guide]),
            remedy=f"leave out --no-guide, or {' and '.join(of_a_guide)}",
        )
    if view is not None:
        View.parse(view)  # a misspelt view is no view that a cache lacks
    check_device(device)
    attended = choices.window_from(window)
    extra = tuple(one.value for one in metric or ())
    others = [read_report(path) for path in beside or ()]
    trained_by = None if recipe is None else load_recipe(recipe)
    network = newest_checkpoint() if checkpoint is None else model_folder(checkpoint)
    by = recipe_of(network, trained_by)
    name = by.data.dataset if dataset is None else dataset
    folder = _default_out(network, checkpoint, name, split) if out is None else out
    check_free(folder, force=force)
    samples = load_dataset(name, split, root)
    used_view = by.eval.view if view is None else view
    store = None
    if not unguided:
        store = open_eval_cache(by, samples, used_view, cache)

    from mmfe_restore.evaluation.evaluate import evaluate, rank_and_size

    pick_device(device)
    output.take_threads(device)
    if set(extra) & set(SCORES):
        output.remark(LICENCE)
    progress = output.console_progress()
    for warning in samples.warnings:
        progress.warn(warning)
    opened = load_checkpoint(network, trained_by)
    if attended != "auto":
        opened.restorer.attend_within(attended)
    with _process_group():
        outcome = evaluate(
            opened.restorer,
            opened.recipe,
            samples,
            store,
            out=folder,
            view=used_view,
            protocol=protocol,
            progress=progress,
            checkpoint=opened.path,
            device=device,
            batch_size=batch_size,
            lpips=lpips,
            metrics=extra,
            beside=others,
            force=force,
        )
        rank, _ = rank_and_size()
    if rank:
        return
    if as_json:
        found = outcome.to_json() | {"report": str(folder / "report.html")}
        output.print_json(found | ({"published": comparison_json(outcome)} if report else {}))
        return
    show(outcome)
    if report:
        show_beside(outcome, table_format or "text")
    output.print_line(f"\nReport: {folder / 'report.html'}")


def show(report: EvalReport) -> None:
    """Print a report's table."""
    from mmfe_restore.evaluation.report.files import facts

    summary = report.summary
    intervals, overall = report.intervals
    partial = summary.gain.left_out > 0
    rows = [
        _row(
            label,
            means,
            intervals[label]["psnr"],
            summary.counts[label],
            summary.gains[label],
            partial=partial,
        )
        for label, means in summary.classes.items()
    ]
    average = _row(
        "average",
        summary.average,
        overall["psnr"],
        len(report.scores),
        summary.gain,
        partial=partial,
    )
    measured = dict(facts(report))
    guide = "no guide" if report.guide is None else f"guide {report.guide}, {report.view}"
    rest = _secondary(summary.average)
    output.print_table(
        f"{report.recipe} on {report.dataset}/{report.split}: {guide}, protocol "
        f"{report.protocol.name}",
        [
            "class",
            "images",
            "input dB",
            "restored dB",
            "95 % interval",
            "gain dB",
            *(["gain leaves out"] if partial else []),
            *(heading for m in rest for heading in (f"{m.label} in", m.label)),
        ],
        [*rows, average],
        caption="average: mean of the class means; gain: mean of the images' own gains; "
        + "; ".join(
            f"{name}: {measured[name]}" for name in ("crop", "attention", "range", "rounding")
        ),
    )
    for note in (*report.notes, *summary.notes):
        output.remark(note)


def _secondary(means: Mapping[str, float]) -> list[MetricInfo]:
    """What was measured besides PSNR, in the order of reports."""
    from mmfe_restore.metrics.registry import METRICS

    return [m for m in METRICS.values() if m.name in means and m.name != "psnr"]


def _row(
    label: str,
    means: Mapping[str, float],
    interval: Interval,
    count: int,
    gain: Gain,
    *,
    partial: bool,
) -> list[object]:
    from mmfe_restore.metrics.registry import METRICS

    psnr = METRICS["psnr"]
    known = math.isfinite(interval.low)
    return [
        label,
        count,
        psnr.format(means["input_psnr"]),
        psnr.format(means["psnr"]),
        f"{interval.low:.2f}–{interval.high:.2f}" if known else None,
        output.signed(gain.mean),
        *([gain.omission or "none"] if partial else []),
        *(m.format(means[name]) for m in _secondary(means) for name in (f"input_{m.name}", m.name)),
    ]


def show_beside(report: EvalReport, table_format: str) -> None:
    """Print a report beside the published table of its dataset."""
    from mmfe_restore.evaluation.report.eval_report import (
        caption,
        comparison_table,
        to_latex,
        to_markdown,
    )

    found = comparison_table(report)
    if found is None:
        output.remark(f"the paper prints no table by classes for {report.dataset}")
        return
    if table_format == "markdown":
        output.print_line(to_markdown(report, found))
    elif table_format == "latex":
        output.print_line(to_latex(report, found))
    else:
        output.print_table(
            found.title,
            ["method", *found.columns, "average"],
            [
                [
                    row.method,
                    *(None if c is None else f"{c.psnr:.2f} {c.ssim:.3f}" for c in row.cells),
                ]
                for row in found.rows
            ],
            caption=caption(report, found),
        )


def _default_out(model: Path, given: str | None, dataset: str, split: str) -> Path:
    from mmfe_cache.places import RUNS
    from mmfe_restore.model.folders import is_repository, shipped_folder

    run = model.parent if model.name == "model" else model
    # As the network was found: a folder of a shipped one's name does not take its place.
    if given is not None and (shipped_folder(given) is not None or is_repository(given)):
        run = RUNS.folder / given  # nobody's reports belong in the package or in the Hub's cache
    return run / "eval" / f"{dataset}-{split}"


@contextmanager
def _process_group() -> Generator[None]:
    """Joins the processes that torchrun started; nothing else needs a group."""
    import torch
    import torch.distributed as dist

    from mmfe_cache.machine import Processes, has_gpu

    found = Processes.detect()
    if found.launcher != "torchrun" or found.size == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    if has_gpu():
        torch.cuda.set_device(found.rank % found.local_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
