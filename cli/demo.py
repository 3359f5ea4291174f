"""`mmfe demo`: the whole job on real photographs, by the commands that a researcher types."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import choices, output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmfe_cache.datasets.demo_photographs import Photographs

FINE_TUNING: tuple[str, ...] = (
    *("--init-from", "mmfe-small", "--set", "train.learning_rate=2e-4"),
    *("--set", "train.stages=[{epochs: 12, resolution: 96, batch_size: 8}]"),
)
"""How the demo trains: the network of the package goes on learning on the demo's photographs, as a
user's own would. Trained from scratch, a network needs hours, and minutes are a lottery."""

ABLATION: tuple[str, ...] = ("--set", "model.experts=none")
"""What the second training overrides: a few steps of a new network without MoFE."""

ABLATION_STEPS = 20

FAST_STEPS = 3
"""Of both trainings with ``--fast``: the first begins with a trained network."""

MAX_SIDE, FAST_MAX_SIDE = 480, 160
"""Longer side of the photographs, in pixels; evaluation's time goes by their area."""


@dataclass
class _Steps:
    """Runs commands of this program in order and keeps what they report and how long they take."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def run(self, name: str, *arguments: str | Path) -> dict[str, Any]:
        """Run ``mmfe ARGUMENTS --json`` and return the object that it prints."""
        from .app import INTERRUPTED, run

        words = [str(word) for word in arguments]
        output.message(f"\n$ mmfe {shlex.join(words)}")
        flags = [
            flag
            for flag, wanted in (
                ("--debug", output.VERBOSITY.debug),
                ("--quiet", output.VERBOSITY.quiet),
            )
            if wanted
        ]
        started = time.perf_counter()
        printed = io.StringIO()
        output.VERBOSITY.step = name
        try:
            with contextlib.redirect_stdout(printed):
                code = run([*flags, *words, "--json"])
        finally:
            output.VERBOSITY.step = ""
        self.seconds[name] = round(time.perf_counter() - started, 1)
        if code == INTERRUPTED:
            raise typer.Exit(code)
        if code:
            output.error(f"the demo stopped in its step '{name}'; the same command goes on there")
            raise typer.Exit(code)
        return json.loads(printed.getvalue())


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="For everything the demo makes.")] = (
        Path("demo")
    ),
    photos: Annotated[
        Path | None, typer.Option(help="A folder with at least 3 photographs of your own.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Smaller photographs, a few steps of training.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=choices.MAX_SEED,
            help="Another seed draws other weather and other crops.",
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Do the whole job on real photographs, on a CPU, in minutes and without a download.

    Synthesises a CDD11-shaped set, caches embeddings with the guide `scene`, fine-tunes mmfe-small
    from the cache, trains an ablation, evaluates, and restores a photograph of neither set.
    An interrupted demo goes on where it stopped.
    """
    from mmfe_cache.machine import emulates_bf16

    chosen = _choose(photos)
    settings: dict[str, object] = {
        "photos": str(photos.resolve()) if photos else None,
        "fast": fast,
    }
    # Folders of demos that knew no seed are of seed 0.
    _claim(out, settings | ({"seed": seed} if seed else {}))
    output.take_threads()
    steps = _Steps()
    started = time.perf_counter()
    _copy_photographs(chosen, out / "photos")
    steps.seconds["photographs"] = round(time.perf_counter() - started, 1)

    data, cache, run = out / "cdd11", out / "cache", out / "runs" / "demo"
    max_side = str(FAST_MAX_SIDE if fast else MAX_SIDE)
    steps.run(
        "data synth",
        *("data", "synth", out / "photos" / "train", "--test-photos", out / "photos" / "test"),
        *("--max-side", max_side, "--seed", str(seed), "--out", data),
    )
    sources: tuple[str | Path, ...] = ("--root", data, "--cache", cache)
    built = steps.run(
        "cache build",
        *("cache", "build", "--dataset", "cdd11", "--root", data, "--guide", "scene"),
        *("--recipe", "small", "--out", cache),
    )
    shorter = ("--set", f"train.max_steps={FAST_STEPS}") if fast else ()
    drawn = ("--set", f"train.seed={seed}") if seed else ()
    if emulates_bf16():
        drawn = (*drawn, "--set", "train.precision=32")
    trained = steps.run(
        "train",
        *("train", "--recipe", "small", *FINE_TUNING, *sources, *shorter, *drawn, "--out", run),
    )
    ablated = steps.run(
        "ablation",
        *("train", "--recipe", "small", *sources, *ABLATION, *drawn),
        *("--set", f"train.max_steps={FAST_STEPS if fast else ABLATION_STEPS}"),
        *("--out", out / "runs" / "demo-without-experts"),
    )
    steps.run(
        "eval of the ablation",
        *("eval", "--checkpoint", out / "runs" / "demo-without-experts" / "model"),
        *("--dataset", "cdd11", *sources, "--force", "--out", out / "report-without-experts"),
    )
    evaluated = steps.run(
        "eval",
        *("eval", "--checkpoint", run / "model", "--dataset", "cdd11", *sources),
        *("--beside", out / "report-without-experts"),
        *("--out", out / "report", "--force"),
    )
    typical = typical_class(evaluated["classes"])
    restored = _restore_own(steps, out, run / "model", typical, max_side, seed)
    _show_on_page(out / "report", restored)
    result = {
        "average": evaluated["average"],
        "classes": evaluated["classes"],
        "guide_calls": {
            "build": built["guide_calls"],
            "train": trained["guide_calls"],
            "ablation": ablated["guide_calls"],
        },
        "restored": restored,
        "run": str(run),
        "report": str(out / "report" / "report.html"),
        "seconds": steps.seconds | {"total": round(time.perf_counter() - started, 1)},
    }
    if as_json:
        output.print_json(result)
    else:
        _tell(result)


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Refuse a folder in which a demo with other settings was begun."""
    from mmfe_cache.errors import UsageError
    from mmfe_cache.io import write_file
    from mmfe_cache.parsing import parse_json

    marker = out / "demo.json"
    if marker.is_file():
        try:
            found = parse_json(marker.read_bytes(), marker)
        except ValueError as problem:
            raise UsageError(
                f"{marker} cannot be read, so nobody can tell which demo {out} holds",
                got=str(problem),
                remedy="choose another folder with --out, or remove this one",
            ) from None
        if found != settings:
            raise UsageError(
                f"{out} holds a demo with other settings",
                got=json.dumps(settings),
                expected=json.dumps(found),
                remedy="choose another folder with --out, or remove this one",
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists and holds no demo",
            expected="a new or empty folder",
            remedy="choose another folder with --out",
        )
    write_file(marker, json.dumps(settings))


def _choose(photos: Path | None) -> Photographs:
    from mmfe_cache.datasets.demo_photographs import bundled_photographs, split_into_parts

    return bundled_photographs() if photos is None else split_into_parts(photos)


def _copy_photographs(chosen: Photographs, folder: Path) -> None:
    """Copy each part's photographs, and refuse copies of other ones: they may be in two parts."""
    from mmfe_cache.datasets.photographs import is_image_name
    from mmfe_cache.errors import UsageError
    from mmfe_cache.names import composed, first_few

    copies = {
        folder / part / (photograph.name + photograph.path.suffix): photograph.path
        for part in ("train", "test", "own")
        for photograph in getattr(chosen, part)
    }
    known = {(path.parent.name, composed(path.name)) for path in copies}
    others = [
        str(path)
        for path in sorted(folder.glob("*/[!.]*"))  # a Mac leaves ._a.png beside a.png
        if is_image_name(path) and (path.parent.name, composed(path.name)) not in known
    ]
    if others:
        raise UsageError(
            f"{folder.parent} holds a demo of other photographs",
            got=f"{first_few(others)}, which would not be there now",
            expected="the photographs that it began with",
            remedy="choose another folder with --out, or remove this one",
        )
    for path, source in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path)


