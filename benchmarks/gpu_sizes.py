"""What the parts of benchmarks/gpu_first_contact.py share: sizes, times, differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings
from mmfe_restore.recipes.schema import ModelConfig

Figures = dict[str, Any]
Found = Iterator[Figures]


@dataclass(frozen=True)
class Sizes:
    """How much work the parts do.

    Attributes:
        device: ``"cuda"``, or ``"cpu"`` as a stand-in.
        model: the network.
        crop: side of training crops.
        batches: of training steps; the first is that of eager steps and single blocks too.
        side: of the square product.
        copied: bytes that are copied.
        guide: size of Qwen2.5-VL that is timed, as `benchmarks.guide_encode` names it.
        encoded: batches in which the guide encodes.
        photographs: (width, height) of restored images; the reference restores all but the last.
        repeats: of everything that is timed.
        compiler: of `torch.compile`.
        kernels: whether the profile asks the driver for the times of kernels.
        fused: at how many shapes of a Transformer block the Triton kernels run.
    """

    device: str
    model: ModelConfig
    crop: int = 128
    batches: tuple[int, ...] = (32, 64)
    side: int = 8192
    copied: int = 2 << 30
    guide: str = "3b"
    encoded: tuple[int, ...] = (32, 128)
    photographs: tuple[tuple[int, int], ...] = ((256, 256), (1080, 720), (3840, 2160))
    repeats: int = 5
    compiler: str = "inductor"
    kernels: bool = True
    fused: int = 5


def tiny(device: str) -> Sizes:
    """Sizes at which every part takes a moment: a rehearsal."""
    model = ModelConfig(
        width=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, num_experts=2, guidance_dim=16
    )
    return Sizes(
        device=device,
        model=model,
        crop=16,
        batches=(1, 2),
        side=64,
        copied=1 << 12,
        guide="tiny",
        encoded=(2,),
        photographs=((32, 32), (64, 48), (48, 32)),
        repeats=1,
        compiler="eager",
        kernels=False,
        fused=1,  # compiling takes as long as at any size
    )


def wait(sizes: Sizes) -> None:
    """Wait for the device."""
    if sizes.device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], sizes: Sizes) -> float:
    """The shortest time of ``work``, after one run that does not count."""
    work()
    times: list[float] = []
    for _ in range(sizes.repeats):
        wait(sizes)
        started = time.perf_counter()
        work()
        wait(sizes)
        times.append(time.perf_counter() - started)
    return min(times)


def peak_gib(work: Callable[[], object], sizes: Sizes) -> float | None:
    """Memory of ``work`` beyond what is there, in GiB; None without a GPU."""
    if sizes.device != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def bf16(sizes: Sizes) -> Any:
    """The autocast of training."""
    return torch.autocast(sizes.device, dtype=torch.bfloat16)


def embeddings_of(config: ModelConfig, batch: int, device: str) -> Embeddings:
    """Random ones, the same on every device."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randn(batch, 16, config.guidance_dim, generator=random).to(device)
    return Embeddings(tokens, tokens, tokens[:, 0])


def image_of(batch: int, side: int, device: str) -> Tensor:
    """A random image, the same on every device."""
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(2)).to(device)


def compared(name: str, difference: float, limit: float = 1e-3) -> Figures:
    """A difference and the most that it may be."""
    return {"differences": {name: difference}, "limits": {name: limit}}
