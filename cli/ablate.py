"""`mmfe ablate`: the rows of one of the paper's tables, on the same caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import choices, output
from .options import GuideDevice, Json


def command(
    table: Annotated[choices.Table, typer.Argument(help="Of the paper.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="For every row, such as guide=scene; repeatable."
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    cache: Annotated[Path | None, typer.Option(help="The folder of the data set's caches.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Runs go to OUT/TABLE/ROW [default: $MMFE_RUNS, else runs; with --set, set-HASH "
            "of the overrides in it].",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trainings of each row: with the recipe's seed and those that follow. The further "
            "ones go to OUT/TABLE/ROW-seedS.",
        ),
    ] = 1,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            help="Of the table prompts, a row each, the first the reference; repeatable. Without "
            "any, the rows are the recipes prompts/….",
        ),
    ] = None,
    device: GuideDevice = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what is missing; do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and judge every row of a table; what is there already is not done again.

    Rows of several tables that are the same training, labels aside, are trained once and reused;
    --dry-run names them. With --seeds K the table has mean and standard deviation over K trainings.
    Every row's difference to the reference's (the full model's, where the table has it) is paired
    image by image; docs/evaluation.md says what its two intervals mean. Embeddings that a cache
    holds are never computed again: the table ends in the count of guide calls. --device is of the
    guide and of evaluation; training takes the first GPU where there is one.

    Example: mmfe ablate table4a --seeds 3 --dry-run
    """
    from mmfe_cache.machine import check_device
    from mmfe_restore.evaluation.ablation_plan import make_plan, missing_inputs

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    check_device(device)
    output.note_repeated(overrides or ())
    place = _default_place(overrides or ()) if out is None else out
    plan = make_plan(
        table,
        overrides or (),
        root=root,
        cache=cache,
        out=place,
        seeds=seeds,
        prompts=prompts or (),
    )
    problems = missing_inputs(plan)
    if problems and not dry_run:
        raise problems[0]
    for problem in problems:
        output.console_progress().warn(str(problem))

    from mmfe_restore.evaluation.ablation import run_plan

    if not dry_run:
        output.take_threads(device)
    found: dict[str, Any]
    if dry_run:
        found = {**plan.to_json(), "problems": [str(problem) for problem in problems]}
    else:
        found = run_plan(plan, output.console_progress(), device=device)
    if as_json:
        output.print_json(found)
        return
    _show(found, done=not dry_run)
    if not dry_run:
        calls = found["guide_calls"]
        output.print_line("")
        output.print_wrapped(
            f"Guide calls: {calls['build']} to build what no cache held, {calls['train']} in "
            f"training, {calls['eval']} in evaluation."
        )


def _default_place(overrides: Sequence[str]) -> Path:
    """Runs with overrides lie apart, so that they never stand in a plain row's place.

    As those of `mmfe train`: how a step is computed does not count, unless runs lie there already.
    """
    from mmfe_restore.recipes.loading import defining_overrides, effective_overrides

    effective = effective_overrides(overrides)
    earlier = _set_place(effective)
    return earlier if earlier.exists() else _set_place(defining_overrides(effective))


def _set_place(overrides: Sequence[str]) -> Path:
    from mmfe_cache.places import RUNS

    if not overrides:
        return RUNS.folder
    digest = hashlib.blake2b("\n".join(overrides).encode(), digest_size=4)
    return RUNS.folder / f"set-{digest.hexdigest()}"


