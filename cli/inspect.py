"""`mmfe inspect`: what the guide sees in photographs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from . import completion, output
from .options import Device, Json


def command(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO", help="Photographs, or folders of them.")
    ],
    guide: Annotated[
        str,
        typer.Option(
            "--guide",
            "-g",
            help="scene, or a FILE of `mmfe guide train`.",
            autocompletion=completion.inspecting_guides,
        ),
    ] = "scene",
    view: Annotated[
        str, typer.Option(help="What the guide sees: native, whole@r or crop@r.")
    ] = "native",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what is wrong with photographs: low light, haze, rain and snow, and how strong.

    A file that cannot be read is named, and the rest goes on; the exit code is then 1. Folders are
    searched as by `mmfe restore`, and what else they hold is named.

    Example: mmfe inspect rainy.jpg --json
    """
    from mmfe_cache.errors import MmfeError, UsageError
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.registry import GUIDES, find_guide
    from mmfe_cache.guides.timm_models import TIMM
    from mmfe_cache.images import read_noted
    from mmfe_cache.images.opening import not_there
    from mmfe_cache.machine import check_device
    from mmfe_cache.views import View
    from mmfe_restore.inference.jobs import find, name_left_out

    # What is wrong with the arguments is said before torch is imported, which takes seconds.
    look = View.parse(view)
    found, left_out = find(photos)
    # Nobody is to download or install a guide that can then only be refused.
    foreign = guide not in GUIDES and (guide.startswith(TIMM) or Path(guide).is_dir())
    if foreign or find_guide(guide).kind != "scene":
        raise UsageError(
            f"the guide {guide} names no degradations",
            expected="scene, or a file of `mmfe guide train`",
        )
    check_device(device)
    seen: list[dict[str, object]] = []
    failed: list[dict[str, str]] = []

    def tell(name: str) -> None:
        if as_json:
            others = [one.to_json() for one in left_out]
            found_out = {"guide": name, "view": look.name, "seen": seen, "failed": failed}
            output.print_json({**found_out, "left_out": others})
        elif seen:
            _print(seen)
        if failed:
            raise typer.Exit(1)

    if not any(path.exists() for path in photos):
        for path in photos:
            error = not_there(path)
            failed.append({"input": str(path), "error": str(error)})
            output.error(str(error))
        tell(guide)

    from mmfe_cache.guides.scene.guide import SceneGuide

    output.note_driver(device)
    loaded = load_guide(guide, device=device)
    assert isinstance(loaded, SceneGuide)
    for line in name_left_out(left_out):
        output.warn(line)
    for path in found:
        try:
            pixels, notes = read_noted(path)
            finding = loaded.inspect(look.render(pixels))
        except MmfeError as error:
            failed.append({"input": str(path), "error": str(error)})
            output.warn(f"not inspected: {error.about(path)}")
        else:
            seen.append({"input": str(path), **finding})
            for note in notes:
                output.warn(f"{path}: {note}")
    tell(loaded.name)


def _print(seen: list[dict[str, object]]) -> None:
    rows: list[tuple[object, ...]] = []
    names = Counter(Path(str(one["input"])).name for one in seen)
    for one in seen:
        path = Path(str(one["input"]))
        degradations = one["degradations"]
        traits = one["traits"]
        assert isinstance(degradations, dict)
        assert isinstance(traits, dict)
        cells = [
            f"{value['severity']:.2f} ({value['probability']:.0%})"
            for value in degradations.values()
        ]
        rest = ["-" if value is None else f"{value:.2f}" for value in traits.values()]
        rows.append((path.name if names[path.name] == 1 else str(path), *cells, *rest))
    first = seen[0]
    assert isinstance(first["degradations"], dict)
    assert isinstance(first["traits"], dict)
    output.print_table(
        "What the guide sees",
        ("photograph", *first["degradations"], *first["traits"]),
        rows,
        caption="severity from 0 (absent) to 1 (the strongest in CDD11), and how sure it is; "
        "airlight (0 grey, 1 white) where there is haze, noise (0 to 1) where it is dark, "
        "luminance: how bright the clean picture is expected to be",
    )
