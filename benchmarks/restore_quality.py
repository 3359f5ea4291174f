"""How well a network restores photographs that took no part in its training: docs/restore.md.

    python -m benchmarks.restore_quality FOLDER [--checkpoint mmfe-small] [--only cbsd68 ...]
        [--limit N] [--window auto|off|SIDE] [--sheets DIR] [--json]

FOLDER holds any of these; a part whose folders are missing is left out:

    cbsd68                                CBSD68's clean photographs, degraded procedurally
    cdd11-scenes/{clear,depth}            scenes of CDD-11's test split, with depth maps
    rain-streaks                          streak renderings; the last 30 by name are used
    cdd11-samples                         official degraded pictures CLASS_SCENE_NN_lq.png
    rain100l/test/{rain,norain}           Rain100L; scenes that bsd400/ shows are left out
    bsd400/{train,test}                   what was trained on, to find those scenes
    lol-v1/eval15/{low,high}              LOL-v1
    real/*                                photographs without ground truth, for --sheets

The part `partial` degrades CBSD68 by two kinds, takes one of them away (`mmfe restore --only`),
and scores against the picture that has the other alone.

The guide sees each picture at the network's evaluation view. PSNR in dB: of RGB, but of luma for
Rain100L (as its papers have it). A gain is the mean of each picture's difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmfe_cache.datasets.leaks import find_leaks, fingerprints
from mmfe_cache.degradations import (
    COMPOSITIONS,
    DegradationConfig,
    degrade,
    kinds_of,
    partial_classes,
    split_class,
)
from mmfe_cache.images import FileSource, read_rgb8
from mmfe_cache.samples import ImageArray
from mmfe_cli.choices import window_from
from mmfe_restore import Restorer
from mmfe_restore.inference import guide_for, restore_image
from mmfe_restore.metrics.base import luma as to_luma
from mmfe_restore.metrics.psnr_ssim import psnr_per_image
from mmfe_restore.model.folders import model_folder

UNSEEN_MASKS = 30
"""Of the streak renderings, those at the end by name were never trained on."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Trial:
    """One picture to restore: its class, what the network sees, the answer, and how it is scored.

    With ``only``, these degradations alone are to be taken away.
    """

    label: str
    name: str
    degraded: ImageArray
    clean: ImageArray
    luma: bool = False
    only: tuple[str, ...] | None = None


def images(folder: Path, limit: int | None = None) -> list[Path]:
    """The pictures of a folder by name; with a limit, evenly spread ones."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if limit is None or limit >= len(found):
        return found
    return [found[int(k)] for k in np.linspace(0, len(found) - 1, limit)]


def cbsd68(data: Path, limit: int | None) -> Iterator[Trial]:
    """The eleven compositions of CBSD68, by the procedural model that nothing else changes."""
    for path in images(data / "cbsd68", limit):
        clean = read_rgb8(path)
        for composition in COMPOSITIONS:
            made = degrade(clean, composition, seed_parts=("restore-quality", path.stem))
            yield Trial(composition, path.stem, made.image, clean)


def partial(data: Path, limit: int | None) -> Iterator[Trial]:
    """CBSD68 under two degradations, of which one is to be taken away and the other to stay."""
    pairs = [name for name in COMPOSITIONS if len(kinds_of(name)) == 2]
    for path in images(data / "cbsd68", limit):
        clean = read_rgb8(path)
        for label in (label for name in pairs for label in partial_classes(name)):
            composition, wanted = split_class(label)
            assert wanted is not None
            parts = ("restore-quality", path.stem)
            made = degrade(clean, composition, seed_parts=parts)
            stay = [kind for kind in kinds_of(composition) if kind not in wanted]
            target = degrade(clean, composition, seed_parts=parts, keep=stay)
            yield Trial(label, path.stem, made.image, target.image, only=wanted)


def cdd11_scenes(data: Path, limit: int | None) -> Iterator[Trial]:
    """Eleven compositions of real scenes with real depth and unseen streaks; snow is procedural."""
    masks = tuple(images(data / "rain-streaks")[-UNSEEN_MASKS:])
    depth = {path.stem: path for path in images(data / "cdd11-scenes" / "depth")}
    config = DegradationConfig(rain_masks=masks, depth=depth)
    for path in images(data / "cdd11-scenes" / "clear", limit):
        clean = read_rgb8(path)
        for composition in COMPOSITIONS:
            parts = ("restore-quality", path.stem)
            made = degrade(
                clean, composition, seed_parts=parts, config=config, photograph=path.stem
            )
            yield Trial(composition, path.stem, made.image, clean)


def official(data: Path, limit: int | None) -> Iterator[Trial]:
    """CDD-11's own degraded pictures, with their clean sides."""
    del limit
    for path in images(data / "cdd11-samples"):
        *composition, scene, _, _ = path.stem.split("_")
        clean = data / "cdd11-scenes" / "clear" / f"{scene}.webp"
        yield Trial("_".join(composition), scene, read_rgb8(path), read_rgb8(clean))


