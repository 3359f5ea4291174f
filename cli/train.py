"""`mmfe train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import completion, output
from .options import Json

if TYPE_CHECKING:
    from mmfe_restore.recipes import Recipe


_MUCH = 16 * 2**30
"""Bytes of a training step from which a dry run names the settings that need less."""

_PARTS = 8
"""Parts of a global batch that are then advised, where every stage's batch has as many."""


def command(
    recipe: Annotated[
        str,
        typer.Option(
            help="A recipe's name, such as cdd11 or table4a/mofe, or a .yaml file.",
            autocompletion=completion.recipes,
        ),
    ] = "cdd11",
    root: Annotated[
        Path | None,
        typer.Option(
            help="The data set's folder [default: $MMFE_DATA/DATASET, else data/DATASET]."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="The folder of its caches [default: $MMFE_CACHE/DATASET, else cache/DATASET]."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The run's folder [default: RECIPE in $MMFE_RUNS, else in runs; with --set, "
            "RECIPE-HASH of the overrides].",
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            help="auto: go on where the folder's run stopped; a checkpoint; or none.",
            autocompletion=completion.resumptions,
        ),
    ] = "auto",
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a run, a step in its checkpoints/, a network of `mmfe "
            "model list` such as mmfe-small, OWNER/NAME or OWNER/NAME@REVISION on the Hugging Face "
            "Hub, or a file of Restormer's.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Log to Weights & Biases too.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the memory it needs; no step.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved recipe as YAML and stop.")
    ] = False,
    explain_config: Annotated[
        bool,
        typer.Option(
            "--explain-config", help="Print every key of a recipe: type, default, meaning; stop."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe, from a cache; no guide is loaded.

    For example: mmfe train --recipe cdd11 --set model.num_experts=4 --set guide=scene --dry-run
    """
    from mmfe_restore.recipes import load_recipe, recipe_to_dict

    if explain_config:
        _explain_config(as_json)
        return
    changes = overrides or []
    output.note_repeated(changes)
    resolved = load_recipe(recipe, changes)
    if print_config:
        _print_config(recipe_to_dict(resolved), as_json)
        return
    from mmfe_restore.training.inputs import check_inputs, check_options
    from mmfe_restore.training.run_dir import CHECKPOINTS, default_folder

    place = default_folder(recipe, changes) if out is None else out
    begins = resume == "none" or not (place / CHECKPOINTS).is_dir()
    start = "auto" if resume == "auto" else None if resume == "none" else Path(resume)
    check_options(init_from=init_from if begins else None, resume=start, wandb=wandb)
    if dry_run:
        _dry_run(
            resolved,
            as_json,
            root=root,
            cache=cache,
            out=place,
            resume=start,
            init_from=init_from,
            wandb=wandb,
        )
        return
    check_inputs(resolved, root=root, cache=cache)
    from mmfe_restore.training import train

    output.take_threads()
    report = train(
        resolved,
        root=root,
        cache=cache,
        out=place,
        resume=start,
        init_from=init_from,
        wandb=wandb,
        progress=output.console_progress(),
    )
    if report.rank:
        pass  # one process speaks for all
    elif as_json:
        output.print_json(report.to_json())
    else:
        output.print_line(f"guide called {report.guide_calls} times")
        output.print_line(str(report.checkpoint))
    if not report.completed:
        raise typer.Exit(130)


def _print_config(values: dict[str, object], as_json: bool) -> None:
    if as_json:
        output.print_json(values)
        return
    import yaml

    output.print_line(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


def _explain_config(as_json: bool) -> None:
    from dataclasses import asdict

    from mmfe_restore.recipes.reference import recipe_reference, recipe_reference_markdown

    if as_json:
        output.print_json({"sections": [asdict(section) for section in recipe_reference()]})
    else:
        output.print_line(recipe_reference_markdown().rstrip())


def _dry_run(
    recipe: Recipe,
    as_json: bool,
    *,
    root: Path | None,
    cache: Path | None,
    out: Path,
    resume: Literal["auto"] | Path | None,
    init_from: str | None,
    wandb: str | None,
) -> None:
    from mmfe_cache.errors import MmfeError
    from mmfe_restore.training.inputs import check_inputs

    # What is missing is said before torch is imported, which takes seconds; the plan follows.
    told = ""
    try:
        check_inputs(recipe, root=root, cache=cache)
    except MmfeError as problem:
        told = str(problem)
        output.error(told)
    from mmfe_restore.training.dry_run import plan_run

    plan = plan_run(
        recipe, root=root, cache=cache, out=out, resume=resume, init_from=init_from, wandb=wandb
    )
    if as_json:
        output.print_json(plan.to_json())
    else:
        columns = ("stage", "epochs", "crop", "batch", "per device", "views", "steps", "images")
        rows = [
            (
                index + 1,
                stage.epochs,
                f"{stage.resolution}²",
                stage.batch_size,
                stage.per_device,
                ", ".join(stage.views) or "none",
                _count(stage.steps),
                _count(stage.images),
                stage.memory / 2**30,
            )
            for index, stage in enumerate(plan.stages)
        ]
        output.print_table(f"{plan.recipe}: what training will do", (*columns, "GiB"), rows)
        output.print_line(f"parameters       {plan.parameters:,}")
        held_out = "" if plan.held_out is None else f" ({plan.held_out:,} held out)"
        output.print_line(f"samples          {_count(plan.samples)}{held_out}")
        output.print_line(f"draws an epoch   {_count(plan.draws_per_epoch)}")
        output.print_line(f"steps            {_count(plan.steps)}")
        output.print_line(f"images           {_count(plan.images)}")
        output.print_line(f"processes        {plan.processes}, {plan.precision}")
        output.print_line(f"cache            {plan.cache or 'none needed'}")
        output.print_wrapped(
            "per device: crops that one device holds at once; GiB: its weights, gradients, Adam's "
            "moments and kept activations, estimated"
        )
        if max(stage.memory for stage in plan.stages) > _MUCH:
            output.print_wrapped(_less_memory(recipe))
    for warning in plan.warnings:
        output.console_progress().warn(warning)
    if plan.problem is not None:
        if str(plan.problem) == told and not output.VERBOSITY.debug:
            raise typer.Exit(plan.problem.exit_code)
        raise plan.problem


def _less_memory(recipe: Recipe) -> str:
    from mmfe_restore.training.machine import Machine

    again = "--set train.activation_checkpointing=true; on a CPU: --recipe small"
    parts = Machine.detect().smaller_parts(recipe)
    if not parts:
        return f"less memory, same result: {again}"
    accumulate = next((number for number in parts if number >= _PARTS), parts[-1])
    return (
        f"less memory, same result: --set train.accumulate={accumulate}, and where that is not "
        f"enough {again}"
    )


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"
