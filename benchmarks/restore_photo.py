"""How long one photograph takes, from the start of the process and without it.

    python -m benchmarks.restore_photo [--checkpoint mmfe-small] [--recipe NAME] [--threads 2]
        [--json]

Restores one photograph of 1080×720 and one of 12 megapixels (4000×3000), each in a process of its
own. ``start_s`` is the time from the start of `mmfe restore` to its first output, ``photo_s`` that
of restoring alone once the process is warm (``cpu_s``: what the processor spent on it, all threads
together, which means something on a busy machine too), and ``peak_mb`` the most memory that the
process had, torch and weights included. Beside it at 1080×720: the same network eagerly on whole
NCHW maps (`benchmarks/eager_nchw.py`), and the arithmetic alone at the rate of one large product by
the faster of two kernels on as many threads. With ``--recipe`` it is that recipe's network, with
random weights.
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
from pathlib import Path
from typing import Any

SIZES = {"photo": (1080, 720), "large": (4000, 3000)}
"""Width and height in pixels."""


def _run(arguments: list[str], threads: int) -> str:
    """Run Python with ``arguments`` on so many threads; what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=environment
    )
    return done.stdout


def _start_seconds(model: Path, photograph: Path, out: Path, threads: int) -> float:
    """From the start of `mmfe restore` to its end, which follows its output at once."""
    command = ["-c", "from mmfe_cli.app import main; main()", "--quiet", "restore", str(photograph)]
    command += ["-o", str(out), "--checkpoint", str(model)]
    started = time.perf_counter()
    _run(command, threads)
    return time.perf_counter() - started


def _write_model(folder: Path, recipe: str) -> None:
    from mmfe_restore import Restorer, load_recipe

    Restorer.from_recipe(load_recipe(recipe)).save_pretrained(folder)


def _worker(which: str, model: Path, photograph: Path, repeats: int) -> dict[str, float]:
    import torch

    from benchmarks.eager_nchw import restore
    from benchmarks.restore_speed import _machine_gflops
    from mmfe_cache.images import read_rgb8
    from mmfe_restore import Restorer
    from mmfe_restore.inference import guide_for, restore_image
    from mmfe_restore.model import count_macs

    restorer = Restorer.from_pretrained(model).eval()
    image = read_rgb8(photograph)
    guide = guide_for(restorer)
    embeddings = None if guide is None else guide.look(image)
    if which == "rate":
        gflop = 2 * count_macs(restorer.config) * image.shape[0] * image.shape[1] / 256**2 / 1e9
        rate = _machine_gflops("cpu", torch.float32)
        return {"gflop": gflop, "machine_gflops": rate, "arithmetic_s": gflop / rate}

    def run() -> None:
        if which == "ours":
            restore_image(restorer, image, embeddings)
            return
        assert embeddings is not None
        with torch.inference_mode():
            restore(restorer, torch.from_numpy(image).permute(2, 0, 1)[None] / 255, embeddings)

    times: list[float] = []
    spent: list[float] = []
    for _ in range(repeats):
        started, spent_before = time.perf_counter(), time.process_time()
        run()
        times.append(time.perf_counter() - started)
        spent.append(time.process_time() - spent_before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"photo_s": min(times), "cpu_s": min(spent), "peak_mb": peak}


def measure(checkpoint: str, recipe: str | None, threads: int, repeats: int) -> dict[str, Any]:
    """All figures: those of 1080×720 at the top level, those of 12 megapixels under ``large``."""
    import numpy as np

    from mmfe_cache.images import write_png
    from mmfe_restore.model.folders import model_folder

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if recipe is None:
            model = model_folder(checkpoint)
        else:
            model = folder / "model"
            _write_model(model, recipe)
        for size, (width, height) in SIZES.items():
            photograph = folder / f"{size}.png"
            pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
            write_png(photograph, pixels)

            def worker(which: str, times: int, photograph: Path = photograph) -> dict[str, float]:
                inner = ["-m", "benchmarks.restore_photo", "--worker", which]
                inner += ["--checkpoint", str(model), "--photograph", str(photograph)]
                inner += ["--repeats", str(times)]
                return json.loads(_run(inner, threads).splitlines()[-1])

            start = _start_seconds(model, photograph, folder / f"{size}-out.png", threads)
            ours = worker("ours", repeats if size == "photo" else 1)
            rate = worker("rate", 1)
            row: dict[str, Any] = {
                "start_s": start,
                "photo_s": ours["photo_s"],
                "megapixels_per_s": width * height / 1e6 / ours["photo_s"],
                "peak_mb": ours["peak_mb"],
                "cpu_s": ours["cpu_s"],
                **rate,
                "ratio_to_arithmetic": ours["photo_s"] / rate["arithmetic_s"],
            }
            if size == "photo":
                eager = worker("eager", repeats)
                row["eager_nchw_s"] = eager["photo_s"]
                row["eager_nchw_cpu_s"] = eager["cpu_s"]
                row["eager_nchw_peak_mb"] = eager["peak_mb"]
                row["ratio_to_eager"] = ours["photo_s"] / eager["photo_s"]
                found = {**row, "width": width, "height": height, "threads": threads}
            else:
                found[size] = {**row, "width": width, "height": height}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfe-small", help="a folder, or a shipped network")
    parser.add_argument("--recipe", help="random weights of this recipe in place of the checkpoint")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--photograph", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        model = Path(options.checkpoint)
        print(json.dumps(_worker(options.worker, model, options.photograph, options.repeats)))
        return
    found = measure(options.checkpoint, options.recipe, options.threads, options.repeats)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for row in (found, found["large"]):
        print(
            f"{row['width']}×{row['height']}, {options.threads} threads: first output after "
            f"{row['start_s']:.1f} s, the photograph itself {row['photo_s']:.2f} s "
            f"({row['megapixels_per_s']:.2f} megapixels/s; arithmetic alone "
            f"{row['arithmetic_s']:.2f} s, ratio {row['ratio_to_arithmetic']:.2f}), "
            f"peak {row['peak_mb']:.0f} MB"
        )
    print(
        f"the same network eagerly in NCHW: {found['eager_nchw_s']:.2f} s, "
        f"peak {found['eager_nchw_peak_mb']:.0f} MB; ratio {found['ratio_to_eager']:.2f}"
    )


if __name__ == "__main__":
    main()
