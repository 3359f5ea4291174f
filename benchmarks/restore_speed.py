"""Inference of the full model beside an independent Restormer as its users run it.

    python -m benchmarks.restore_speed [--size 256] [--repeats 3] [--json]
    python -m benchmarks.restore_speed --size 3840x2160 --ours-only --precision 32

The reference (spandrel's Restormer, 26.1 M parameters) runs eagerly, in NCHW and float32; ours is
the full model (37.5 M), as shipped, in float32 and under bf16 autocast (the reference then too).
Memory is the peak allocated during the forward pass, without weights. `machine_gflops` is the
rate of a large product in the same precision, by the faster of two kernels: the arithmetic limit.
`--ours-only` restores one image once, for sizes at which the reference does not fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peak_memory import PeakMemory

Run = Callable[[], object]
Size = tuple[int, int]
"""Width and height in pixels."""


def _reference(size: Size, device: str, dtype: torch.dtype) -> tuple[Run, int]:
    from spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch import Restormer

    network = Restormer().eval().to(device)
    image = torch.rand(1, 3, size[1], size[0], device=device)
    return _under(dtype, device, lambda: network(image)), 282


def _ours(size: Size, device: str, dtype: torch.dtype) -> tuple[Run, int]:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_restore import Restorer, load_recipe
    from mmfe_restore.model import count_macs

    recipe = load_recipe("cdd11")
    network = Restorer.from_recipe(recipe).eval().to(device)
    image = torch.rand(1, 3, size[1], size[0], device=device)
    tokens = torch.randn(1, 16, recipe.model.guidance_dim, device=device)
    embeddings = Embeddings(tokens, tokens, tokens[:, 0])
    gflop = round(2 * count_macs(recipe.model) / 1e9)
    return _under(dtype, device, lambda: network(image, embeddings)), gflop


def _under(dtype: torch.dtype, device: str, forward: Run) -> Run:
    def run() -> object:
        low = dtype != torch.float32
        with torch.inference_mode(), torch.autocast(device, dtype=dtype, enabled=low):
            result = forward()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def _machine_gflops(device: str, dtype: torch.dtype) -> float:
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    # The same product as a 1×1 convolution of 64×32 pixels, which goes to another library (on one
    # CPU thread `conv2d` alone would not go there).
    pixels, kernel = a.view(1, 64, 32, 2048).permute(0, 3, 1, 2), a[:, :, None, None]

    def convolve() -> Tensor:
        if device == "cpu" and torch.backends.mkldnn.is_available():
            return torch.mkldnn_convolution(pixels, kernel, None, (0, 0), (1, 1), (1, 1), 1)
        return F.conv2d(pixels, kernel)

    kernels: list[Run] = [lambda: a @ a, convolve]
    seconds: list[float] = []
    for multiply in kernels:
        product = _under(torch.float32, device, multiply)
        product()
        seconds += [_time(product) for _ in range(5)]
    return 2 * 2048**3 / min(seconds) / 1e9


def _time(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure_restoring(
    which: str, size: Size, device: str, precision: str, repeats: int
) -> dict[str, Any]:
    """Restore one image of ``size`` several times in this process; ``which`` as for the command."""
    dtype = torch.float32 if precision == "32" else torch.bfloat16
    run, gflop = (_ours if which == "ours" else _reference)(size, device, dtype)
    _touch_small(which, device, dtype)
    memory = PeakMemory(device)
    first = _time(run)
    peak = memory.megabytes()
    times = [_time(run) for _ in range(repeats)] or [first]
    return {
        "ms": 1e3 * min(times),
        "first_ms": 1e3 * first,
        "peak_mb": peak,
        "gflop": gflop * size[0] * size[1] / 256**2,
        "machine_gflops": _machine_gflops(device, dtype),
    }


def _touch_small(which: str, device: str, dtype: torch.dtype) -> None:
    """Load the libraries' own memory before memory is counted."""
    (_ours if which == "ours" else _reference)((16, 16), device, dtype)[0]()


def _measure(which: str, arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    """In a process of its own, so that neither finds the other's memory."""
    command = [sys.executable, "-m", "benchmarks.restore_speed", "--worker", which]
    command += ["--size", "x".join(map(str, arguments.size))]
    command += ["--repeats", str(arguments.repeats)]
    command += ["--device", arguments.device, "--precision", precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _size(text: str) -> Size:
    width, _, height = text.partition("x")
    return int(width), int(height or width)


def _print_alone(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    width, height = arguments.size
    if arguments.json:
        print(json.dumps({"size": [width, height], "precisions": found}, indent=2))
        return
    for name, one in found.items():
        print(
            f"{width}×{height} {name:>4}: {one['ms'] / 1e3:.1f} s "
            f"(arithmetic alone {one['gflop'] / one['machine_gflops']:.1f} s), "
            f"memory {one['peak_mb'] / 1024:.2f} GiB beside weights and image"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=_size, default=(256, 256), help="such as 256 or 3840x2160")
    parser.add_argument("--ours-only", action="store_true", help="once, without the reference")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("32", "bf16"), action="append")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    precisions: list[str] = arguments.precision or ["32", "bf16"]
    if arguments.worker:
        found = measure_restoring(
            arguments.worker,
            arguments.size,
            arguments.device,
            precisions[0],
            arguments.repeats,
        )
        print(json.dumps(found))
        return
    if arguments.ours_only:
        arguments.repeats = 0
        _print_alone(arguments, {name: _measure("ours", arguments, name) for name in precisions})
        return
    # The limits compare every precision with the reference in float32.
    float32 = _measure("reference", arguments, "32")
    rows = []
    for precision in precisions:
        ours = _measure("ours", arguments, precision)
        theirs = float32 if precision == "32" else _measure("reference", arguments, precision)
        rows.append(
            {
                "size": arguments.size[0] if len({*arguments.size}) == 1 else arguments.size,
                "precision": precision,
                "ours_ms": ours["ms"],
                "ours_first_ms": ours["first_ms"],
                "reference_ms": theirs["ms"],
                "ratio": ours["ms"] / theirs["ms"],
                "ratio_to_float32": ours["ms"] / float32["ms"],
                "limit": {"32": 0.35, "bf16": 0.2}[precision],
                "ours_peak_mb": ours["peak_mb"],
                "reference_peak_mb": theirs["peak_mb"],
                "ratio_memory": ours["peak_mb"] / theirs["peak_mb"],
                "limit_memory": 0.5,
                "gflop": ours["gflop"],
                "machine_gflops": ours["machine_gflops"],
            }
        )
    if arguments.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    for row in rows:
        floor = row["gflop"] / row["machine_gflops"] * 1e3
        size = "×".join(map(str, arguments.size))
        print(
            f"{size} {row['precision']:>4}: ours {row['ours_ms']:.0f} ms "
            f"(arithmetic alone {floor:.0f} ms), reference {row['reference_ms']:.0f} ms; "
            f"ratio to its float32 {row['ratio_to_float32']:.2f} (limit {row['limit']}); memory "
            f"{row['ours_peak_mb']:.0f} of {row['reference_peak_mb']:.0f} MB "
            f"({row['ratio_memory']:.2f}, limit {row['limit_memory']})"
        )


if __name__ == "__main__":
    main()