def typical_class(classes: Mapping[str, Mapping[str, Any]]) -> str:
    """The class whose gain is the median one: neither the best nor the worst is shown."""
    ranked = sorted(classes, key=lambda label: classes[label]["gain"] or 0.0)
    return ranked[len(ranked) // 2]


def _restore_own(
    steps: _Steps, out: Path, model: Path, composition: str, max_side: str, seed: int
) -> dict[str, Any]:
    """Degrade the photograph of neither set and restore it."""
    folder = out / "own"
    steps.run(
        "degrade",
        *("data", "synth", out / "photos" / "own", "--test-share", "1"),
        *("--composition", composition, "--max-side", max_side, "--seed", str(seed)),
        *("--out", folder),
    )
    degraded = next((folder / "test" / composition).glob("*.png"))
    target = out / "restored" / degraded.name
    steps.run("restore", "restore", degraded, "-o", target, "--checkpoint", model, "--force")
    return {
        "composition": composition,
        "degraded": str(degraded),
        "restored": str(target),
        "clean": str(folder / "test" / "clear" / degraded.name),
    }


def _show_on_page(report: Path, restored: dict[str, Any]) -> None:
    from mmfe_restore.evaluation.report import add_photograph

    degraded, after, clean = (Path(restored[name]) for name in ("degraded", "restored", "clean"))
    add_photograph(report, degraded, after, clean)


def _tell(result: dict[str, Any]) -> None:
    """State the result plainly: the gain over the input, per composition."""
    partial = result["average"]["gain_left_out"] > 0
    rows = [
        [
            label,
            row["input_psnr"],
            row["psnr"],
            output.signed(row["gain"]),
            *([_omission(row) or "none"] if partial else []),
            f"{row['ssim_uniform']:.4f}",
            f"{row['ssim_gaussian']:.4f}",
        ]
        for label, row in (*result["classes"].items(), ("average", result["average"]))
    ]
    output.print_table(
        "Restored by the demo's fine-tuned mmfe-small, on photographs it was not trained on",
        ["composition", "input dB", "restored dB", "gain dB"]
        + (["gain leaves out"] if partial else [])
        + ["SSIM 7×7", "SSIM 11×11"],
        rows,
    )
    average = result["average"]
    calls = result["guide_calls"]
    output.print_line("")
    output.print_wrapped(
        f"The restored photographs gain {output.signed(average['gain'])} dB over their degraded "
        f"inputs on average (mean of {len(result['classes'])} class means"
        + (f"; {_omission(average)} images left out)." if _omission(average) else ").")
    )
    output.print_wrapped(
        f"Guide calls: {calls['build']} while building the cache, {calls['train']} in training, "
        f"{calls['ablation']} in the ablation."
    )
    output.print_line(f"Before and after, with error maps: {result['report']}")
    own = result["restored"]
    output.print_line(f"A photograph of neither set, with {own['composition']}: {own['degraded']}")
    output.print_line(f"The same, restored: {own['restored']}")
    output.print_line(f"Yours: mmfe restore PHOTO -o restored/ --checkpoint {result['run']}")
    output.print_line(f"{result['seconds']['total']:.0f} seconds in all.")


def _omission(row: dict[str, Any]) -> str:
    left_out = row["gain_left_out"]
    return f"{left_out} of {row['gain_images'] + left_out}" if left_out else ""
