"""The two steps of `mmfe-small`'s training set that no command of mmfe does: docs/restore.md.

    python -m benchmarks.small_training_set enlarge PHOTOS LARGER [--count 150] [--long-side 1080]
    python -m benchmarks.small_training_set join SET LARGER_SET … JOINED

`enlarge` writes photographs, drawn by seed, at CDD-11's size, so that rain, snow and noise are
also learnt at that scale; at most twice or so larger, as camera pictures are not sharp to the pixel
either. `join` makes one set of those that `mmfe data synth` wrote, with hard links.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from mmfe_cache.datasets.photographs import photographs_below
from mmfe_cache.errors import UsageError
from mmfe_cache.io import counted, write_file

MOST = 2.25
"""The largest factor: 481 pixels become 1080."""


def enlarge(photos: Path, out: Path, count: int, long_side: int, seed: int) -> int:
    """Write ``count`` photographs as big-NAME.png; returns how many there are."""
    found = photographs_below(photos)
    out.mkdir(parents=True, exist_ok=True)
    for photograph in random.Random(seed).sample(found, min(count, len(found))):
        with Image.open(photograph.path) as opened:
            image = opened.convert("RGB")
        factor = min(MOST, long_side / max(image.size))
        size = (round(image.width * factor), round(image.height * factor))
        larger = image.resize(size, Image.Resampling.LANCZOS)
        larger.save(out / f"big-{photograph.name}.png", compress_level=1)
    return len(list(out.glob("big-*.png")))


def join(parts: list[Path], out: Path) -> int:
    """Link the training halves of synthetic sets into one; returns how many pictures it has.

    Raises:
        UsageError: two of the sets have a sample of one name; nothing is written then.
    """
    records = [
        json.loads((part / "train" / "severities.json").read_text("utf-8")) for part in parts
    ]
    samples: dict[str, Any] = {}
    for part, record in zip(parts, records, strict=True):
        if twice := sorted(samples.keys() & record["samples"].keys()):
            raise UsageError(
                f"{part} has samples that a set before it has too",
                got=f"{counted(len(twice), 'name')}, such as {twice[0]}",
                remedy="make it from photographs of other names, as those of `enlarge` are",
            )
        samples |= record["samples"]
    specs = [json.loads((part / "synth.json").read_text("utf-8")) for part in parts]
    for other in specs[1:]:
        specs[0]["scenes"]["train"] |= other["scenes"]["train"]
        for name, scenes in other.get("partial", {}).get("train", {}).items():
            mine = specs[0].setdefault("partial", {}).setdefault("train", {})
            mine[name] = [*mine.get(name, []), *scenes]
    pictures = 0
    for part in parts:
        for path in sorted((part / "train").glob("*/*")):
            target = out / "train" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(path, target)
            pictures += 1
    write_file(out / "train" / "severities.json", json.dumps({**records[-1], "samples": samples}))
    write_file(out / "synth.json", json.dumps(specs[0], indent=1))
    return pictures


def main(arguments: list[str] | None = None) -> int:
    """Do one of the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    one = steps.add_parser("enlarge")
    one.add_argument("photos", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--count", type=int, default=150)
    one.add_argument("--long-side", type=int, default=1080)
    one.add_argument("--seed", type=int, default=0)
    other = steps.add_parser("join")
    other.add_argument("sets", type=Path, nargs="+")
    other.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    if options.step == "enlarge":
        made = enlarge(options.photos, options.out, options.count, options.long_side, options.seed)
        print(f"{made} photographs in {options.out}")
    else:
        try:
            made = join(options.sets, options.out)
        except UsageError as problem:
            parser.error(str(problem))
        print(f"{made} pictures in {options.out}")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
