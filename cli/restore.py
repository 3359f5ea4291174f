"""`mmfe restore`: restore photographs with a trained network."""

from __future__ import annotations

import traceback
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import choices, completion, output
from .choices import without_guide
from .options import Device, Window

if TYPE_CHECKING:
    from mmfe_restore.inference import PhotographGuide, RestoreReport
    from mmfe_restore.model import Restorer


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
        list[Path], typer.Argument(metavar="INPUT", help="Photographs, or folders of them.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="<path>",
            help="A folder; or, for a single photograph, a new file such as out.png [default: "
            "restored, in the photographs' own folder].",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A run's folder, its model/, a network of `mmfe model list`, or OWNER/NAME or "
            "OWNER/NAME@REVISION on the Hugging Face Hub [default: mmfe-small, which comes with "
            "mmfe].",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            "--guide",
            "-g",
            help="Another guide than the network's own; none takes its null guidance.",
            autocompletion=completion.guides_of_photographs,
        ),
    ] = None,
    no_guide: Annotated[bool, typer.Option("--no-guide", help="The same as --guide none.")] = False,
    tile: Annotated[
        str,
        typer.Option(
            help="auto and off: the whole image, in strips where it is large; a number: "
            "overlapping tiles of at most that side, whose tones may differ.",
            autocompletion=completion.wholes,
        ),
    ] = "auto",
    window: Window = "auto",
    precision: Annotated[
        choices.Precision,
        typer.Option(help="Of the arithmetic; auto is bf16 on a GPU and 32 on a CPU."),
    ] = "32",
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="How much of the restoration to take: 0 leaves the photograph as it is.",
        ),
    ] = 1.0,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Take away these alone and leave the rest: some of low, haze, rain, snow, joined "
            "by commas.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    device: Device = "auto",
    file_format: Annotated[
        OutputFormat,
        typer.Option(
            "--format",
            help="Of the restored files; keep: each in its own format (lossy ones at quality 95, "
            "4:4:4 but for WebP, which has 4:2:0 alone), PNG where that cannot be written.",
        ),
    ] = OutputFormat.keep,
    suffix: Annotated[
        str, typer.Option(help="Added to every name: with _new, a.jpg is a_new.jpg.")
    ] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Restore anew what is there already; an input is never written over."
        ),
    ] = False,
    score: Annotated[
        list[choices.Score] | None,
        typer.Option(
            help="Judge both pictures without a ground truth; may be repeated. Needs pyiqa, which "
            "is for non-commercial use."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Restore photographs; a file that fails is named, and the rest goes on.

    They keep their format, colour profile, EXIF, XMP, transparency and 16 bits. What is there
    already is skipped. Videos are out of scope: every picture of one would be restored by itself.

    Example: mmfe restore rainy.jpg -o restored/ --only rain
    """
    from mmfe_cache.machine import check_device, emulates_bf16, pick_device, short_name
    from mmfe_restore.inference.files import check_only, nothing_left
    from mmfe_restore.inference.jobs import default_out, plan

    sides = choices.tile_from(tile)
    attended = choices.window_from(window)
    judges = tuple(one.value for one in score or ())
    wanted = None if only is None else _kinds(only)
    if no_guide:
        guide = without_guide(guide)
    if wanted is not None and guide == "none":
        check_only(wanted, None)
    if out is None:
        out = str(default_out(inputs))
    # What is wrong with the paths is said before torch is imported, which takes seconds.
    planned = plan(inputs, out, format=file_format.value, suffix=suffix)
    if not any(path.exists() for path in inputs):
        _tell(_none_exists(inputs), None, None, wanted, as_json)
    check_device(device)
    source = _find(checkpoint)
    if guide is not None and guide != "none":
        _check_guide(guide, source)
    if judges:
        from mmfe_restore.metrics.no_reference import LICENCE

        output.remark(LICENCE)
    progress = output.console_progress()
    if not force and (report := nothing_left(planned, progress)) is not None:
        _tell(report, str(source), None, wanted, as_json)
        return

    from mmfe_restore import Restorer
    from mmfe_restore.inference import guide_for, restore_files

    used = pick_device(device)
    if used.type == "cpu" and short_name(precision) in ("bf16", "16") and emulates_bf16():
        output.remark(
            "this CPU has no products of half precision and makes them of slower ones; "
            "--precision 32 is faster"
        )
    output.take_threads(device)
    restorer = Restorer.from_pretrained(source).to(used)
    if attended != "auto":
        restorer.attend_within(attended)
    looking = guide_for(restorer, name=guide, device=device)
    if looking is not None and looking.teacher is not None:
        output.message(f"guided by {looking.guide.name}, a student of {looking.teacher}")
    report = restore_files(
        inputs,
        out,
        restorer,
        looking,
        force=force,
        tile=sides,
        precision=precision,
        format=file_format.value,
        suffix=suffix,
        strength=strength,
        only=wanted,
        scores=judges,
        progress=progress,
    )
    _tell(report, str(source), looking, wanted, as_json, restorer)


def _tell(
    report: RestoreReport,
    checkpoint: str | None,
    looking: PhotographGuide | None,
    wanted: tuple[str, ...] | None,
    as_json: bool,
    restorer: Restorer | None = None,
) -> None:
    if as_json:
        facts: dict[str, object] = {"checkpoint": checkpoint}
        if restorer is not None:
            facts["attention_window"] = restorer.config.attention_window
        facts["guide"] = None if looking is None else looking.guide.name
        if wanted is not None:
            facts["only"] = list(wanted)
        if looking is not None and looking.teacher is not None:
            facts["teacher"] = looking.teacher
        output.print_json({**report.to_json(), **facts})
    else:
        for one in report.restored:
            output.print_line(str(one.target))
            for name, (before, after) in (one.scores or {}).items():
                output.print_line(
                    f"  {name} {before:.3f} -> {after:.3f} ({_better(name)} is better)"
                )
    if report.failed:
        if output.VERBOSITY.debug:
            for _, problem in report.failed:
                traceback.print_exception(problem)
        raise typer.Exit(1)


def _better(name: str) -> str:
    from mmfe_restore.metrics.registry import METRICS

    return "higher" if METRICS[name].higher_is_better else "lower"


def _none_exists(inputs: list[Path]) -> RestoreReport:
    from mmfe_cache.errors import MmfeError
    from mmfe_cache.images.opening import not_there
    from mmfe_restore.inference.files import RestoreReport

    failed: list[tuple[Path, MmfeError]] = []
    for path in inputs:
        error = not_there(path)
        failed.append((path, error))
        output.error(str(error))
    return RestoreReport((), tuple(failed))


def _find(checkpoint: str | None) -> Path | str:
    """The network: a folder, or the name of one that is shipped or lies on the Hugging Face Hub."""
    from mmfe_restore.model.folders import DEFAULT, find_model

    if checkpoint is None:
        output.message(f"using {DEFAULT}, the network that comes with mmfe")
        return DEFAULT
    return find_model(checkpoint)


def _check_guide(guide: str, source: Path | str) -> None:
    """Say without torch that there is no such guide, that it does not fit, or is not here.

    In this order: nobody is to download a guide that then does not fit.
    """
    from mmfe_cache.errors import ModelError
    from mmfe_cache.guides import check_guide
    from mmfe_cache.guides.registry import find_guide
    from mmfe_restore.inference.jobs import check_width
    from mmfe_restore.model.folders import model_folder, recipe_of

    found = find_guide(guide)
    try:
        model = recipe_of(model_folder(source)).model
    except ModelError:
        return  # said when the network is loaded
    if model.reads and found.reads == "pixels":  # otherwise that is what is wrong
        check_width(guide, found.dim, model.guidance_dim)
        check_guide(guide)


def _kinds(text: str) -> tuple[str, ...]:
    from mmfe_cache.degradations import check_kinds

    return check_kinds([kind.strip() for kind in text.split(",") if kind.strip()])
