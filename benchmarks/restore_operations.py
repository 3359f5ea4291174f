"""What one photograph's time goes to, by kind of operation: calls, bytes, processor time.

    python -m benchmarks.restore_operations [--size 1080x144] [--checkpoint mmfe-small] [--json]

Restores one photograph on one thread under a dispatch mode. Calls and bytes (what every operation
reads and writes, caches or not) are counted and the same on every machine. Times are the thread's
own, so they mean something beside other work, but each call costs a little more than it does
unwatched: read them as shares. Views move nothing and are named together. Compared with the
arithmetic at the rate of one large product, as in `benchmarks.restore_photo`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmfe_restore import Restorer
from mmfe_restore.inference import guide_for, restore_image
from mmfe_restore.model import count_macs

VIEWS = frozenset({
    "alias", "as_strided", "chunk", "contiguous", "detach", "expand", "flatten", "permute",
    "promote_types", "reshape", "select", "slice", "split", "squeeze", "t", "to", "transpose",
    "unbind", "unflatten", "unsqueeze", "view", "_unsafe_view",
})  # fmt: skip
"""Operations that hand out memory that is there."""


@dataclass
class Spent:
    """What one kind of operation took: calls, bytes read and written, seconds of the thread."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Watching(TorchDispatchMode):
    """Adds up what operations take, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, Spent] = defaultdict(Spent)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count it."""
        started = time.thread_time()
        out = func(*args, **(kwargs or {}))
        seconds = time.thread_time() - started
        spent = self.spent[_kind(func.__name__.split(".")[0], args)]
        spent.calls += 1
        spent.seconds += seconds
        # What is only written over counts once; what is changed in place is read and written.
        over = func.__name__.split(".")[0] in ("copy_", "zero_", "fill_")
        moved = [] if func.__name__.startswith("new_empty") else [*args[over:], out]
        spent.bytes += sum(x.numel() * x.element_size() for x in moved if torch.is_tensor(x))
        return out


def _kind(name: str, args: Any) -> str:
    if name in VIEWS:
        return "views"
    if "conv" not in name:
        return name.rstrip("_")
    weight = args[1]
    if weight.shape[1] == 1 and weight.shape[-1] == 3:
        return "convolution 3x3, depthwise"
    return f"convolution {weight.shape[-1]}x{weight.shape[-1]}"


def _gflops() -> float:
    """The rate of one product by oneDNN on this thread, in its own time."""
    a = torch.randn(1024, 1024)
    pixels, kernel = a.view(1, 64, 16, 1024).permute(0, 3, 1, 2), a[:, :, None, None]
    seconds: list[float] = []
    for _ in range(8):
        started = time.thread_time()
        torch.mkldnn_convolution(pixels, kernel, None, (0, 0), (1, 1), (1, 1), 1)
        seconds.append(time.thread_time() - started)
    return 2 * 1024**3 / min(seconds) / 1e9


def measure(checkpoint: str, width: int, height: int) -> dict[str, Any]:
    """Calls, bytes a pixel, nanoseconds a pixel and share of every kind, the largest first."""
    torch.set_num_threads(1)
    restorer = Restorer.from_pretrained(checkpoint).eval()
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    guide = guide_for(restorer)
    embeddings = None if guide is None else guide.look(image)
    restore_image(restorer, image, embeddings)
    started = time.thread_time()
    restore_image(restorer, image, embeddings)
    alone = time.thread_time() - started
    gflop = 2 * count_macs(restorer.config) * width * height / 256**2 / 1e9
    arithmetic = gflop / _gflops()
    with Watching() as watching:
        restore_image(restorer, image, embeddings)
    total = sum(spent.seconds for spent in watching.spent.values())
    pixels = width * height
    kinds = {
        name: {
            "calls": spent.calls,
            "bytes_a_pixel": 0 if name == "views" else spent.bytes / pixels,
            "ns_a_pixel": 1e9 * spent.seconds / pixels,
            "share": spent.seconds / total,
        }
        for name, spent in sorted(watching.spent.items(), key=lambda item: -item[1].seconds)
    }
    return {
        "width": width,
        "height": height,
        "cpu_s": alone,
        "arithmetic_s": arithmetic,
        "ratio_to_arithmetic": alone / arithmetic,
        "watched_s": total,
        "kinds": kinds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1080x144", help="WIDTHxHEIGHT")
    parser.add_argument("--checkpoint", default="mmfe-small")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    found = measure(options.checkpoint, width, height)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{width}×{height}, one thread: {found['cpu_s']:.2f} s of processor time, "
        f"{found['ratio_to_arithmetic']:.2f} × the arithmetic alone ({found['arithmetic_s']:.2f} s)"
    )
    for name, kind in found["kinds"].items():
        print(
            f"{kind['share']:6.1%} {kind['ns_a_pixel']:9.1f} ns/pixel "
            f"{kind['bytes_a_pixel']:9.0f} B/pixel {kind['calls']:7} calls  {name}"
        )


if __name__ == "__main__":
    main()
