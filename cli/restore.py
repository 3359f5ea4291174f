"""`mmfe restore`: restore photographs with a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import output

if TYPE_CHECKING:
    from mmfe_restore.inference import RestoreReport


def command(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Photographs, or folders of them.")
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="A folder; or a new .png file for a single photograph."),
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
    force: Annotated[
        bool, typer.Option("--force", help="Write over files that are there; never over an input.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Restore photographs; a file that fails is named, and the rest goes on.

    Example: mmfe restore rainy.jpg --checkpoint runs/demo -o restored/
    """
    from mmfe_restore.inference.files import plan

    sides = _tile(tile)
    bits = _precision(precision)
<<<<<<< HEAD
    # What is wrong with the paths is said before torch is imported, which takes seconds.
    plan(inputs, out)
    if not any(path.exists() for path in inputs):
        _tell(_none_exists(inputs), None, None, as_json)
    folder = None if checkpoint is not None and _is_repository(checkpoint) else _find(checkpoint)

    from mmfe_cache.machine import pick_device
    from mmfe_restore import Restorer
    from mmfe_restore.inference import guide_for, restore_files

    used = pick_device(device)
    restorer = Restorer.from_pretrained(folder or checkpoint or "").to(used)
=======
    plan(inputs, out)  # a wrong path is said before a network is loaded
    output.take_threads()
    restorer, folder = _load(checkpoint)
    restorer = restorer.to(used)
>>>>>>> restorehouse
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
        progress=progress,
    )
    named = looking.guide.name if looking is not None else None
    _tell(report, str(folder or checkpoint), named, as_json)


def _tell(report: RestoreReport, checkpoint: str | None, guide: str | None, as_json: bool) -> None:
    if as_json:
        output.print_json({**report.to_json(), "checkpoint": checkpoint, "guide": guide})
    else:
        for one in report.restored:
            output.say(str(one.target))
    if report.failed:
        raise typer.Exit(1)


def _none_exists(inputs: list[Path]) -> RestoreReport:
    from mmfe_cache.errors import DataError, MmfeError
    from mmfe_restore.inference.files import RestoreReport

    failed: list[tuple[Path, MmfeError]] = []
    for path in inputs:
        error = DataError(f"image {path} does not exist")
        failed.append((path, error))
        output.error(str(error))
    return RestoreReport((), tuple(failed))


def _is_repository(checkpoint: str) -> bool:
    """Only what is no path at all may be a repository's name."""
    return checkpoint.count("/") == 1 and not Path(checkpoint).parent.exists()


def _find(checkpoint: str | None) -> Path:
    from mmfe_restore.runs import model_folder, newest_checkpoint

    if checkpoint is not None:
        return model_folder(Path(checkpoint))
    folder = newest_checkpoint()
    output.note(f"using {folder}")
    return folder


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
