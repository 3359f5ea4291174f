"""What windows of attention gain or cost, for choosing ``model.attention_window``: docs/restore.md.

    python -m benchmarks.restore_windows PHOTOS [--checkpoint mmfe-small] [--windows 288 384 480]
        [--tiles 320] [--limit 8] [--each 4] [--varied] [--threads 1] [--json]

PHOTOS are clean photographs that take no part in tests, such as those of the training. Each is
degraded by ``--each`` of CDD11's eleven compositions, which take turns, and restored with attention
over the whole picture, over windows and, where asked, in tiles, the guide looking at the whole
picture each time. With ``--varied`` they are drawn from wide ranges, as by `data synth
--varied-share 1`. PSNR in dB; time is that of restoring, beside that of the whole picture, by the
clock, so nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.restore_quality import Judge, images, psnr
from mmfe_cache.degradations import COMPOSITIONS, DegradationConfig, degrade
from mmfe_cache.images import read_rgb8
from mmfe_restore.inference import restore_image


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Restore everything with every choice."""
    judge = Judge(options.checkpoint, None, "32")
    config = DegradationConfig(varied_share=float(options.varied))
    choices: list[tuple[str, int | None, Any]] = [("whole", None, "off")]
    choices += [(f"{window}", window, "off") for window in options.windows]
    choices += [(f"tiles {tile}", None, tile) for tile in options.tiles]
    found: dict[str, list[list[float]]] = {}
    seconds = np.zeros(len(choices))
    turns = 0
    for path in images(options.photos, options.limit):
        clean = read_rgb8(path)
        for _ in range(options.each):
            label = COMPOSITIONS[turns % len(COMPOSITIONS)]
            turns += 1
            # By the seed of the benchmark before this one, so that figures stay comparable.
            parts = ("restore-tiles", path.stem)
            degraded = degrade(clean, label, seed_parts=parts, config=config).image
            embeddings = None if judge.guide is None else judge.guide.look(degraded)
            scores = [psnr(degraded, clean)]
            for index, (_, window, tile) in enumerate(choices):
                judge.restorer.attend_within(window)
                started = time.perf_counter()
                restored = restore_image(judge.restorer, degraded, embeddings, tile=tile)
                seconds[index] += time.perf_counter() - started
                scores.append(psnr(restored, clean))
            found.setdefault(label, []).append(scores)
        print(f"{path.name}: {clean.shape[1]}x{clean.shape[0]}", file=sys.stderr)
    flat = [scores for label in found for scores in found[label]]
    names = ["input", *(name for name, _, _ in choices)]
    return {
        "pictures": len(flat),
        "labels": {
            label: dict(zip(names, np.mean(found[label], axis=0).tolist(), strict=True))
            for label in COMPOSITIONS
            if label in found
        },
        "average": dict(zip(names, np.mean(flat, axis=0).tolist(), strict=True)),
        "time": dict(zip(names[1:], (seconds / seconds[0]).tolist(), strict=True)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each class, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--checkpoint", default="mmfe-small")
    parser.add_argument("--windows", nargs="+", type=int, default=[288, 384, 480])
    parser.add_argument("--tiles", nargs="+", type=int, default=[])
    parser.add_argument("--limit", type=int, default=8, help="photographs, evenly spread")
    parser.add_argument("--each", type=int, default=4, help="compositions of each photograph")
    parser.add_argument("--varied", action="store_true", help="weather of wide ranges")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = measure(options)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    names = list(result["average"])
    print(f"{'':16}" + "".join(f"{name:>10}" for name in names))
    for label, row in [*result["labels"].items(), ("average", result["average"])]:
        print(f"{label:16}" + "".join(f"{row[name]:10.2f}" for name in names))
    print(f"{'time':16}{'':10}" + "".join(f"{result['time'][n]:10.2f}" for n in names[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
