"""A training step of the full model beside an independent Restormer's.

    python -m benchmarks.train_step [--size 128] [--batch 64] [--compile] [--memory 0.5] [--json]

Forward, L1 loss, backward and Adam, under the same autocast (bf16 on CUDA, float32 on a CPU) for
both; the reference runs eagerly in NCHW as its users run it. Memory is the peak beyond weights and
input: activations, gradients and Adam's moments. On a CPU the defaults are 64² and
batch 2, and no limit applies: the limits are an H200-class GPU's.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peak_memory import PeakMemory
from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.recipes.schema import ModelConfig


class _Guided(nn.Module):
    """Ours with random embeddings, so that both networks are called alike."""

    def __init__(
        self, config: ModelConfig, activation_memory: float | None, backend: str = "inductor"
    ) -> None:
        super().__init__()
        self.restorer = Restorer(config)
        if activation_memory is not None:
            self.restorer.compile_core(activation_memory, backend=backend)
        self.register_buffer("tokens", torch.randn(1, 16, config.guidance_dim))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.tokens.expand(len(image), -1, -1)
        return self.restorer(image, Embeddings(tokens, tokens, tokens[:, 0]))


def reference(config: ModelConfig) -> nn.Module:
    """An independent Restormer of ``config``'s widths and depths."""
    from spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch import Restormer

    return Restormer(
        dim=config.width,
        num_blocks=list(config.num_blocks),
        num_refinement_blocks=config.num_refinement_blocks,
        heads=list(config.num_heads),
        ffn_expansion_factor=config.expansion,
    )


def measure_step(
    which: str,
    *,
    device: str,
    size: int,
    batch: int,
    repeats: int,
    activation_memory: float | None = None,
    config: ModelConfig | None = None,
    backend: str = "inductor",
) -> dict[str, float]:
    """Time training steps in this process.

    Args:
        which: ``"ours"`` or ``"reference"``.
        device: ``"cpu"`` or ``"cuda"``.
        size: side of the crops.
        batch: crops in a step.
        repeats: steps that are timed, after a first one.
        activation_memory: compile ours, keeping this share of its activations; None is eager.
        config: of ours, and the reference's widths; None for the full one.
        backend: of `torch.compile`.

    Returns:
        ``images_per_s``, ``first_s`` (compilation included) and ``peak_mb``.
    """
    full = load_recipe("cdd11").model if config is None else config
    if which == "ours":
        network: nn.Module = _Guided(full, activation_memory, backend)
    else:
        network = reference(full)
    network = network.to(device).train()
    adam = torch.optim.Adam(network.parameters(), lr=2e-4)
    clean = torch.rand(batch, 3, size, size, device=device)

    def step() -> float:
        nonlocal loss
        started = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = F.l1_loss(network(clean), clean.flip(0))
        loss.backward()
        adam.step()
        adam.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    loss = torch.zeros(())
    memory = PeakMemory(device)
    first = step()
    times = [step() for _ in range(repeats)]
    if not math.isfinite(loss.item()):
        raise ArithmeticError(f"the loss is {loss.item()} after {1 + repeats} steps")
    return {
        "images_per_s": batch / min(times),
        "first_s": first,
        "peak_mb": memory.megabytes(),
    }


def _measure(which: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train_step", "--worker", which]
    for name in ("size", "batch", "repeats", "device", "memory"):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--compile" if arguments.compile else "--no-compile"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128 if cuda else 64)
    parser.add_argument("--batch", type=int, default=64 if cuda else 2)
    parser.add_argument("--repeats", type=int, default=5 if cuda else 2)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=cuda)
    parser.add_argument("--memory", type=float, default=0.5, help="train.activation_memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        found = measure_step(
            arguments.worker,
            device=arguments.device,
            size=arguments.size,
            batch=arguments.batch,
            repeats=arguments.repeats,
            activation_memory=arguments.memory if arguments.compile else None,
        )
        print(json.dumps(found))
        return
    ours, theirs = _measure("ours", arguments), _measure("reference", arguments)
    row = {
        "size": arguments.size,
        "batch": arguments.batch,
        "device": arguments.device,
        "ours_images_per_s": ours["images_per_s"],
        "ours_first_s": ours["first_s"],
        "reference_images_per_s": theirs["images_per_s"],
        "ratio": ours["images_per_s"] / theirs["images_per_s"],
        "limit": 3.0 if arguments.device == "cuda" else None,
        "ours_peak_mb": ours["peak_mb"],
        "reference_peak_mb": theirs["peak_mb"],
        "ratio_memory": ours["peak_mb"] / theirs["peak_mb"],
        "limit_memory": 0.5 if arguments.device == "cuda" else None,
    }
    if arguments.json:
        print(json.dumps({"rows": [row]}, indent=2))
        return
    print(
        f"{row['size']}², batch {row['batch']}, {row['device']}: ours "
        f"{row['ours_images_per_s']:.2f} images/s, reference {row['reference_images_per_s']:.2f} "
        f"({row['ratio']:.2f} ×, limit {row['limit']}); peak {row['ours_peak_mb']:.0f} MB of "
        f"{row['reference_peak_mb']:.0f} ({row['ratio_memory']:.2f}, limit {row['limit_memory']})"
    )


if __name__ == "__main__":
    main()
