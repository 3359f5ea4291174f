"""What a cache's size costs: `python -m benchmarks.cache_scale [--json] [--samples 1000,100000]`.

Stores of small embeddings (D = 4) with 10^3, 10^5 and 10^6 samples: time to open, to find ids,
to gather 64 random samples for the first time and again, and the memory that this takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.cache_read import VIEW, write_store
from mmfe_cache.store.reader import open_cache


def measure(folder: Path, count: int, shard_samples: int) -> dict[str, Any]:
    """Build a store of ``count`` samples and time its reader."""
    path = folder / f"{count}.zarr"
    write_store(path, count, 4, shard_samples)
    process = psutil.Process()
    before = process.memory_info().rss
    opened: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        reader = open_cache(path)
        opened.append(time.perf_counter() - began)
    reader = open_cache(path)
    draw = np.random.default_rng(0)
    began = time.perf_counter()
    reader.index_of([f"haze/{number:08d}" for number in draw.integers(0, count, 8)])
    found = time.perf_counter() - began
    began = time.perf_counter()
    reader.gather(draw.integers(0, count, 64), VIEW)
    first = time.perf_counter() - began
    for _ in range(20):
        reader.gather(draw.integers(0, count, 4096), VIEW)
    again: list[float] = []
    for _ in range(200):
        indices = draw.integers(0, count, 64)
        began = time.perf_counter()
        reader.gather(indices, VIEW)
        again.append(time.perf_counter() - began)
    return {
        "samples": count,
        "open_ms": 1e3 * statistics.median(opened),
        "find_8_ids_ms": 1e3 * found,
        "gather_first_ms": 1e3 * first,
        "gather_ms": 1e3 * statistics.median(again),
        "memory_mib": (process.memory_info().rss - before) / 2**20,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--samples", default="1000,100000,1000000")
    parser.add_argument("--shard-samples", type=int, default=4096)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.samples.split(","):
            rows.append(measure(Path(folder), int(count), options.shard_samples))
            if not options.json:
                print("  ".join(f"{key} {value:.3f}" for key, value in rows[-1].items()))
    if options.json:
        print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
