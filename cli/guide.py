"""`mmfe guide`: what guides there are, training and measuring `scene`, toy checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import choices, completion, degradations, output
from .help import Application

if TYPE_CHECKING:
    from mmfe_cache.degradations import DegradationConfig
    from mmfe_cache.guides.student.agreement import Agreement

app = Application(
    no_args_is_help=True,
    help="The frozen models that see degradations: list them, train and measure `scene`.",
)

MAX_SEED = 2**32 - 1
"""The largest seed that every generator takes."""


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the guides: what each is, its D, its licence, and how to get its weights."""
    from mmfe_cache.guides import FAMILIES, GUIDES
    from mmfe_cache.guides.hf_files import is_local

    rows = [
        {
            "name": info.name,
            "kind": info.kind,
            "family": info.kind,
            "dim": info.dim,
            "description": info.description,
            "licence": info.licence,
            "here": is_local(info),
            "get": info.how_to_get,
        }
        for info in GUIDES.values()
    ]
    if as_json:
        families = [
            {
                "family": one.kind,
                "spelled": one.spelled,
                "description": one.description,
                "needs": one.needs,
            }
            for one in FAMILIES.values()
        ]
        output.print_json({"guides": rows, "families": families})
        return
    output.print_table(
        "Guides",
        ("name", "D", "here", "licence", "how to get its weights"),
        [
            (row["name"], row["dim"], "yes" if row["here"] else "no", row["licence"], row["get"])
            for row in rows
        ],
    )
    for row in rows:
        output.say(f"{row['name']}: {row['description']}")
    output.print_table(
        "Families",
        ("family", "--guide", "what it is", "needs"),
        [(one.kind, one.spelled, one.description, one.needs) for one in FAMILIES.values()],
    )


@app.command("train")
def train(
    photos: Annotated[Path, typer.Argument(help="Clean photographs, also in subfolders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    kind: Annotated[
        Literal["scene", "prompt"],
        typer.Option(help="scene, or prompt: the twelve classes, told apart by the shipped scene."),
    ] = "scene",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of scene.")] = 12000,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of weights, pictures and views.")
    ] = 0,
    hold_out: Annotated[int, typer.Option(min=0, help="Photographs set aside to measure on.")] = 40,
    workers: Annotated[int, typer.Option(min=0, help="Processes that render for scene.")] = 1,
    rain_masks: degradations.RainMasks = None,
    snow_masks: degradations.SnowMasks = None,
    depth: degradations.Depth = None,
    light_maps: degradations.LightMaps = None,
    dark_photos: degradations.DarkPhotos = None,
    mask_share: degradations.MaskShare = 1.0,
    varied_share: degradations.VariedShare = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train the guide `scene` or `prompt` on photographs and synthetic degradations.

    The file is a guide: `mmfe cache build --guide FILE.safetensors`.

    Example: mmfe guide train photos/ --out my-scene.safetensors
    """
    from mmfe_cache.guides.scene.guide import save_scene
    from mmfe_cache.guides.scene.training import train_scene
    from mmfe_cache.machine import pick_device

    _check_out(out)
    config = degradations.open_config(
        rain_masks, snow_masks, depth, light_maps, dark_photos, mask_share, varied_share
    )
    _check_place(out.parent)
    output.take_threads()
    if kind == "prompt":
        _train_prompt(photos, out, seed, hold_out, device, config, as_json)
        return
    done = train_scene(
        photos,
        steps=steps,
        seed=seed,
        hold_out=hold_out,
        workers=workers,
        device=str(pick_device(device, for_training=True)),
        config=config,
        progress=output.console_progress(),
    )
    facts: dict[str, Any] = {
        "steps": done.steps,
        "seed": seed,
        "pictures": done.pictures,
        "photos": len(done.photos),
        "held_out": len(done.held_out),
        "degradations": config.spec(),
        "losses": done.losses,
    }
    digest = save_scene(done.network, out, facts)
    facts = {"out": str(out), "sha256": digest, "seconds": done.seconds, **facts}
    if as_json:
        output.print_json(facts)
        return
    output.say(f"wrote {out} ({steps} steps in {done.seconds:.0f} s, SHA-256 {digest[:16]}…)")
    output.say(f"measure it: mmfe guide evaluate PHOTOS --guide {out}")


def _train_prompt(
    photos: Path,
    out: Path,
    seed: int,
    hold_out: int,
    device: str,
    config: DegradationConfig,
    as_json: bool,
) -> None:
    import json
    import time

    from mmfe_cache.guides.prompt import save_prompt
    from mmfe_cache.guides.prompt_training import train_prompt
    from mmfe_cache.machine import pick_device

    started = time.perf_counter()
    done = train_prompt(
        photos,
        seed=seed,
        hold_out=hold_out,
        device=pick_device(device),
        config=config,
        progress=output.console_progress(),
    )
    facts: dict[str, Any] = {
        "kind": "prompt",
        "seed": seed,
        "pictures": done.pictures,
        "photos": len(done.photos),
        "held_out": len(done.held_out),
        "degradations": config.spec(),
        "accuracy_in_training": done.accuracy,
    }
    digest = save_prompt(done.head, out, json.dumps(facts))
    seconds = time.perf_counter() - started
    if as_json:
        output.print_json({"out": str(out), "sha256": digest, "seconds": seconds, **facts})
        return
    output.say(f"wrote {out} ({done.pictures} pictures in {seconds:.0f} s, SHA-256 {digest[:16]}…)")
    output.say(f"measure it: mmfe guide evaluate PHOTOS --guide {out}")


@app.command("distill")
def distill(
    cache: Annotated[Path, typer.Argument(help="The teacher's cache: a .zarr folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    root: Annotated[
        Path | None, typer.Option(help="Where the data set lies that the cache was built from.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of weights and batches.")] = 0,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the photographs set aside to measure.")
    ] = 0.1,
    variance: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the variance that a basis must hold.")
    ] = 0.99,
    max_rank: Annotated[
        int, typer.Option(min=1, max=512, help="Axes of a basis at most, whatever they hold.")
    ] = 256,
    init: Annotated[
        Literal["scene", "random"], typer.Option(help="What its eyes begin as.")
    ] = "scene",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read pictures.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a small network to give a guide's embeddings, from the cache that the guide built.

    The file is a guide, and a network that was trained with the teacher takes it in its place. A
    run that was stopped goes on where it last wrote its state.

    Example: mmfe guide distill cache/cdd11/train/scene.zarr -o student.safetensors
    """
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.guides.student.training import Settings
    from mmfe_cache.guides.student.training import distill as train_student
    from mmfe_cache.machine import pick_device
    from mmfe_cache.store import open_cache

    _check_out(out)
    reader = open_cache(cache)
    samples = load_dataset(reader.dataset, reader.split, root)
    _check_place(out.parent)
    output.take_threads()
    done = train_student(
        reader,
        samples,
        out,
        Settings(steps, seed, hold_out, variance, max_rank, init),
        device=pick_device(device),
        workers=workers,
        progress=output.console_progress(),
    )
    facts = {"out": str(out), "sha256": done.sha256, "seconds": done.seconds, **done.facts}
    if as_json:
        output.print_json({**facts, "teacher": reader.guide, "resumed": done.resumed})
        return
    output.say(f"wrote {out}, a student of {reader.guide} (SHA-256 {done.sha256[:16]}…)")
    if done.agreement is not None:
        _print_agreement(done.agreement, "on the photographs set aside")