def clear(data: Path, limit: int | None) -> Iterator[Trial]:
    """Photographs to which nothing was done, against themselves."""
    for label, folder in (("cbsd68", "cbsd68"), ("cdd11-scenes", "cdd11-scenes/clear")):
        if (data / folder).is_dir():
            for path in images(data / folder, limit):
                photograph = read_rgb8(path)
                yield Trial(label, path.stem, photograph, photograph)


def rain100l(data: Path, limit: int | None) -> Iterator[Trial]:
    """Rain100L's test pictures whose scenes lie in no photograph of BSD400."""
    folder = data / "rain100l" / "test"
    answers = images(folder / "norain")
    seen = [FileSource(p) for part in ("train", "test") for p in images(data / "bsd400" / part)]
    leaks = find_leaks(fingerprints(seen), fingerprints([FileSource(p) for p in answers]))
    leaked = {Path(leak.test).name for leak in leaks}
    unseen = [path for path in answers if path.name not in leaked]
    for path in unseen[: limit or len(unseen)]:
        rainy = read_rgb8(folder / "rain" / path.name)
        yield Trial("rain", path.stem, rainy, read_rgb8(path), luma=True)


def lol(data: Path, limit: int | None) -> Iterator[Trial]:
    """LOL-v1's eval15."""
    folder = data / "lol-v1" / "eval15"
    for path in images(folder / "low", limit):
        yield Trial("low", path.stem, read_rgb8(path), read_rgb8(folder / "high" / path.name))


PARTS = {
    "cbsd68": (cbsd68, ("cbsd68",)),
    "cdd11-scenes": (cdd11_scenes, ("cdd11-scenes", "rain-streaks")),
    "official": (official, ("cdd11-samples", "cdd11-scenes")),
    "clear": (clear, ("cbsd68",)),
    "partial": (partial, ("cbsd68",)),
    "rain100l": (rain100l, ("rain100l/test", "bsd400/train", "bsd400/test")),
    "lol": (lol, ("lol-v1/eval15",)),
}
"""Each part's pictures, and the folders that it needs."""


def psnr(image: ImageArray, clean: ImageArray, *, luma: bool = False) -> float:
    """PSNR in dB of two (H, W, 3) uint8 pictures; infinite for equal ones."""
    first, second = (
        torch.from_numpy(np.array(one)).permute(2, 0, 1)[None].double() / 255
        for one in (image, clean)
    )
    if luma:
        first, second = to_luma(first), to_luma(second)
    return float(psnr_per_image(first, second))


