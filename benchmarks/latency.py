"""Table 5c's column: `python -m benchmarks.latency [--guide NAME]... [--json]`.

Seconds for one 1080×720 image: the guide alone, the restorer alone, and both, for every guide
that is on this machine; then the same restorer with a cached embedding and with the null
guidance. What carries over between machines is the ratio to the prompt-based guide, which stands
beside the paper's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfe_cache import load_guide, open_cache
from mmfe_cache.errors import MmfeError
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.views import View
from mmfe_restore.evaluation.published import published_table
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import Recipe, load_recipe

PROMPT_BASED = "scene"
REPORTED = {
    row.recipe.split("/")[1]: row.latency for row in published_table("table5c").rows if row.recipe
}
VIEW = "whole@224"


class Picture:
    """One random image as a pixel source."""

    name = "random"

    def __init__(self, height: int, width: int) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._pixels.shape[0], self._pixels.shape[1]

    def read(self) -> np.ndarray:
        """The image."""
        return self._pixels

    def read_crop(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A window of it."""
        return self._pixels[top : top + height, left : left + width]


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """The median of ``repeats`` runs after one to warm up."""
    work()
    found = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def recipe_for(base: str, guide: str, overrides: Sequence[str]) -> Recipe:
    """The full model with this guide's width, able to run without a guide as well."""
    found = load_recipe(base, [f"guide={guide}", *overrides])
    return replace(found, model=replace(found.model, guidance_dropout=0.1))


def measure(
    name: str, base: str, overrides: Sequence[str], picture: Picture, repeats: int
) -> dict[str, Any] | None:
    """One row; None where the guide is not on this machine."""
    try:
        guide = load_guide(name)
    except MmfeError as problem:
        print(f"{name}: not here ({problem.problem})", file=sys.stderr)
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restorer = Restorer.from_recipe(recipe_for(base, name, overrides)).eval().to(device)
    image = torch.from_numpy(picture.read()).permute(2, 0, 1)[None].to(device) / 255.0
    seen = View.parse(VIEW)

    def encode() -> Any:
        return guide.encode([seen.render(picture.read())]).select("grid")

    embeddings = encode().to(device)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        sample = Sample("one/1", picture, None, "one", "1")
        samples = SampleSet("latency", "test", Path(folder), "one image", (sample,))
        store = Path(folder) / "cache.zarr"
        build_cache(samples, guide, [VIEW], store)
        cache = open_cache(store)

        def cached() -> Any:
            return restorer(image, cache.gather([0], VIEW).to(device))

        alone = seconds(lambda: restorer(image, embeddings), repeats)
        row = {
            "guide": name,
            "guide_seconds": seconds(encode, repeats),
            "restorer_seconds": alone,
            "cached_seconds": seconds(cached, repeats),
            "null_seconds": seconds(lambda: restorer(image, None), repeats),
        }
    row["total_seconds"] = row["guide_seconds"] + alone
    row["published_seconds"] = REPORTED.get(name)
    return row


def main() -> int:
    """Measure, print, and judge: a cached embedding must cost next to nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guide", action="append", help="several times; all of Table 5c")
    parser.add_argument("--recipe", default="cdd11")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--size", default="1080x720", help="WIDTHxHEIGHT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    names = options.guide or list(REPORTED)
    picture = Picture(height, width)
    rows = [
        row
        for name in names
        if (row := measure(name, options.recipe, options.overrides, picture, options.repeats))
    ]
    base = next((row["total_seconds"] for row in rows if row["guide"] == PROMPT_BASED), None)
    for row in rows:
        row["ratio"] = None if base is None else row["total_seconds"] / base
        printed = row["published_seconds"]
        row["published_ratio"] = None if printed is None else printed / REPORTED[PROMPT_BASED]
        row["cached_ratio"] = row["cached_seconds"] / row["restorer_seconds"]
    limit = 1.10
    kept = all(row["cached_ratio"] <= limit for row in rows)
    result = {
        "size": options.size,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "limit_cached_ratio": limit,
        "within_limits": kept,
        "rows": rows,
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0 if kept else 1


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"one {result['size']} image on {result['device']}, {result['threads']} threads; seconds")
    print(
        f"{'guide':<16}{'guide':>8}{'restorer':>10}{'total':>8}{'ratio':>8}{'paper':>8}"
        f"{'cached':>9}{'null':>8}{'cached/restorer':>17}"
    )
    for row in result["rows"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        paper = "–" if row["published_ratio"] is None else f"{row['published_ratio']:.2f}"
        print(
            f"{row['guide']:<16}{row['guide_seconds']:>8.3f}{row['restorer_seconds']:>10.3f}"
            f"{row['total_seconds']:>8.3f}{ratio:>8}{paper:>8}{row['cached_seconds']:>9.3f}"
            f"{row['null_seconds']:>8.3f}{row['cached_ratio']:>10.2f} "
            f"(≤ {result['limit_cached_ratio']:.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
