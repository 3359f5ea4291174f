"""The ONNX file beside `mmfe restore`: whole commands, and arithmetic alone, on the same threads.

The photograph is restored whole by both.

python -m benchmarks.onnx_speed --json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmfe_restore import Restorer
from mmfe_restore.export import export_model
from mmfe_restore.inference import guide_for, restore_image

ROOT = Path(__file__).parents[1]

LIMIT = 1.2
"""How many times as long as `mmfe restore` the file may take."""


def command_seconds(words: list[str], threads: int) -> tuple[float, float]:
    """Wall and processor time of one command."""
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **limits})
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, busy


def least(rounds: int, *works: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
    """The least wall and processor time of each, taken in turns."""
    taken = [[work() for work in works] for _ in range(rounds)]
    return [
        (min(one[0] for one in column), min(one[1] for one in column))
        for column in zip(*taken, strict=True)
    ]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of a call."""
    started, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - busy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="720x1080", help="HEIGHTxWIDTH")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    torch.set_num_threads(given.threads)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        photo, file, out = (Path(folder) / name for name in ("in.png", "m.onnx", "out.png"))
        Image.fromarray(image).save(photo)
        restorer = Restorer.from_pretrained("mmfe-small")
        export_model(restorer, file, source="mmfe-small")
        own = [
            str(Path(sys.executable).with_name("mmfe")),
            "restore",
            str(photo),
            "-o",
            str(out),
        ]
        example = [sys.executable, str(ROOT / "examples" / "restore_onnx.py"), str(file)]
        other = [*example, str(photo), str(out), "--threads", str(given.threads)]
        commands = least(
            given.rounds,
            lambda: command_seconds([*own, "--force"], given.threads),
            lambda: command_seconds(other, given.threads),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = given.threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        guide = guide_for(restorer, device="cpu")
        assert guide is not None
        floats = (image / np.float32(255)).transpose(2, 0, 1)[None].copy()
        arithmetic = least(
            given.rounds,
            lambda: timed(lambda: restore_image(restorer, image, guide.look(image))),
            lambda: timed(lambda: session.run(None, {"image": floats})),
        )
    found = {
        "size": given.size,
        "threads": given.threads,
        "onnxruntime": onnxruntime.__version__,
        "limit": LIMIT,
        "command": _row(commands),
        "arithmetic": _row(arithmetic),
    }
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        for name in ("command", "arithmetic"):
            print(f"{name}: {found[name]}")
        print(f"limit of the ratio: {LIMIT}")


def _row(pair: list[tuple[float, float]]) -> dict[str, float]:
    (own, own_cpu), (other, other_cpu) = pair
    return {
        "mmfe_seconds": round(own, 3),
        "onnx_seconds": round(other, 3),
        "ratio": round(other / own, 3),
        "mmfe_cpu_seconds": round(own_cpu, 3),
        "onnx_cpu_seconds": round(other_cpu, 3),
        "cpu_ratio": round(other_cpu / own_cpu, 3),
    }


if __name__ == "__main__":
    main()
