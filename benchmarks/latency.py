"""Table 5c's column, and what any other guide costs beside the restorer.

    python -m benchmarks.latency [--guide NAME]... [--view VIEW] [--recipe cdd11] [--json]
    python -m benchmarks.latency --recipe small --view native --guide student.safetensors

Seconds for one 1080×720 image: the guide alone, the restorer alone, and both, for every guide
that is on this machine; then the same restorer with a cached embedding and with the null
guidance. All but both, which is the sum, are measured in turns, so that what else the machine
does falls on all alike.
What carries over between machines are ratios: to the prompt-based guide, which stands beside the
paper's, and of the guide to the restorer, of which a student is to take 3 % at most.
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

import torch

from benchmarks.cache_support import Pattern
from mmfe_cache import load_guide, open_cache
from mmfe_cache.errors import MmfeError
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import PixelSource, Sample, SampleSet
from mmfe_cache.views import View
from mmfe_restore.data.dataset import HeldSource
from mmfe_restore.evaluation.published import published_table
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import Recipe, load_recipe

PROMPT_BASED = "prompt"
REPORTED = {
    row.recipe.split("/")[1]: row.latency for row in published_table("table5c").rows if row.recipe
}
LIMIT_CACHED = 1.10
"""What reading an embedding may cost, beside the restorer alone."""

LIMIT_STUDENT = 0.03
"""A student's time beside the restorer's."""


def in_turns(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each work, after one round to warm up."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def recipe_for(base: str, guide: str, overrides: Sequence[str]) -> Recipe:
    """The full model with this guide's width, able to run without a guide as well."""
    found = load_recipe(base, [f"guide={guide}", *overrides])
    return replace(found, model=replace(found.model, guidance_dropout=0.1))


def measure(name: str, options: argparse.Namespace, picture: PixelSource) -> dict[str, Any] | None:
    """One row; None where the guide is not on this machine."""
    try:
        guide = load_guide(name)
    except MmfeError as problem:
        print(f"{name}: not here ({problem.problem})", file=sys.stderr)
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = recipe_for(options.recipe, name, options.overrides)
    restorer = Restorer.from_recipe(recipe).eval().to(device)
    image = torch.from_numpy(picture.read()).permute(2, 0, 1)[None].to(device) / 255.0
    seen = View.parse(options.view)

    def encode() -> Any:
        return guide.encode([seen.render(picture.read())]).select("grid")

    embeddings = encode().to(device)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        sample = Sample("one/1", picture, None, "one", "1")
        samples = SampleSet("latency", "test", Path(folder), "one image", (sample,))
        store = Path(folder) / "cache.zarr"
        build_cache(samples, guide, [options.view], store)
        cache = open_cache(store)
        found = in_turns(
            {
                "guide": encode,
                "restorer": lambda: restorer(image, embeddings),
                "cached": lambda: restorer(image, cache.gather([0], options.view).to(device)),
                "null": lambda: restorer(image, None),
            },
            options.repeats,
        )
    share = found["guide"] / found["restorer"]
    student = guide.describe()["kind"] == "student"
    return {
        "guide": guide.name,
        "kind": guide.describe()["kind"],
        **{f"{part}_seconds": value for part, value in found.items()},
        "guide_share": share,
        "limit_guide_share": LIMIT_STUDENT if student else None,
        "total_seconds": found["guide"] + found["restorer"],
        "cached_ratio": found["cached"] / found["restorer"],
        "published_seconds": REPORTED.get(name),
    }


def judge(rows: list[dict[str, Any]]) -> bool:
    """Add each row's ratio to the prompt-based guide; whether all limits hold."""
    base = next((row["total_seconds"] for row in rows if row["guide"] == PROMPT_BASED), None)
    for row in rows:
        row["ratio"] = None if base is None else row["total_seconds"] / base
        printed = row["published_seconds"]
        row["published_ratio"] = None if printed is None else printed / REPORTED[PROMPT_BASED]
    return all(
        row["cached_ratio"] <= LIMIT_CACHED
        and (row["limit_guide_share"] is None or row["guide_share"] <= row["limit_guide_share"])
        for row in rows
    )


def main() -> int:
    """Measure, print, and judge: a cached embedding and a student must cost next to nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--guide", action="append", help="several times; all of Table 5c")
    parser.add_argument("--recipe", default="cdd11")
    parser.add_argument("--view", default="whole@224", help="what the guide is shown")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--size", default="1080x720", help="WIDTHxHEIGHT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    picture = HeldSource(Pattern(0, height, width))
    names = options.guide or list(REPORTED)
    rows = [row for name in names if (row := measure(name, options, picture))]
    kept = judge(rows)
    result = {
        "size": options.size,
        "recipe": options.recipe,
        "view": options.view,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "limit_cached_ratio": LIMIT_CACHED,
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
    print(
        f"one {result['size']} image on {result['device']}, {result['threads']} threads, recipe "
        f"{result['recipe']}, the guide sees {result['view']}; seconds"
    )
    print(
        f"{'guide':<32}{'guide':>8}{'restorer':>10}{'share':>8}{'total':>8}{'ratio':>8}{'paper':>8}"
        f"{'cached':>9}{'null':>8}{'cached/restorer':>17}"
    )
    for row in result["rows"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        paper = "–" if row["published_ratio"] is None else f"{row['published_ratio']:.2f}"
        limit = row["limit_guide_share"]
        print(
            f"{row['guide']:<32}{row['guide_seconds']:>8.3f}{row['restorer_seconds']:>10.3f}"
            f"{row['guide_share']:>8.1%}{row['total_seconds']:>8.3f}{ratio:>8}{paper:>8}"
            f"{row['cached_seconds']:>9.3f}{row['null_seconds']:>8.3f}{row['cached_ratio']:>10.2f} "
            f"(≤ {result['limit_cached_ratio']:.2f})"
            f"{'' if limit is None else f', a student: share ≤ {limit:.0%}'}"
        )


if __name__ == "__main__":
    sys.exit(main())
