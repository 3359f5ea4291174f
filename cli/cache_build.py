"""`mmfe cache build`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import choices, completion, output
from .options import GuideDevice, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmfe_cache.guides.base import Guide
    from mmfe_cache.guides.outline import GuideOutline
    from mmfe_cache.precompute.plan import BuildPlan
    from mmfe_restore.recipes.schema import Recipe

DEFAULT_RECIPE = "cdd11"
DEFAULT_GUIDE = "qwen2.5-vl-3b"


def command(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set's name; the recipe's own without it.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where the data set lies; else $MMFE_DATA/NAME, else data/NAME."),
    ] = None,
    split: Annotated[
        choices.Split | None, typer.Option(help="Without it all that are there.")
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            help="A guide's name, or a checkpoint's directory or file: its cache is called "
            "NAME-HASH.zarr.",
            autocompletion=completion.guides,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="The file of the weights of a guide timm:MODEL, or random."),
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Comma-separated, such as whole@128,crop@128#3,native.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Take data set, guide, its prompts and views from this recipe.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of this data set's caches; else $MMFE_CACHE/DATASET, else cache/DATASET.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images the guide encodes together.")] = 32,
    shard_samples: Annotated[
        int,
        typer.Option(min=1, help="Samples of one shard: what a killed build may compute again."),
    ] = 256,
    on_error: Annotated[
        Literal["fail", "skip"], typer.Option(help="What an unreadable image does.")
    ] = "fail",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and prepare images.")
    ] = None,
    device: GuideDevice = "auto",
    precision: Annotated[
        choices.Precision,
        typer.Option(help="Of the guide; auto is bf16 on a GPU and 32 on a CPU."),
    ] = "auto",
    prompt: Annotated[str | None, typer.Option(help="What the guide is asked.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A text file with what the guide is asked.")
    ] = None,
    joint: Annotated[
        Literal["all", "from-image"] | None,
        typer.Option(
            help="Tokens that an MLLM's E_Joint pools: all [default], or those from the image on; "
            "the ones before it cannot depend on it."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Processes on this node, one a GPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that take part, under SLURM.")] = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what it would cost; build nothing. A guide's weights need not be here.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a guide once over a data set and keep what it sees.

    What is already there is kept: a stopped build goes on, and new views are added. Without
    --split the training split is built at every training resolution and the test split at the
    resolution of evaluation. Works under torchrun and SLURM as it is.

    Example: mmfe cache build --dataset cdd11 --guide scene --views whole@128,whole@160
    """
    from mmfe_cache.datasets import load_dataset, splits_of
    from mmfe_cache.guides import check_guide, load_guide, with_weights
    from mmfe_cache.machine import check_device, long_name
    from mmfe_cache.places import CACHE
    from mmfe_cache.precompute.distributed import launch, wants_many
    from mmfe_cache.store import store_path
    from mmfe_cache.store.location import refuse_address

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    refuse_address(CACHE.folder if out is None else out)
    check_device(device)
    found = _recipe(recipe, dataset)
    name = dataset or found.data.dataset
    named = str(with_weights(guide or (found.guide.name if recipe else DEFAULT_GUIDE), weights))
    questions = _questions(_prompt(prompt, prompt_file), found if recipe else None)
    pooled = joint or (found.guide.joint if recipe else "all")
    ranks = launch(devices, nodes) if wants_many(devices, nodes) and not dry_run else None
    first = ranks is None or ranks.rank == 0
    progress = output.console_progress(first)
    jobs = [
        (load_dataset(name, part, root), _views(views, found, part))
        for part in ([split] if split else splits_of(name, root))
    ]
    for samples, _ in jobs if first else ():
        for warning in samples.warnings:
            progress.warn(warning)
    if not dry_run:
        check_guide(named)
    chosen = ranks.device if ranks is not None and device == "auto" else device
    outline = _outline(named, questions[0]) if dry_run else None
    if first and outline is None:
        output.note_driver(device)
    loaded = outline or load_guide(
        named, device=chosen, precision=long_name(precision), prompt=questions[0], joint=pooled
    )
    guides = [loaded, *_asking(loaded, questions[1:])]
    targets = [
        (guide, samples, wanted, store_path(name, samples.split, named, question, out, pooled))
        for guide, question in zip(guides, questions, strict=True)
        for samples, wanted in jobs
    ]
    if dry_run or (first and len(targets) > 1):
        from mmfe_cache.precompute.plan import plan_build

        plans = [
            plan_build(
                samples,
                guide,
                wanted,
                path,
                batch_size=batch_size,
                shard_samples=shard_samples,
                timed_batches=2 if dry_run and outline is None else 0,
            )
            for guide, samples, wanted, path in targets
        ]
        if dry_run:
            _print_plans(plans, outline, as_json)
        # Each store is checked again by itself; here it is whether all of them fit together.
        _refuse_what_cannot_fit(plans)
        if dry_run:
            return
    from mmfe_cache.precompute import build_cache

    reports = [
        build_cache(
            samples,
            guide,
            wanted,
            path,
            batch_size=batch_size,
            shard_samples=shard_samples,
            on_error=on_error,
            workers=workers,
            ranks=ranks,
            progress=progress,
        )
        for guide, samples, wanted, path in targets
    ]
    if not first:
        return
    stores = [
        {"dataset": name, "split": samples.split, "guide": loaded.name, **asdict(report)}
        for report, (_, samples, _, _) in zip(reports, targets, strict=True)
    ]
    if as_json:
        computed = sum(report.encodings for report in reports)
        # Counted by the guide itself; the other processes' guides are not here to be asked.
        calls = sum(guide.calls for guide in guides) if ranks is None else computed
        stores = [{**store, "path": str(store["path"])} for store in stores]
        output.print_json({"encodings": computed, "guide_calls": calls, "stores": stores})
        return
    output.print_table(
        "Caches",
        ("store", "samples", "views", "computed", "reused", "skipped", "seconds"),
        [
            (str(r.path), r.samples, len(r.views), r.encodings, r.reused, len(r.skipped), r.seconds)
            for r in reports
        ],
    )