def _print_agreement(found: Agreement, where: str) -> None:
    output.print_table(
        f"How near it comes to its teacher, {where} ({found.samples} pictures)",
        ("view", "embedding", "R²", "cosine", "cosine, centred", "ranks of similarities"),
        [
            (
                view,
                kind,
                f"{value.r2:.3f}",
                f"{value.cosine:.3f}",
                f"{value.cosine_centred:.3f}",
                f"{found.similarities[view]:.3f}" if kind == "answer" else "",
            )
            for view, kinds in found.views.items()
            for kind, value in kinds.items()
        ],
    )


def _evaluate_student(
    guide: str, teacher: Path, root: Path | None, device: str, as_json: bool
) -> None:
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.errors import CacheError, UsageError
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.student import StudentGuide
    from mmfe_cache.guides.student.agreement import measure_agreement
    from mmfe_cache.store import open_cache

    reader = open_cache(teacher)
    loaded = load_guide(guide, device=device)
    if not isinstance(loaded, StudentGuide):
        raise UsageError(
            f"the guide {loaded.name} has no teacher",
            expected="a file of `mmfe guide distill`",
            remedy="without --teacher: mmfe guide evaluate PHOTOS --guide NAME",
        )
    loaded.check_teacher(
        {key: value for key, value in reader.fingerprint.items() if key.startswith("guide.")}
    )
    views = [view for view in reader.views if view in loaded.views]
    if not views:
        raise CacheError(
            f"{teacher} has no view that the student learnt at",
            got=", ".join(reader.views) or "no finished view",
            expected=", ".join(loaded.views),
        )
    gone = set(reader.skipped)
    samples = [s for s in load_dataset(reader.dataset, reader.split, root) if s.id not in gone]
    where = f"on {reader.dataset}/{reader.split}"
    learnt_here = loaded.facts.get("cache") == reader.metadata.id
    if learnt_here:
        aside = set(loaded.facts["held_out_scenes"])
        samples = [sample for sample in samples if sample.scene in aside]
        where = "on the photographs set aside"
    found = measure_agreement(loaded, reader, samples, views, progress=output.console_progress())
    if as_json:
        about = {"guide": loaded.name, "teacher": reader.guide, "held_out": learnt_here}
        output.print_json({**about, **found.to_json()})
        return
    _print_agreement(found, where)


