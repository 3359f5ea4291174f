"""Compiles a Transformer block's Triton kernels for sm_90, without a GPU: what do they take?

    python -m benchmarks.kernel_resources [--shapes 96x1@128,...] [--batch 64] [--json]

The block runs forward and backward in bf16 on tensors without storage; every kernel that it
launches is compiled instead. Shown are registers of a thread, bytes of its stack (spilled
registers), shared memory of a program, programs, how wide loads from memory are, and the bytes of
the maps, weights and sums that a launch is given, each once: what it must move at least.
A shape is CHANNELSxHEADS@SIDE; without `--shapes` the five of the full network at crops of 128².
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mmfe_restore.kernels.block import run_block
from mmfe_restore.model.restormer import TransformerBlock

SHAPES = "96x1@128,48x1@128,96x2@64,192x4@32,384x8@16"
SHARED_LIMIT = 232_448
"""Bytes of shared memory that a program may have on sm_90."""


class Hopper:
    """Stands for a driver: kernels are compiled for sm_90 and never launched."""

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The only one."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """An H100's."""
        return GPUTarget("cuda", 90, 32)


def given_bytes(arguments: tuple[Any, ...]) -> int:
    """Bytes of the tensors among ``arguments``."""
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def resources(kernel: Any) -> dict[str, Any]:
    """Registers, stack, shared memory and widths of loads of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", text)}
    loads: Counter[int] = Counter()
    for vector, bits in re.findall(r"ld\.global[.\w:]*?(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"]):
        loads[int(vector or 1) * int(bits) // 8] += 1
    return {
        "registers": used["REG"],
        "stack": used["STACK"],
        "shared": kernel.metadata.shared,
        "load_bytes": {str(width): loads[width] for width in sorted(loads, reverse=True)},
    }


@contextmanager
def compiled_only(found: list[dict[str, Any]], compiling: bool = True) -> Generator[None]:
    """Inside the block launches are written into ``found``, and compiled unless told otherwise."""
    run, before = JITFunction.run, driver._active

    def record(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        row: dict[str, Any] = {
            "kernel": self.__name__.lstrip("_"),
            "programs": int(torch.tensor(grid).prod()),
            "bytes": given_bytes(arguments),
        }
        if compiling:
            row |= resources(run(self, *arguments, grid=grid, warmup=True, **options))
        found.append(row)

    JITFunction.run = record
    if compiling:
        driver.set_active(Hopper())
    try:
        yield
    finally:
        JITFunction.run = run
        if compiling:
            driver._active = before


def launches(
    channels: int, heads: int, side: int, batch: int, compiling: bool = True
) -> list[dict[str, Any]]:
    """All launches of one block, forward and backward, in order.

    Args:
        channels: C.
        heads: of the attention.
        side: of the square map.
        batch: B.
        compiling: whether to compile them; otherwise bytes and programs alone.
    """
    found: list[dict[str, Any]] = []
    with torch.device("meta"):
        block = TransformerBlock(channels, heads, 2.66)
        x = torch.empty(batch, side, side, channels, dtype=torch.bfloat16, requires_grad=True)
    with compiled_only(found, compiling):
        run_block(block, x).sum().backward()
    return found


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    shapes = {
        shape: launches(*map(int, re.split("[x@]", shape)), batch=arguments.batch)
        for shape in arguments.shapes.split(",")
    }
    if arguments.json:
        print(json.dumps(shapes, indent=2))
        return
    for shape, rows in shapes.items():
        channels, _, side = map(int, re.split("[x@]", shape))
        one = 2 * arguments.batch * channels * side**2
        print(f"{shape}: {sum(row['bytes'] for row in rows) / one:.1f} maps moved at least")
        for row in rows:
            print(
                f"  {row['kernel']:26} {row['registers']:3} registers, stack {row['stack']:4}, "
                f"shared {row['shared']:6} of {SHARED_LIMIT}, {row['programs']:6} programs, "
                f"{row['bytes'] / one:5.2f} maps, loads of {row['load_bytes']}"
            )


if __name__ == "__main__":
    main()
