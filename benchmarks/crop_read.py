"""How fast random crops are read: `python -m benchmarks.crop_read [--json]`.

Crops of 128x128 from 1080x720 pictures (photographs of scikit-image's wheel under CDD11's
degradations), everything in the page cache: decoding the PNG and cropping, a plain memory map of
the raw pixels (the floor), and packs with and without compression, interleaved in one run. Then
the training loader: pairs a second with two workers, crops, flips and rotations included. Bytes are
compared with the PNGs' at Pillow's default level, 6.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from torch.utils.data import DataLoader

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.images import read_rgb8
from mmfe_cache.packing import open_pack, pack
from mmfe_cache.packing.codec import LEVEL, split_tiles
from mmfe_cache.samples import ImageArray, PixelSource, Sample
from mmfe_restore.data.dataset import TrainingPairs, collate_pairs
from mmfe_restore.data.sampler import Draw

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
SIDE, HEIGHT, WIDTH = 128, 720, 1080
COMPOSITIONS = ("low", "haze", "rain", "low_haze_snow")
LIMITS = {"speedup": 20.0, "pairs_raw": 1500.0, "pairs_compressed": 1000.0, "ratio": 1.3}
"""Least speedup over PNG and pairs a second; most bytes of a compressed pack over the PNGs'."""


def make_set(folder: Path, count: int) -> tuple[Sample, ...]:
    """A made training set of ``count`` scenes of 1080x720."""
    carried = Path(skimage.data.__file__).parent
    photos = folder / "photos"
    photos.mkdir()
    chosen = [carried / name for name in PHOTOGRAPHS]
    for number in range(count):
        image = Image.fromarray(read_rgb8(chosen[number % len(chosen)]))
        if number >= len(chosen):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(photos / f"{number}.png")
    write_synth(photos, folder / "set", test_share=0, compositions=COMPOSITIONS)
    return load_dataset("cdd11", "train", folder / "set").samples


def recompress(samples: Sequence[Sample]) -> None:
    """Save the PNGs as other programs do, so that their bytes are no strawman."""
    paths = {source.name for s in samples for source in (s.degraded, s.clean) if source}
    for path in paths:
        Image.fromarray(read_rgb8(path)).save(path, "PNG", compress_level=6)


def memory_maps(folder: Path, samples: Sequence[Sample]) -> list[np.memmap]:
    """The raw pixels of every degraded picture, one plain file each."""
    maps: list[np.memmap] = []
    for number, sample in enumerate(samples):
        image = sample.degraded.read()
        image.tofile(folder / f"{number}.raw")
        maps.append(np.memmap(folder / f"{number}.raw", np.uint8, "r", shape=image.shape))
    return maps


def deflated_ratio(samples: Sequence[Sample]) -> float:
    """Bytes of the degraded pictures' tiles deflated as they are, over their PNGs' bytes."""
    tiles = pngs = 0
    for sample in samples:
        pngs += Path(sample.degraded.name).stat().st_size
        for tile in split_tiles(sample.degraded.read()):
            tiles += len(zlib.compress(tile.tobytes(), LEVEL))
    return tiles / pngs


def reader(sources: Sequence[PixelSource]) -> Callable[[int, int, int], ImageArray]:
    """Cuts one crop of one picture."""
    return lambda n, top, left: sources[n].read_crop(top, left, SIDE, SIDE)


def measure(
    ways: dict[str, Callable[[int, int, int], ImageArray]], pictures: int, rounds: int
) -> dict[str, float]:
    """Median microseconds of each way; the same crops for all, in turns, and equal pixels."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        where = (
            int(rng.integers(pictures)),
            int(rng.integers(HEIGHT - SIDE + 1)),
            int(rng.integers(WIDTH - SIDE + 1)),
        )
        seen: dict[str, ImageArray] = {}
        for name, way in ways.items():
            if name == "png" and number % 10:
                continue
            began = time.perf_counter()
            seen[name] = way(*where)
            times[name].append(1e6 * (time.perf_counter() - began))
        first = next(iter(seen.values()))
        if not all(np.array_equal(first, other) for other in seen.values()):
            raise SystemExit(f"the ways disagree about crop {where}")
    return {name: statistics.median(values) for name, values in times.items()}


class Draws:
    """Batches of random draws, as training's sampler gives them."""

    def __init__(self, samples: int, batches: int, size: int) -> None:
        rng = np.random.default_rng(1)
        self._draws = [
            [Draw(int(rng.integers(samples)), batch, 0, SIDE) for _ in range(size)]
            for batch in range(batches)
        ]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._draws)

    def __len__(self) -> int:
        return len(self._draws)


