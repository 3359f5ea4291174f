"""`mmfe restore`: restore photographs with a trained network."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import output

if TYPE_CHECKING:
    from mmfe_restore import Restorer


class OutputFormat(Enum):
    """What restored files are written as."""

    keep = "keep"
    png = "png"
    jpeg = "jpeg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"


def command(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Photographs, or folders of them.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="A folder; or, for a single photograph, a new file such as out.png.",
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            help="A run's folder, its model/, or OWNER/NAME on the Hugging Face Hub; without it, "
            "the run under runs/ that finished last.",
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            "--guide", help="Another guide than the network's own; none takes its null guidance."
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            "--tile",
            help="auto: the whole image, exactly, in strips where it is large; a number: "
            "overlapping tiles of that side, which are not exact.",
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Of the arithmetic: 32 | bf16 | 16.")
    ] = "32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")] = "auto",
    file_format: Annotated[
        OutputFormat,
        typer.Option(
            "--format",
            help="Of the restored files; keep: each in its own format (JPEG and other lossy ones "
            "at quality 95, 4:4:4), PNG where that cannot be written.",
        ),
    ] = OutputFormat.keep,
    suffix: Annotated[
        str,
        typer.Option(
            "--suffix", metavar="TEXT", help="Added to every name: with _new, a.jpg is a_new.jpg."
        ),
    ] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Restore anew what is there already; an input is never written over."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Restore photographs; a file that fails is named, and the rest goes on.

    They keep their format, colour profile, EXIF, XMP, transparency and 16 bits. What is there
    already is skipped. Videos are out of scope: every picture of one would be restored by itself.

    Example: mmfe restore rainy.jpg --checkpoint runs/demo -o restored/
    """
    from mmfe_cache.machine import pick_device
    from mmfe_restore.inference import guide_for, restore_files
    from mmfe_restore.inference.jobs import plan

    used = pick_device(device)
    sides = _tile(tile)
    bits = _precision(precision)
    # A wrong path is said before a network is loaded.
    plan(inputs, out, format=file_format.value, suffix=suffix)
    restorer, folder = _load(checkpoint)
    restorer = restorer.to(used)
    looking = guide_for(restorer, name=guide, device=device)
    progress = output.console_progress()
    report = restore_files(
        inputs,
        out,
        restorer,
        looking,
        force=force,
        tile=sides,
        precision=bits,
        format=file_format.value,
        suffix=suffix,
        progress=progress,
    )
    if as_json:
        named = looking.guide.name if looking is not None else None
        output.print_json({**report.to_json(), "checkpoint": folder, "guide": named})
    else:
        for one in report.restored:
            output.say(str(one.target))
    if report.failed:
        raise typer.Exit(1)


def _load(checkpoint: str | None) -> tuple[Restorer, str]:
    from mmfe_restore import Restorer
    from mmfe_restore.evaluation.checkpoint import model_folder, newest_checkpoint

    if checkpoint is None:
        folder = newest_checkpoint()
        output.note(f"using {folder}")
        return Restorer.from_pretrained(folder), str(folder)
    # Only what is no path at all may be a repository's name.
    if checkpoint.count("/") == 1 and not Path(checkpoint).parent.exists():
        return Restorer.from_pretrained(checkpoint), checkpoint
    folder = model_folder(Path(checkpoint))
    return Restorer.from_pretrained(folder), str(folder)


def _tile(text: str) -> Literal["auto", "off"] | int:
    from mmfe_cache.errors import UsageError

    if text == "auto" or text == "off":
        return text
    if text.isdecimal() and int(text) >= 64:
        return int(text)
    raise UsageError("unknown tile", got=f"--tile {text}", expected="auto, off, or at least 64")


def _precision(text: str) -> Literal["32", "bf16", "16"]:
    from mmfe_cache.errors import UsageError

    if text == "32" or text == "bf16" or text == "16":
        return text
    raise UsageError("unknown precision", got=f"--precision {text}", expected="32, bf16 or 16")
