"""`mmfe guide`: what guides there are, training and measuring `scene`, toy checkpoints."""

from __future__ import annotations

from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import choices, completion, guide_student, options, output
from .help import Application
from .options import GuideDevice, Json

if TYPE_CHECKING:
    from mmfe_cache.guides.prompt_training import PromptTraining
    from mmfe_cache.guides.scene.training import SceneTraining

app = Application(
    no_args_is_help=True,
    help="The frozen models that see degradations: list them, train and measure `scene`.",
)


@app.command("list")
def list_(
    as_json: Json = False,
) -> None:
    """List the guides: what each is, its D, its licence, and how to get its weights."""
    from mmfe_cache.guides import FAMILIES, GUIDES
    from mmfe_cache.guides.checkpoint_files import is_local

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
        families = [asdict(one) for one in FAMILIES.values()]
        output.print_json({"guides": rows, "families": families})
        return
    output.print_table(
        "Guides",
        ("name", "D", "here", "licence", "how to get its weights"),
        [
            (row["name"], row["dim"], "yes" if row["here"] else "no", row["licence"], row["get"])
            for row in rows
        ],
        commands="how to get its weights",
    )
    for row in rows:
        output.print_wrapped(f"{row['name']}: {row['description']}")
    output.print_table(
        "Families",
        ("family", "--guide", "what it is", "needs"),
        [astuple(one) for one in FAMILIES.values()],
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
        int, typer.Option(min=0, max=choices.MAX_SEED, help="Of weights, pictures and views.")
    ] = 0,
    hold_out: Annotated[int, typer.Option(min=0, help="Photographs set aside to measure on.")] = 40,
    workers: Annotated[int, typer.Option(min=0, help="Processes that render for scene.")] = 1,
    rain_masks: options.RainMasks = None,
    snow_masks: options.SnowMasks = None,
    depth: options.Depth = None,
    light_maps: options.LightMaps = None,
    dark_photos: options.DarkPhotos = None,
    mask_share: options.MaskShare = 1.0,
    varied_share: options.VariedShare = 0.0,
    device: GuideDevice = "auto",
    as_json: Json = False,
) -> None:
    """Train the guide `scene` or `prompt` on photographs and synthetic degradations.

    The file is a guide: `mmfe cache build --guide FILE.safetensors`.

    Example: mmfe guide train photos/ --out my-scene.safetensors
    """
    from mmfe_cache.datasets.synth_inputs import clean_photographs
    from mmfe_cache.io import check_writable
    from mmfe_cache.machine import check_device, pick_device

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    guide_student.check_out(out, free=True)
    check_device(device)
    if kind == "scene":
        _refuse_maps(depth=depth, light_maps=light_maps, dark_photos=dark_photos)
    config = options.degradation_config(
        rain_masks, snow_masks, depth, light_maps, dark_photos, mask_share, varied_share
    )
    clean_photographs(photos, config)
    check_writable(out.parent)
    from mmfe_cache.guides.scene.guide import save_scene
    from mmfe_cache.guides.scene.training import train_scene

    output.take_threads(device)
    given: dict[str, Any] = {
        "seed": seed,
        "hold_out": hold_out,
        "config": config,
        "progress": output.console_progress(),
    }

    def seen(done: PromptTraining | SceneTraining) -> dict[str, Any]:
        return {
            "seed": seed,
            "pictures": done.pictures,
            "photos": len(done.photos),
            "held_out": len(done.held_out),
            "degradations": config.spec(),
        }

    if kind == "prompt":
        from mmfe_cache.guides.prompt import save_prompt
        from mmfe_cache.guides.prompt_training import train_prompt

        done = train_prompt(photos, device=pick_device(device), **given)
        facts = {"kind": "prompt", **seen(done), "accuracy_in_training": done.accuracy}
        digest, effort = save_prompt(done.head, out, facts), f"{done.pictures} pictures"
    else:
        used = str(pick_device(device, for_training=True))
        done = train_scene(photos, steps=steps, workers=workers, device=used, **given)
        facts = {"steps": done.steps, **seen(done), "losses": done.losses}
        digest, effort = save_scene(done.network, out, facts), f"{steps} steps"
    if as_json:
        about = {"out": str(out), "sha256": digest, "seconds": done.seconds}
        output.print_json({**about, **facts})
        return
    output.print_line(f"wrote {out} ({effort} in {done.seconds:.0f} s, SHA-256 {digest[:16]}…)")
    output.print_line(f"measure it: mmfe guide evaluate PHOTOS --guide {out}")


