"""`mmfe guide distill`, and what `mmfe guide evaluate` says of a student beside its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import choices, output
from .options import GuideDevice, Json

if TYPE_CHECKING:
    from mmfe_cache.guides.student.agreement import Agreement


def distill(
    cache: Annotated[Path, typer.Argument(help="The teacher's cache: a .zarr folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    root: Annotated[
        Path | None, typer.Option(help="Where the data set lies that the cache was built from.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3000,
    seed: Annotated[
        int, typer.Option(min=0, max=choices.MAX_SEED, help="Of weights and batches.")
    ] = 0,
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
    device: GuideDevice = "auto",
    as_json: Json = False,
) -> None:
    """Train a small network to give a guide's embeddings, from the cache that the guide built.

    The file is a guide, and a network that was trained with the teacher takes it in its place. A
    run that was stopped goes on where it last wrote its state.

    Example: mmfe guide distill cache/cdd11/train/scene.zarr -o student.safetensors
    """
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.io import check_writable
    from mmfe_cache.machine import check_device, pick_device
    from mmfe_cache.store import open_cache

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    check_out(out)
    check_device(device)
    reader = open_cache(cache)
    samples = load_dataset(reader.dataset, reader.split, root)
    check_writable(out.parent)

    from mmfe_cache.guides.student.training import Settings, distill as train_student

    output.take_threads(device)
    done = train_student(
        reader,
        samples,
        out,
        Settings(steps, seed, hold_out, variance, max_rank, init),
        device=pick_device(device, for_training=True),
        workers=workers,
        progress=output.console_progress(),
    )
    facts = {"out": str(out), "sha256": done.sha256, "seconds": done.seconds, **done.facts}
    if as_json:
        output.print_json({**facts, "teacher": reader.guide, "resumed": done.resumed})
        return
    wrote = "there is" if done.resumed == steps else "wrote"
    output.print_line(f"{wrote} {out}, a student of {reader.guide} (SHA-256 {done.sha256[:16]}…)")
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


def evaluate(guide: str, teacher: Path, root: Path | None, device: str, as_json: bool) -> None:
    """Compare a student with its teacher's cache: `mmfe guide evaluate --teacher`."""
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.errors import UsageError
    from mmfe_cache.guides import check_guide, load_guide
    from mmfe_cache.machine import check_device
    from mmfe_cache.store import open_cache

    check_guide(guide)
    check_device(device)
    reader = open_cache(teacher)
    samples = load_dataset(reader.dataset, reader.split, root)

    from mmfe_cache.guides.student.agreement import measure_student
    from mmfe_cache.guides.student.guide import StudentGuide

    output.note_driver(device)
    loaded = load_guide(guide, device=device)
    if not isinstance(loaded, StudentGuide):
        raise UsageError(
            f"the guide {loaded.name} has no teacher",
            expected="a file of `mmfe guide distill`",
            remedy="without --teacher: mmfe guide evaluate PHOTOS --guide NAME",
        )
    found, learnt_here = measure_student(
        loaded, reader, samples.samples, progress=output.console_progress()
    )
    if as_json:
        about = {"guide": loaded.name, "teacher": reader.guide, "held_out": learnt_here}
        output.print_json({**about, **found.to_json()})
        return
    where = f"on {reader.dataset}/{reader.split}"
    _print_agreement(found, "on the photographs set aside" if learnt_here else where)


def check_out(out: Path, *, free: bool = False) -> None:
    """Refuse an ``--out`` that is no new file of a guide's weights.

    Args:
        out: what was given.
        free: whether a file that is there is refused, too: whoever was trained with it, or built a
            cache with it, names its hash.

    Raises:
        UsageError: it names a folder, or no .safetensors file; or such a file is there.
    """
    from mmfe_cache.errors import UsageError

    if out.suffix != ".safetensors":
        raise UsageError("--out names no .safetensors file", got=out, expected="FILE.safetensors")
    if out.is_dir():
        raise UsageError("--out is a folder", got=out, expected="a new FILE.safetensors")
    if free and out.exists():
        raise UsageError(
            "--out is there already, and networks and caches may have been made with it",
            got=out,
            expected="a new FILE.safetensors",
            remedy="choose another name, or remove the file",
        )
