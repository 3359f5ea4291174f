"""`mmfe ablate`: the rows of one of the paper's tables, on the same caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion, output


def command(
    table: Annotated[
        str,
        typer.Argument(
            help="table4a | table4b | table5a | table5b | table5c | tableS1",
            autocompletion=completion.tables,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE for every row, such as guide=scene."),
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Where the data set lies.")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="The folder of the data set's caches.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Runs go to OUT/TABLE/ROW [default: runs; with --set, runs/set-HASH of the "
            "overrides].",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="For building and evaluation: auto, cpu, cuda …")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what is missing; do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train and judge every row of a table; what is there already is not done again.

    Rows of several tables that are the same training, labels aside, are trained once and reused;
    --dry-run names them. Embeddings that a cache holds are never computed again: the table ends
    in the count of guide calls. Example: mmfe ablate table4a --dry-run
    """
    from mmfe_restore.evaluation.ablation import run_plan
    from mmfe_restore.evaluation.ablation_plan import make_plan

    output.note_repeated(overrides or ())
    place = _default_place(overrides or ()) if out is None else out
    plan = make_plan(table, overrides or (), root=root, cache=cache, out=place)
    if not dry_run:
        output.take_threads()
    found = plan.to_json() if dry_run else run_plan(plan, output.console_progress(), device=device)
    if as_json:
        output.print_json(found)
        return
    _show(found, done=not dry_run)
    if not dry_run:
        calls = found["guide_calls"]
        output.say(
            f"\nGuide calls: {calls['build']} to build what no cache held, {calls['train']} in "
            f"training, {calls['eval']} in evaluation."
        )


def _default_place(overrides: Sequence[str]) -> Path:
    """Runs with overrides lie apart, so that they never stand in a plain row's place."""
    if not overrides:
        return Path("runs")
    digest = hashlib.blake2b("\n".join(sorted(overrides)).encode(), digest_size=4)
    return Path("runs") / f"set-{digest.hexdigest()}"


def _show(found: dict[str, Any], *, done: bool) -> None:
    columns = ["row", "recipe", "params M", "printed M"]
    columns += (
        ["PSNR", "95 % interval", "SSIM 11×11", "SSIM 7×7"]
        if done
        else ["state", "same training as"]
    )
    rows = [_cells(row, done=done) for row in found["rows"]]
    output.print_table(
        f"{found['table']}: {found['title']}",
        [*columns, "printed PSNR", "printed SSIM"],
        rows,
        caption=f"printed: {found['source']}{_judged(found['rows']) if done else ''}",
    )
    if done:
        return
    output.print_table(
        "Caches",
        ["path", "guide", "views there", "views missing"],
        [
            [
                cache["path"],
                cache["guide"],
                ", ".join(v for v in cache["views"] if v not in cache["missing"]) or None,
                ", ".join(cache["missing"]) or "none",
            ]
            for cache in found["caches"]
        ],
    )


def _judged(rows: list[dict[str, Any]]) -> str:
    said = [row["measured"] for row in rows]
    seen = sorted({f"{m['guide']} at {m['view']}" for m in said if m["guide"] is not None})
    # Every row is judged by its recipe's protocol, and a table has one.
    first = said[0]
    return (
        f"; ours: protocol {first['protocol']}, {first['crop']}, range 0 to {first['range']:g}, "
        f"rounding {first['rounding']}, guided by {', '.join(seen) or 'nothing'}"
    )


def _cells(row: dict[str, Any], *, done: bool) -> list[object]:
    printed = row["published"]
    cells: list[object] = [
        row["method"],
        row["recipe"],
        f"{row['parameters'] / 1e6:.3f}",
        None if printed["parameters"] is None else f"{printed['parameters']:.1f}",
    ]
    if done:
        average, (low, high) = row["average"], row["interval"]
        cells += [
            average["psnr"],
            None if low is None else f"{low:.2f}–{high:.2f}",
            # None where every image was smaller than the window.
            *(
                None if average[name] is None else f"{average[name]:.4f}"
                for name in ("ssim_gaussian", "ssim_uniform")
            ),
        ]
    else:
        cells += [row["state"], ", ".join(row["shares"]) or None]
    return [*cells, printed["psnr"], f"{printed['ssim']:.3f}"]