def pairs_per_second(samples: Sequence[Sample], batches: int, workers: int) -> float:
    """What the training loader gives: crops, the eight flips and rotations, collation."""
    loader = DataLoader(
        TrainingPairs(samples, seed=0, augment=True),
        batch_sampler=Draws(len(samples), batches + 16, 64),  # pyright: ignore[reportArgumentType]
        collate_fn=collate_pairs,
        num_workers=workers,
        prefetch_factor=4,
    )
    began, counted = 0.0, 0
    for number, (degraded, _) in enumerate(loader):
        if number == 15:
            # The workers' start and what they had fetched by then do not count.
            began = time.perf_counter()
        elif number > 15:
            counted += len(degraded)
    return counted / (time.perf_counter() - began)


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--scenes", type=int, default=16, help="photographs")
    parser.add_argument("--rounds", type=int, default=2000, help="crops of each way")
    parser.add_argument("--batches", type=int, default=100, help="batches of 64 pairs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        recompress(make_set(folder, options.scenes))
        files = load_dataset("cdd11", "train", folder / "set", packed=False)
        reports = {
            kind: pack(files, folder / f"{kind}.h5", kind == "compressed")
            for kind in ("raw", "compressed")
        }
        packed = {
            kind: open_pack(report.path).samples(files.root).samples
            for kind, report in reports.items()
        }
        maps = memory_maps(folder, files.samples)
        ways = {
            "memmap": lambda n, t, c: maps[n][t : t + SIDE, c : c + SIDE].copy(),
            "raw": reader([sample.degraded for sample in packed["raw"]]),
            "compressed": reader([sample.degraded for sample in packed["compressed"]]),
            "png": reader([sample.degraded for sample in files.samples]),
        }
        measure(ways, len(files), 100)
        found = measure(ways, len(files), options.rounds)
        pairs = {
            kind: pairs_per_second(samples, options.batches, options.workers)
            for kind, samples in packed.items()
        }
        without = deflated_ratio(files.samples[:: max(1, len(files) // 16)])
        pairs["png"] = pairs_per_second(files.samples, 4, options.workers)
    result = {f"{name}_us": value for name, value in found.items()}
    result |= {f"pairs_per_second_{name}": value for name, value in pairs.items()}
    result |= {
        "speedup_raw": found["png"] / found["raw"],
        "speedup_compressed": found["png"] / found["compressed"],
        "times_memmap": found["raw"] / found["memmap"],
        "bytes_ratio_raw": reports["raw"].to_json()["ratio"],
        "bytes_ratio_compressed": reports["compressed"].to_json()["ratio"],
        "bytes_ratio_without_differences": without,
    }
    holds = (
        min(result["speedup_raw"], result["speedup_compressed"]) >= LIMITS["speedup"]
        and pairs["raw"] >= LIMITS["pairs_raw"]
        and pairs["compressed"] >= LIMITS["pairs_compressed"]
        and result["bytes_ratio_compressed"] <= LIMITS["ratio"]
    )
    if options.json:
        print(json.dumps({**result, "limits": LIMITS, "holds": holds}))
    else:
        for key, value in result.items():
            print(f"{key:30s} {value:10.2f}")
        print(
            f"limits: speedups at least {LIMITS['speedup']:g}, pairs a second at least "
            f"{LIMITS['pairs_raw']:g} and {LIMITS['pairs_compressed']:g} (compressed), "
            f"bytes_ratio_compressed at most {LIMITS['ratio']:g}: {'hold' if holds else 'FAIL'}"
        )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