@app.command("evaluate")
def evaluate(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="Clean photographs the guide never saw; with --teacher a student.",
        ),
    ],
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Compare the student that is given instead of photographs with this cache."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the data set of the teacher's cache lies.")
    ] = None,
    guide: Annotated[
        str,
        typer.Option(
            "--guide", "-g", help="A name, DIR or FILE.", autocompletion=completion.guides
        ),
    ] = "scene",
    weights: Annotated[
        str | None, typer.Option(help="The file of a timm encoder's weights, or random.")
    ] = None,
    view: Annotated[
        str, typer.Option(help="What the guide sees, such as whole@224.")
    ] = "whole@224",
    seed: Annotated[int, typer.Option(help="Of the degradations.")] = 0,
    rain_masks: degradations.RainMasks = None,
    snow_masks: degradations.SnowMasks = None,
    depth: degradations.Depth = None,
    light_maps: degradations.LightMaps = None,
    dark_photos: degradations.DarkPhotos = None,
    mask_share: degradations.MaskShare = 1.0,
    varied_share: degradations.VariedShare = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure how well a guide sees composition, severity and dominance of degradations.

    With --teacher: how near a student comes to its teacher, on photographs it did not learn from.

    Example: mmfe guide evaluate student.safetensors --teacher cache/cdd11/train/scene.zarr
    """
    if teacher is not None:
        _evaluate_student(str(photos), teacher, root, device, as_json)
        return
    from mmfe_cache.degradations import KINDS
    from mmfe_cache.errors import UsageError
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.scene.data import find_photos
    from mmfe_cache.guides.scene.evaluation import evaluate_guide

    found = find_photos(photos)
    config = degradations.open_config(
        rain_masks, snow_masks, depth, light_maps, dark_photos, mask_share, varied_share
    )
    config.check((photo.stem for photo in found), KINDS)
    loaded = load_guide(guide, device=device, weights=weights)
    if loaded.reads != "pixels":
        raise UsageError(f"the guide {loaded.name} sees no pictures", expected="another guide")
    scores = evaluate_guide(
        loaded, found, view=view, seed=seed, config=config, progress=output.console_progress()
    )
    if as_json:
        output.print_json(scores.to_json())
        return
    if scores.average_precision and scores.spearman and scores.spearman_present:
        output.print_table(
            f"{scores.guide} on {scores.photos} photographs, view {scores.view}",
            ("label", "average precision", "Spearman", "Spearman, present only"),
            [
                (kind, f"{value:.4f}", scores.spearman[kind], scores.spearman_present[kind])
                for kind, value in scores.average_precision.items()
            ],
            caption=f"mean average precision {scores.mean_average_precision:.4f}",
        )
    if scores.spearman_traits:
        said = ", ".join(f"{name} {value:.3f}" for name, value in scores.spearman_traits.items())
        output.say(f"Spearman of what else it sees: {said}")
    if scores.class_accuracy is not None:
        said = ", ".join(f"{name} {value:.1%}" for name, value in scores.class_accuracy.items())
        output.say(f"assigned to the right class: {scores.mean_class_accuracy:.1%} ({said})")
    if scores.quiet_on_clear is not None:
        output.say(f"no label above 0.5 on {scores.quiet_on_clear:.1%} of the clear photographs")
    output.say(
        f"nearest to the dominant degradation: {scores.dominant_share:.1%} of "
        f"{scores.dominant_samples} triple compositions (chance {scores.chance:.0%}; by cosine "
        f"{scores.dominant_share_cosine:.1%})"
    )


@app.command("make-tiny")
def make_tiny(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    files: Annotated[
        Path | None,
        typer.Option("--files", help="Published processor and tokenizer files of Qwen2.5-VL."),
    ] = None,
    kind: Annotated[
        choices.ToyKind, typer.Option("--kind", help="Whose classes and files.")
    ] = "qwen2.5-vl",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the random weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a toy MLLM checkpoint: random weights, the real classes and file formats.

    Example: mmfe guide make-tiny toy && mmfe cache build --dataset cdd11 --guide toy
    """
    from mmfe_cache.guides import guide_dim
    from mmfe_cache.guides.toy import make_tiny

    made = make_tiny(directory, kind=kind, files=files, seed=seed)
    facts = {"out": str(made), "kind": kind, "dim": guide_dim(made)}
    if as_json:
        output.print_json(facts)
    else:
        output.say(f"wrote {made} ({kind}, D = {facts['dim']}, random weights)")


def _check_out(out: Path) -> None:
    from mmfe_cache.errors import UsageError

    if out.suffix != ".safetensors":
        raise UsageError("--out names no .safetensors file", got=out, expected="FILE.safetensors")
    if out.is_dir():
        raise UsageError("--out is a folder", got=out, expected="a new FILE.safetensors")


def _check_place(folder: Path) -> None:
    """Find out now, not after minutes of training, whether a file can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