def _outline(guide: str, prompt: str | None) -> GuideOutline | None:
    """What the configuration tells of a guide whose weights are not here; None where they are."""
    from mmfe_cache.guides.checkpoint_files import is_local
    from mmfe_cache.guides.registry import find_guide

    if is_local(find_guide(guide), guide):
        return None
    from mmfe_cache.guides.outline import outline_guide

    return outline_guide(guide, prompt)


def _recipe(name: str | None, dataset: str | None) -> Recipe:
    from mmfe_restore.recipes import load_recipe, recipe_names

    if name is not None:
        return load_recipe(name)
    # The all-in-one sets have a recipe of their own name, with views of their own.
    return load_recipe(dataset if dataset in recipe_names() else DEFAULT_RECIPE)


def _views(given: str | None, recipe: Recipe, split: str) -> Sequence[str]:
    if given is not None:
        return named_views(given)
    return recipe.training_views if split == "train" else (recipe.eval.view,)


def named_views(given: str) -> list[str]:
    """The views of a comma-separated list."""
    named = [part.strip() for part in given.split(",") if part.strip()]
    if not named:
        from mmfe_cache.errors import UsageError

        raise UsageError("--views names no view", got=repr(given), expected="such as whole@128")
    from mmfe_cache.views import View

    for name in named:
        View.parse(name)
    return named


def _prompt(text: str | None, file: Path | None) -> str | None:
    if file is None:
        return text
    from mmfe_cache.errors import UsageError

    if text is not None:
        raise UsageError("give --prompt or --prompt-file, not both", remedy="leave one of them out")
    try:
        return file.read_text(encoding="utf-8-sig").strip()  # Windows editors begin with a mark
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"cannot read the prompt file {file}",
            got=str(problem),
            expected="a text file in UTF-8",
        ) from problem


def _questions(given: str | None, recipe: Recipe | None) -> Sequence[str | None]:
    """What the guide is asked, a store each: the prompt given, else what the recipe asks."""
    if given is not None or recipe is None:
        return [given]
    return [one.guide.prompt for one in recipe.each_prompt]


def _asking(guide: Guide, questions: Sequence[str | None]) -> list[Guide]:
    from mmfe_cache.guides.base import Promptable

    if not questions:
        return []
    assert isinstance(guide, Promptable), "a recipe of another guide has no prompts"
    return [guide.with_prompt(question) for question in questions]


def _print_plans(plans: Sequence[BuildPlan], outline: GuideOutline | None, as_json: bool) -> None:
    from mmfe_cache.io import format_bytes

    total: dict[str, Any] = {
        "encodings": sum(plan.encodings for plan in plans),
        "tokens": sum(plan.tokens for plan in plans),
        "stored_vectors": sum(plan.stored_vectors for plan in plans),
        "bytes": sum(plan.bytes for plan in plans),
        "free": plans[0].free,
        # Nothing is timed where the weights are not here.
        "hours": None if outline else sum(plan.seconds or 0.0 for plan in plans) / 3600,
        "weights_here": outline is None,
        "download": 0 if outline is None else outline.download,
    }
    if as_json:
        stores = [{**asdict(plan), "path": str(plan.path)} for plan in plans]
        output.print_json({**total, "stores": stores})
        return
    titles = ("store", "samples", "views", "encodings", "tokens the guide reads")
    free = [] if total["free"] is None else [f"{format_bytes(total['free'])} free"]
    output.print_table(
        "What the build would cost",
        (*titles, "vectors stored", "on disk", *([] if outline else ["hours"])),
        [
            (
                str(plan.path),
                plan.samples,
                len(plan.views),
                plan.encodings,
                plan.tokens,
                plan.stored_vectors,
                format_bytes(plan.bytes),
                *([] if outline else [(plan.seconds or 0.0) / 3600]),
            )
            for plan in plans
        ],
        "; ".join([*free, *_without_weights(outline)]) or None,
    )


def _without_weights(outline: GuideOutline | None) -> list[str]:
    """What an estimate without the guide's weights lacks, and how large they are."""
    if outline is None:
        return []
    from mmfe_cache.io import format_bytes

    size = "" if outline.download is None else f" ({format_bytes(outline.download)} to download)"
    counted = (
        "" if outline.exact else "; tokens by the published processor, the question's estimated"
    )
    return [f"the weights of {outline.name} are not here{size}, so no hours are known{counted}"]


def _refuse_what_cannot_fit(plans: Sequence[BuildPlan]) -> None:
    from mmfe_cache.errors import MmfeError
    from mmfe_cache.io import format_bytes

    needed, free = sum(plan.bytes for plan in plans), plans[0].free
    if free is not None and needed > free:
        raise MmfeError(
            "the caches would not fit on the disk",
            got=f"{format_bytes(free)} free",
            expected=format_bytes(needed),
            remedy="free some space, choose another place with --out, or fewer --views",
        )
