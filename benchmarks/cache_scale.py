"""What a cache's size costs: `python -m benchmarks.cache_scale [--json] [--samples 1000,100000]`.

Stores of small embeddings (D = 4) with 10^3, 10^5 and 10^6 samples, each read by a fresh process:
time to open, to gather 64 random samples for the first time and when every checksum was compared
before, the same from `numpy.memmap`s of the same arrays, and the memory that this takes.

Before each gather the CPU's caches are swept, as a training step sweeps them: 10^3 samples of this
width would stay in them and 10^6 would not, which tells of the CPU and not of the cache.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cache_read import VIEW, write_store
from benchmarks.peak_memory import kilobytes
from mmfe_cache.embeddings import ARRAY_NAMES, embedding_shape
from mmfe_cache.store.reader import open_cache

DIM, BATCH, ROUNDS = 4, 64, 60
SWEEP_BYTES = 640 * 2**20
"""More than the last cache of any machine this ran on."""


def timed(work: Callable[[], Any]) -> float:
    """Microseconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began)


def measure(path: str, count: int) -> dict[str, Any]:
    """Time the reader of a store of ``count`` samples; runs in a process of its own."""
    draw = np.random.default_rng(0)
    open_cache(path).gather([0], VIEW)  # Libraries are loaded by now.
    # No map of the flat arrays yet: what grows from here on is the reader's.
    anonymous, tables = kilobytes("RssAnon"), kilobytes("VmPTE")
    opened = statistics.median(timed(lambda: open_cache(path)) for _ in range(50))
    reader = open_cache(path)
    batch = draw.integers(0, count, BATCH)
    fresh = timed(lambda: reader.gather(batch, VIEW, ARRAY_NAMES, "all"))
    for start in range(0, count, 4096):
        reader.gather(np.arange(start, min(start + 4096, count)), VIEW, ARRAY_NAMES, "all")
    after = kilobytes("RssAnon"), kilobytes("VmPTE")
    flat = [
        np.memmap(f"{path}.{name}", np.float16, "r", shape=(count, *embedding_shape(name, DIM)))
        for name in ARRAY_NAMES
    ]
    for array in flat:
        array.sum(dtype=np.float32)
    ours: list[float] = []
    plain: list[float] = []
    sweep = np.zeros(SWEEP_BYTES // 8)
    for _ in range(ROUNDS):
        indices, others = draw.integers(0, count, (2, BATCH))
        sweep += 1
        ours.append(timed(lambda i=indices: reader.gather(i, VIEW, ARRAY_NAMES, "all")))
        sweep += 1
        plain.append(timed(lambda i=others: [array[i] for array in flat]))
    return {
        "samples": count,
        "shards": reader.metadata.num_shards,
        "open_us": opened,
        "find_8_ids_us": timed(
            lambda: open_cache(path).index_of(
                [f"haze/{number:08d}" for number in draw.integers(0, count, 8)]
            )
        ),
        "first_gather_us_per_sample": fresh / BATCH,
        "gather_us_per_sample": statistics.median(ours) / BATCH,
        "memmap_us_per_sample": statistics.median(plain) / BATCH,
        "private_mib": (after[0] - anonymous) / 1024,
        "page_tables_mib": (after[1] - tables) / 1024,
    }


def row(folder: Path, count: int, shard_samples: int) -> dict[str, Any]:
    """Write a store of ``count`` samples and the same values flat; read them in a new process."""
    path = folder / f"{count}.zarr"
    began = time.perf_counter()
    write_store(path, count, DIM, shard_samples)
    wrote = time.perf_counter() - began
    reader = open_cache(path)
    for name in ARRAY_NAMES:
        with Path(f"{path}.{name}").open("wb") as file:
            for start in range(0, count, 4096):
                indices = np.arange(start, min(start + 4096, count))
                part = reader.gather(indices, VIEW, (name,), "all", "never")
                getattr(part, name).numpy().tofile(file)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return {**pool.submit(measure, str(path), count).result(), "write_s": wrote}


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How the largest store's figures compare with the smallest's, and what a logarithm allows."""
    first, last = rows[0], rows[-1]
    return {
        "logarithm": math.log(last["samples"]) / math.log(first["samples"]),
        "open": last["open_us"] / first["open_us"],
        "gather": last["gather_us_per_sample"] / first["gather_us_per_sample"],
        "memmap": last["memmap_us_per_sample"] / first["memmap_us_per_sample"],
    }


def main() -> int:
    """Measure, print, and say whether growth stays below the logarithm's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--samples", default="1000,100000,1000000")
    parser.add_argument("--shard-samples", type=int, default=256)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.samples.split(","):
            rows.append(row(Path(folder), int(count), options.shard_samples))
            if not options.json:
                print("  ".join(f"{key} {value:.5g}" for key, value in rows[-1].items()))
    found = growth(rows)
    if options.json:
        print(json.dumps({"rows": rows, "growth": found}))
    else:
        print("growth  " + "  ".join(f"{key} {value:.3f}" for key, value in found.items()))
    return 0 if max(found["open"], found["gather"]) <= found["logarithm"] else 1


if __name__ == "__main__":
    sys.exit(main())