class Judge:
    """Restores trials with one network and its guide, and draws what is asked for."""

    def __init__(
        self, checkpoint: str, sheets: Path | None, precision: str, window: str = "auto"
    ) -> None:
        self.restorer = Restorer.from_pretrained(model_folder(checkpoint))
        attended = window_from(window)
        if attended != "auto":
            self.restorer.attend_within(attended)
        self.guide = guide_for(self.restorer)
        self.sheets = sheets
        self.precision: Any = precision

    def restore(self, image: ImageArray, only: tuple[str, ...] | None = None) -> ImageArray:
        """One picture, as `mmfe restore` restores it."""
        embeddings = None if self.guide is None else self.guide.look(image, only)
        return restore_image(self.restorer, image, embeddings, precision=self.precision)

    def score(self, trials: Iterator[Trial], part: str, columns: int = 4) -> dict[str, Any]:
        """Score a part: for every label the input, the result and the gain; the worst picture."""
        found: dict[str, list[tuple[float, float]]] = {}
        worst = (float("inf"), "")
        shown: dict[str, list[ImageArray]] = {}
        for trial in trials:
            restored = self.restore(trial.degraded, trial.only)
            before = psnr(trial.degraded, trial.clean, luma=trial.luma)
            after = psnr(restored, trial.clean, luma=trial.luma)
            found.setdefault(trial.label, []).append((before, after))
            worst = min(worst, (after, f"{trial.label}/{trial.name}"))
            cells = shown.setdefault(trial.label, [])
            if self.sheets is not None and len(cells) < columns:
                cells += [trial.degraded, restored, trial.clean]
        if self.sheets is not None and shown:
            draw_sheet(list(shown.values()), self.sheets / f"{part}.png")
        labels = {
            label: {
                "pictures": len(pairs),
                "input": float(np.mean([before for before, _ in pairs])),
                "restored": float(np.mean([after for _, after in pairs])),
                "gain": None
                if any(np.isinf(before) for before, _ in pairs)
                else float(np.mean([after - before for before, after in pairs])),
            }
            for label, pairs in found.items()
        }
        gains = [one["gain"] for one in labels.values() if one["gain"] is not None]
        return {
            "labels": labels,
            "input": float(np.mean([one["input"] for one in labels.values()])),
            "restored": float(np.mean([one["restored"] for one in labels.values()])),
            "mean_gain": float(np.mean(gains)) if gains else None,
            "least_gain": min(gains) if gains else None,
            "worst": {"restored": worst[0], "picture": worst[1]},
        }


def draw_sheet(rows: list[list[ImageArray]], path: Path, side: int = 360) -> None:
    """Rows of pictures, each shrunk to ``side`` pixels of width."""
    cells = [
        [Image.fromarray(i).resize((side, round(side * i.shape[0] / i.shape[1]))) for i in row]
        for row in rows
    ]
    heights = [max(cell.height for cell in row) for row in cells]
    sheet = Image.new("RGB", (side * max(map(len, cells)), sum(heights)))
    for index, row in enumerate(cells):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * side, sum(heights[:index])))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each label of each part, or one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default="mmfe-small")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "real"])
    parser.add_argument("--limit", type=int, help="photographs of each part")
    parser.add_argument("--precision", default="32", choices=("32", "bf16"))
    parser.add_argument("--window", default="auto", help="as of mmfe restore")
    parser.add_argument(
        "--sheets", type=Path, help="folder of before, after and truth side by side"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    judge = Judge(options.checkpoint, options.sheets, options.precision, options.window)
    results: dict[str, Any] = {}
    for name, (make, needs) in PARTS.items():
        missing = [need for need in needs if not (options.folder / need).is_dir()]
        if missing or (options.only and name not in options.only):
            continue
        results[name] = judge.score(make(options.folder, options.limit), name)
        if not options.json:
            show(name, results[name])
    if options.sheets is not None and (not options.only or "real" in options.only):
        for folder in sorted((options.folder / "real").glob("*/")):
            pictures = [read_rgb8(path) for path in images(folder, options.limit)]
            rows = [[p, judge.restore(p)] for p in pictures]
            flat = [cell for row in rows for cell in row]
            draw_sheet(
                [flat[k : k + 6] for k in range(0, len(flat), 6)],
                options.sheets / f"{folder.name}.png",
            )
    if options.json:
        window = judge.restorer.config.attention_window
        found = {"checkpoint": options.checkpoint, "attention_window": window, "parts": results}
        print(json.dumps(found, indent=2))
    return 0


def show(name: str, result: dict[str, Any]) -> None:
    """Print one part."""
    for label, one in result["labels"].items():
        gain = "" if one["gain"] is None else f"  gain {one['gain']:+6.2f}"
        print(
            f"{name:13} {label:20} {one['pictures']:4} pictures  input {one['input']:6.2f}  "
            f"restored {one['restored']:6.2f}{gain}"
        )
    mean = "" if result["mean_gain"] is None else f"  gain {result['mean_gain']:+6.2f}"
    least = "" if result["least_gain"] is None else f"  least {result['least_gain']:+6.2f}"
    worst = result["worst"]
    print(
        f"{name:13} {'average':20} restored {result['restored']:6.2f}{mean}{least}  worst picture "
        f"{worst['restored']:.2f} ({worst['picture']})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
