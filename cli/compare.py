"""`mmfe compare`: two evaluations, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output


def command(
    run_a: Annotated[Path, typer.Argument(help="A run, or the folder of one of its reports.")],
    run_b: Annotated[Path, typer.Argument(help="The other; differences are B less A.")],
    figure: Annotated[
        str,
        typer.Option("--figure", help="psnr | ssim_uniform | ssim_gaussian | lpips."),
    ] = "psnr",
    most: Annotated[
        int, typer.Option("--most", min=1, help="How many best and worst images to name.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare two evaluations of the same images: mean difference, interval, wins, extremes."""
    from mmfe_cache.errors import UsageError
    from mmfe_restore.evaluation.compare import compare, read_report
    from mmfe_restore.evaluation.scores import FIGURES, Figure

    a, b = read_report(run_a), read_report(run_b)
    known: dict[str, Figure] = {
        str(name): name
        for name in FIGURES
        if name in a.scores[0].values and name in b.scores[0].values
    }
    chosen = known.get(figure)
    if chosen is None:
        raise UsageError("unknown figure", got=figure, expected=" | ".join(known))
    found = compare(a, b, chosen, most)
    if as_json:
        output.print_json(found.to_json())
        return
    digits = 2 if figure.endswith("psnr") else 4
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
        f"{figure}: B {found.b} less A {found.a}",
        ["class", "images", *left_out, "A", "B", "B − A", "95 % interval", "B wins : A wins"],
        rows,
        caption="interval: bootstrap over scenes, of the paired differences",
    )
    gains = [(name, value) for name, value in found.best if value > 0]
    losses = [(name, value) for name, value in found.worst if value < 0]
    for title, extremes in (("largest gains", gains), ("largest losses", losses)):
        named = ", ".join(f"{name} {value:+.{digits}f}" for name, value in extremes)
        output.say(f"{title} of B: {named or 'none'}")
    for note in found.notes:
        output.note(f"note: {note}")
