"""Draws the contact sheets of docs/datasets.md: `python -m benchmarks.contact_sheets [--out DIR]`.

degradations.jpg shows a clear photograph and the eleven compositions, severities.jpg each kind at
severities from 0 to 1, on photographs of scikit-image's wheel. The same pixels on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageOps

from mmfe_cache.degradations import COMPOSITIONS, KINDS, degrade
from mmfe_cache.images import read_rgb8
from mmfe_cache.samples import ImageArray

PHOTOGRAPHS = ("rocket.jpg", "coffee.png", "chelsea.png", "motorcycle_left.png")
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
ON = {"low": "coffee.png", "haze": "coffee.png", "rain": "rocket.jpg", "snow": "rocket.jpg"}
"""The photograph that shows each kind best."""


def photograph(name: str, size: tuple[int, int]) -> ImageArray:
    """A bundled photograph, cut and resized to (width, height)."""
    image = Image.fromarray(read_rgb8(Path(skimage.data.__file__).parent / name))
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


def sheet(cells: Sequence[tuple[str, ImageArray]], columns: int) -> Image.Image:
    """Lay equal pictures out in rows, each with its name in the corner."""
    height, width = cells[0][1].shape[:2]
    whole = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height))
    draw = ImageDraw.Draw(whole)
    for number, (name, image) in enumerate(cells):
        left, top = number % columns * width, number // columns * height
        whole.paste(Image.fromarray(image), (left, top))
        box = draw.textbbox((left + 4, top + height - 15), name)
        draw.rectangle((left, box[1] - 3, box[2] + 6, top + height), fill="black")
        draw.text((left + 4, top + height - 15), name, fill="white")
    return whole


def compositions() -> Image.Image:
    """A clear photograph and the eleven compositions, at drawn severities."""
    cells: list[tuple[str, ImageArray]] = []
    for number, name in enumerate(("clear", *COMPOSITIONS)):
        clean = photograph(PHOTOGRAPHS[number % len(PHOTOGRAPHS)], (320, 240))
        cells.append((name, degrade(clean, name, seed_parts=("docs", number)).image))
    return sheet(cells, 4)


def severities() -> Image.Image:
    """Each kind at rising severities; the same drops throughout a row."""
    cells: list[tuple[str, ImageArray]] = []
    for kind in KINDS:
        clean = photograph(ON[kind], (256, 192))
        for value in SEVERITIES:
            done = degrade(clean, kind, seed_parts=("docs",), severities={kind: value})
            cells.append((f"{kind} {value:g}", done.image))
    return sheet(cells, len(SEVERITIES))


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, drawn in (("degradations", compositions()), ("severities", severities())):
        drawn.save(options.out / f"{name}.jpg", quality=85)
        print(options.out / f"{name}.jpg")


if __name__ == "__main__":
    main()