def _show(found: dict[str, Any], *, done: bool) -> None:
    if done:
        _show_figures(found)
        return
    several = any(len(row["seeds"]) > 1 for row in found["rows"])
    output.print_table(
        f"{found['table']}: {found['title']}",
        [
            *("row", "recipe", "params M", "printed M", "state"),
            *(["seeds"] if several else []),
            *("same training as", "printed PSNR", "printed SSIM"),
        ],
        [
            [
                *_named(row),
                row["state"],
                *([_states(row)] if several else []),
                ", ".join(row["shares"]) or None,
                *_printed(row),
            ]
            for row in found["rows"]
        ],
        caption=f"printed: {found['source']}",
    )
    asked = len({cache["prompt"] for cache in found["caches"]}) > 1
    output.print_table(
        "Caches",
        ["path", "guide", *(["prompt"] if asked else []), "views there", "views missing"],
        [
            [
                cache["path"],
                cache["guide"],
                *([cache["prompt"]] if asked else []),
                ", ".join(v for v in cache["views"] if v not in cache["missing"]) or None,
                ", ".join(cache["missing"]) or "none",
            ]
            for cache in found["caches"]
        ],
    )


def _show_figures(found: dict[str, Any]) -> None:
    several = len(found["rows"][0]["seeds"]) > 1
    reference = found["reference"]
    lines: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    for row in found["rows"]:
        lines.append((row["method"], row, row))
        lines += [(f"{row['method']}, at {one['view']}", row, one) for one in row["also"]]
    output.print_table(
        f"{found['table']}: {found['title']}",
        [
            *("row", "recipe", "params M", "printed M", "PSNR"),
            *(["sd of seeds"] if several else []),
            *("95 % interval", "SSIM 11×11", "SSIM 7×7", "less the reference", "95 % of scenes"),
            *(["95 % of seeds"] if several else []),
            *("printed PSNR", "printed SSIM"),
        ],
        [
            [
                method,
                *_named(row)[1:],
                figures["average"]["psnr"],
                *([_number(figures["spread"].get("psnr"))] if several else []),
                _range(*figures["interval"]),
                *(
                    # None where every image was smaller than the window.
                    None if figures["average"][name] is None else f"{figures['average'][name]:.4f}"
                    for name in ("ssim_gaussian", "ssim_uniform")
                ),
                *_difference(figures, several=several),
                *_printed(row),
            ]
            for method, row, figures in lines
        ],
        caption=f"the reference: {reference}; printed: {found['source']}{_judged(found['rows'])}",
    )


def _named(row: dict[str, Any]) -> list[object]:
    printed = row["published"]["parameters"]
    return [
        row["method"],
        row["recipe"],
        f"{row['parameters'] / 1e6:.3f}",
        None if printed is None else f"{printed:.1f}",
    ]


def _printed(row: dict[str, Any]) -> list[object]:
    printed = row["published"]
    return [printed["psnr"], None if printed["ssim"] is None else f"{printed['ssim']:.3f}"]


def _states(row: dict[str, Any]) -> str:
    # The state first: "0 missing" would say that none is.
    by_state: dict[str, list[str]] = {}
    for one in row["seeds"]:
        by_state.setdefault(one["state"], []).append(str(one["seed"]))
    return "; ".join(f"{state}: {', '.join(seeds)}" for state, seeds in by_state.items())


def _difference(figures: dict[str, Any], *, several: bool) -> list[object]:
    found = (figures["difference"] or {}).get("psnr")
    if found is None:
        return [None] * (3 if several else 2)
    scenes = _range(found["low"], found["high"], sign="+")
    seeds = [_range(found["seeds_low"], found["seeds_high"], sign="+")] if several else []
    return [output.signed(found["mean"]), scenes, *seeds]


def _range(low: float | None, high: float | None, sign: str = "") -> str | None:
    if low is None or high is None:
        return None
    return f"{low:{sign}.2f}{' to ' if sign else '–'}{high:{sign}.2f}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _judged(rows: list[dict[str, Any]]) -> str:
    said = [row["measured"] for row in rows]
    seen = sorted({f"{m['guide']} at {m['view']}" for m in said if m["guide"] is not None})
    # Every row is judged by its recipe's protocol, and a table has one.
    first = said[0]
    return (
        f"; ours: protocol {first['protocol']}, {first['crop']}, range 0 to {first['range']:g}, "
        f"rounding {first['rounding']}, guided by {', '.join(seen) or 'nothing'}"
    )
