"""`mmfe compare`: two evaluations, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import choices, completion, output
from .options import Json


def command(
    run_a: Annotated[
        Path,
        typer.Argument(
            help="A run, or the folder of one of its reports.",
            autocompletion=completion.runs,
        ),
    ],
    run_b: Annotated[
        Path,
        typer.Argument(
            help="The other; differences are B less A.",
            autocompletion=completion.runs,
        ),
    ],
    figure: Annotated[
        choices.Figure, typer.Option(help="ssim is the one whose window is published.")
    ] = choices.Figure("psnr"),
    most: Annotated[int, typer.Option(min=1, help="How many best and worst images to name.")] = 5,
    as_json: Json = False,
) -> None:
    """Compare two evaluations of the same images: mean difference, interval, wins, extremes."""
    from mmfe_cache.errors import UsageError
    from mmfe_restore.evaluation.compare import compare, read_report
    from mmfe_restore.metrics.registry import FIGURES, METRICS, metric_of

    a, b = read_report(run_a), read_report(run_b)
    known = [f for f in FIGURES if f in a.scores[0].values and f in b.scores[0].values]
    wanted: str = figure.value
    if wanted == "ssim":  # both windows are measured: the one that this protocol publishes
        window = a.about.get("protocol_details", {}).get("ssim_window", "gaussian")
        wanted = f"ssim_{window}"
    if wanted not in known:
        raise UsageError(
            f"there is no figure {wanted!r} in both reports",
            got=wanted,
            expected=" | ".join(known),
            remedy="mmfe eval both with --metric " + wanted if wanted in METRICS else None,
        )
    found = compare(a, b, wanted, most)
    if as_json:
        output.print_json(found.to_json())
        return
    metric = metric_of(wanted)
    digits, better = metric.digits, 1 if metric.higher_is_better else -1
    rows = [
        [
            row.label,
            row.images,
            *([row.omission or "none"] if found.average.left_out else []),
            f"{row.a:.{digits}f}",
            f"{row.b:.{digits}f}",
            f"{row.mean:+.{digits}f}",
            f"{row.low:+.{digits}f} to {row.high:+.{digits}f}",
            f"{row.wins} : {row.losses}",
        ]
        for row in (*found.classes, found.average)
    ]
    left_out = ["left out"] if found.average.left_out else []
    output.print_table(
        f"{wanted}: B {found.b} less A {found.a}",
        ["class", "images", *left_out, "A", "B", "B − A", "95 % interval", "B wins : A wins"],
        rows,
        caption="interval: bootstrap over scenes, of the paired differences"
        + ("" if metric.higher_is_better else f"; {metric.label}: lower is better"),
    )
    gains = [(name, value) for name, value in found.best if better * value > 0]
    losses = [(name, value) for name, value in found.worst if better * value < 0]
    for title, extremes in (("largest gains", gains), ("largest losses", losses)):
        named = ", ".join(f"{name} {value:+.{digits}f}" for name, value in extremes)
        output.print_wrapped(f"{title} of B: {named or 'none'}")
    for note in found.notes:
        output.remark(note)
