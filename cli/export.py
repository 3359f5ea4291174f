"""`mmfe export`: write a network for other programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import completion, output
from .choices import without_guide

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A network of `mmfe model list`, a run's folder, its model/, or "
            "OWNER/NAME or OWNER/NAME@REVISION on the Hugging Face Hub.",
            autocompletion=completion.checkpoints,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help=".onnx: ONNX; .safetensors: for spandrel and ComfyUI; .pt2: torch.export.",
        ),
    ],
    guide: Annotated[
        Literal["auto", "scene", "none", "inputs"],
        typer.Option(
            help="scene: in the file; none: the network's null guidance; inputs: the file takes "
            "embeddings; auto: scene where the network was trained with it, else inputs."
        ),
    ] = "auto",
    no_guide: Annotated[bool, typer.Option("--no-guide", help="The same as --guide none.")] = False,
    static: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Take images of this size alone [default: any size]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a network, and its guide where that is `scene`, as one file for other programs.

    An ONNX file takes `image` (N, 3, H, W), RGB from 0 to 1, and gives `restored` of that shape; it
    needs nothing of mmfe, see examples/restore_onnx.py.

    Example: mmfe export mmfe-small -o mmfe-small.onnx
    """
    from mmfe_restore.export import check_target
    from mmfe_restore.model.folders import find_model

    inside = without_guide(None if guide == "auto" else guide) if no_guide else guide
    size = _size(static)
    check_target(out, size)
    source = find_model(model)

    from mmfe_restore import Restorer
    from mmfe_restore.export import export_model

    restorer = Restorer.from_pretrained(source)
    done = export_model(restorer, out, source=model, inside=inside, static=size)
    if done.note is not None:
        output.remark(done.note)
    if as_json:
        output.print_json(done.to_json())
    else:
        output.print_line(
            f"wrote {done.path} ({done.size / 1e6:.1f} MB), inputs {', '.join(done.inputs)}"
        )


def _size(text: str | None) -> tuple[int, int] | None:
    from mmfe_cache.errors import UsageError

    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise UsageError(
            "--static names no size", got=text, expected="HEIGHTxWIDTH in pixels, such as 720x1080"
        )
    return int(match[1]), int(match[2])
