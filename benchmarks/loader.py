"""How fast training data comes: pairs per second, and the share of a step spent waiting for it.

Makes a CDD11-shaped set of random photographs in CDD11's size, then times the very iterator that
training uses, for files on disk, packs with and without compression, pictures held in memory, and
the same photographs under weather that is made while reading.

    python -m benchmarks.loader [--json] [--seconds 5] [--resolution 128] [--workers 0 2]

Limits, with two workers on two cores: 1,500 pairs a second from a plain pack, 1,000 from a
compressed one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.images import write_png
from mmfe_cache.packing import open_pack, pack
from mmfe_cache.samples import Sample
from mmfe_restore.data import Schedule, TrainingBatches, hold_in_memory
from mmfe_restore.recipes import load_recipe

BATCH = 64
CLASSES = ("low", "haze_rain")
LIMITS = {"packed": 1500.0, "compressed": 1000.0}
"""Least pairs a second with two workers."""


def photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write ``count`` smooth random pictures with fine grain: PNGs of a photograph's size."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = random.integers(0, 256, (size[0] // 40 + 1, size[1] // 40 + 1, 3))
        smooth = np.kron(coarse, np.ones((40, 40, 1)))[: size[0], : size[1]]
        grain = random.normal(0, 4, smooth.shape)
        write_png(folder / f"{number}.png", np.clip(smooth + grain, 0, 255).astype(np.uint8))
    return folder


def rate(
    samples: Sequence[Sample], resolution: int, workers: int, seconds: float
) -> dict[str, float]:
    """Pairs a second through `TrainingBatches`, after one batch of warming up."""
    overrides = [
        *("guide=scene", "model.encoder_guidance=none", "model.decoder_guidance=none"),
        *("model.experts=none", 'data.repeats={"*": 1000}'),
        f"train.stages=[{{epochs: 100, resolution: {resolution}, batch_size: {BATCH}}}]",
    ]
    recipe = load_recipe("cdd11", overrides)
    schedule = Schedule(recipe, samples)
    batches = iter(TrainingBatches(recipe, samples, schedule, None, num_workers=workers))
    next(batches)
    pairs, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        pairs += len(next(batches))
    elapsed = time.perf_counter() - started
    return {"pairs_per_second": pairs / elapsed, "batch_ms": 1000 * elapsed / (pairs / BATCH)}


def main() -> int:
    """Parse, measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1080))
    parser.add_argument("--workers", type=int, nargs="*", default=(0, 2))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        photos = photographs(root / "photos", arguments.scenes, tuple(arguments.size))
        write_synth(photos, root / "set", compositions=CLASSES, test_share=0.2)
        files = load_dataset("cdd11", "train", root / "set")
        sources: dict[str, Sequence[Sample]] = {"files": files.samples}
        held = hold_in_memory(files.samples)
        if held is not None:
            sources["memory"] = held
        for kind in LIMITS:
            report = pack(files, root / f"{kind}.h5", kind == "compressed")
            sources[kind] = open_pack(report.path).samples(root / "set").samples
        weather = load_dataset("synth", "train", photos).samples
        sources["weather"] = [sample for sample in weather if sample.label in CLASSES]
        for kind, samples in sources.items():
            for workers in arguments.workers:
                measured = rate(samples, arguments.resolution, workers, arguments.seconds)
                rows.append({"source": kind, "workers": workers, **measured})
    holds = all(
        row["pairs_per_second"] >= LIMITS[row["source"]]
        for row in rows
        if row["workers"] == 2 and row["source"] in LIMITS
    )
    if arguments.json:
        result = {"resolution": arguments.resolution, "batch": BATCH, "limits": LIMITS}
        print(json.dumps(result | {"rows": rows, "holds": holds}))
        return 0 if holds else 1
    print(f"crops of {arguments.resolution}², pairs of pictures of {arguments.size} pixels")
    print(f"{'source':10} {'workers':>7} {'pairs/s':>9} {'ms a batch of 64':>17}")
    for row in rows:
        print(
            f"{row['source']:10} {row['workers']:7} {row['pairs_per_second']:9.0f} "
            f"{row['batch_ms']:17.1f}"
        )
    print(
        f"limits with two workers: packed {LIMITS['packed']:g}, compressed "
        f"{LIMITS['compressed']:g} pairs a second: {'hold' if holds else 'FAIL'}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