def _refuse_maps(**folders: Path | None) -> None:
    from mmfe_cache.errors import UsageError

    for name, folder in folders.items():
        if folder is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"scene trains on crops of photographs, which {option} does not fit",
                got=f"{option} {folder}",
                expected="--rain-masks and --snow-masks alone",
                remedy=f"leave {option} out; --kind prompt takes it",
            )


app.command("distill")(guide_student.distill)


@app.command("evaluate")
def evaluate(
    context: typer.Context,
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
    rain_masks: options.RainMasks = None,
    snow_masks: options.SnowMasks = None,
    depth: options.Depth = None,
    light_maps: options.LightMaps = None,
    dark_photos: options.DarkPhotos = None,
    mask_share: options.MaskShare = 1.0,
    varied_share: options.VariedShare = 0.0,
    device: GuideDevice = "auto",
    as_json: Json = False,
) -> None:
    """Measure how well a guide sees composition, severity and dominance of degradations.

    With --teacher: how near a student comes to its teacher, on photographs it did not learn from.

    Example: mmfe guide evaluate student.safetensors --teacher cache/cdd11/train/scene.zarr
    """
    from mmfe_cache.errors import UsageError

    if teacher is not None:
        # A student is compared at its cache's views, on its cache's pictures.
        if given := options.given_besides(
            context, "photos", "teacher", "root", "device", "as_json"
        ):
            raise UsageError(
                "a student is compared with its teacher at the cache's views, on its pictures",
                got=", ".join(given),
                expected="FILE.safetensors --teacher CACHE, with --root and --device",
                remedy="leave them out, or leave --teacher out and give photographs",
            )
        guide_student.evaluate(str(photos), teacher, root, device, as_json)
        return
    if root is not None:
        raise UsageError(
            "--root is the data set of a teacher's cache",
            got=f"--root {root} without --teacher",
            remedy="leave it out, or give --teacher CACHE",
        )
    from mmfe_cache.datasets.synth_inputs import clean_photographs
    from mmfe_cache.degradations import KINDS
    from mmfe_cache.guides import check_guide, load_guide
    from mmfe_cache.machine import check_device
    from mmfe_cache.views import View

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    View.parse(view)
    check_device(device)
    check_guide(guide, weights)
    config = options.degradation_config(
        rain_masks, snow_masks, depth, light_maps, dark_photos, mask_share, varied_share
    )
    progress = output.console_progress()
    found = clean_photographs(photos, config, progress)
    for line in config.check((photo.name for photo in found), KINDS):
        progress.warn(line)

    from mmfe_cache.guides.scene.evaluation import evaluate_guide

    output.note_driver(device)
    loaded = load_guide(guide, device=device, weights=weights)
    if loaded.reads != "pixels":
        raise UsageError(f"the guide {loaded.name} sees no pictures", expected="another guide")
    scores = evaluate_guide(loaded, found, view=view, seed=seed, config=config, progress=progress)
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
        output.print_wrapped(f"Spearman of what else it sees: {said}")
    if scores.class_accuracy is not None:
        said = ", ".join(f"{name} {value:.1%}" for name, value in scores.class_accuracy.items())
        output.print_wrapped(
            f"assigned to the right class: {scores.mean_class_accuracy:.1%} ({said})"
        )
    if scores.quiet_on_clear is not None:
        output.print_wrapped(
            f"no label above 0.5 on {scores.quiet_on_clear:.1%} of the clear photographs"
        )
    output.print_wrapped(
        f"nearest to the dominant degradation: {scores.dominant_share:.1%} of "
        f"{scores.dominant_samples} triple compositions (chance {scores.chance:.0%}; by cosine "
        f"{scores.dominant_share_cosine:.1%})"
    )


@app.command("make-tiny")
def make_tiny(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    files: Annotated[
        Path | None, typer.Option(help="Published processor and tokenizer files of Qwen2.5-VL.")
    ] = None,
    kind: Annotated[choices.ToyKind, typer.Option(help="Whose classes and files.")] = "qwen2.5-vl",
    seed: Annotated[
        int, typer.Option(min=0, max=choices.MAX_SEED, help="Of the random weights.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Write a toy MLLM checkpoint: random weights, the real classes and file formats.

    Example: mmfe guide make-tiny toy && mmfe cache build --dataset cdd11 --guide toy
    """
    from mmfe_cache.guides import guide_dim
    from mmfe_cache.guides.registry import check_toy

    check_toy(directory, kind, files)  # before torch is imported, which takes seconds
    from mmfe_cache.guides.toy import make_tiny

    made = make_tiny(directory, kind=kind, files=files, seed=seed)
    facts = {"out": str(made), "kind": kind, "dim": guide_dim(made)}
    if as_json:
        output.print_json(facts)
    else:
        output.print_line(f"wrote {made} ({kind}, D = {facts['dim']}, random weights)")
