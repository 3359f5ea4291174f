"""The parts of benchmarks/gpu_first_contact.py that compare a GPU's numbers with others."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_sizes import (
    Found,
    Sizes,
    bf16,
    compared,
    distance,
    embeddings_of,
    image_of,
    peak_gib,
    seconds,
)
from mmfe_cache.machine import float32_products
from mmfe_restore import Restorer


def correct_guides(sizes: Sizes) -> Found:
    """Guides against the CPU, in true float32."""
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.toy import make_tiny

    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (96, 64, 3), dtype=np.uint8) for _ in range(3)]
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("scene", "qwen2.5-vl", "fastvlm"):
            name = kind if kind == "scene" else make_tiny(Path(scratch) / kind, kind=kind)
            truth, found = (
                load_guide(name, device=device, precision="float32").encode(pictures)
                for device in ("cpu", sizes.device)
            )
            yield compared(
                kind,
                max(
                    distance(found.present()[key], value) for key, value in truth.present().items()
                ),
            )


def correct_network(sizes: Sizes) -> Found:
    """Strips, losses and training steps against the CPU; compiled blocks against eager ones."""
    from mmfe_restore.losses import fourier_loss, router_loss

    torch.manual_seed(0)
    config = replace(sizes.model, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
    start = Restorer(config).state_dict()

    def network(device: str) -> Restorer:
        made = Restorer(config)
        made.load_state_dict(start)
        return made.to(device)

    side = 4 * sizes.crop
    with float32_products(), torch.no_grad():
        there = network(sizes.device).eval()
        image, seen = image_of(1, side, sizes.device), embeddings_of(config, 1, sizes.device)
        there.whole_bytes = 1 << 50
        whole = there(image, seen)
        there.whole_bytes, there.strip_bytes = 0, 1 << 20
        yield compared("strips", distance(there(image, seen), whole))
        exact = network("cpu").eval()(image.cpu(), seen.to("cpu"))
        yield compared("whole maps", distance(whole, exact))
        with bf16(sizes):
            yield compared("strips, bf16", distance(there(image, seen), exact), 3e-2)
            there.stream_bytes = 0
            yield compared("streamed, bf16", distance(there(image, seen), exact), 3e-2)
        draw = torch.Generator().manual_seed(3)
        one, other = (torch.rand(2, 3, 64, 64, generator=draw) for _ in range(2))
        answer, weights = torch.randn(8, 32, generator=draw), torch.rand(8, 4, generator=draw)
        for name, loss in {
            "fourier": lambda d: fourier_loss(one.to(d), other.to(d)),
            "router": lambda d: router_loss(answer.to(d), {"a": weights.to(d)})[0],
        }.items():
            yield compared(name, distance(loss(sizes.device), loss("cpu")))

    def steps(device: str, compiler: str | None, *, halved: bool = False) -> Tensor:
        trained = network(device).train()
        if compiler is not None:
            trained.compile_core(0.5, backend=compiler)
        adam = torch.optim.Adam(trained.parameters(), lr=1e-4)
        losses: list[Tensor] = []
        clean, guides = image_of(2, sizes.crop, device), embeddings_of(config, 2, device)
        for _ in range(3):
            # Left after each step, as in training: autocast keeps weights in bfloat16 until then.
            with bf16(sizes) if halved else nullcontext():
                loss = F.l1_loss(trained(clean, guides), clean.flip(0))
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    with float32_products():
        exact = steps("cpu", None)
        yield compared("three steps", distance(steps(sizes.device, None), exact))
        found = steps(sizes.device, None, halved=True)
        yield compared("three steps, bf16", distance(found, exact), 1e-2)
        # Compiling takes most of the time, so it comes last; first as training does it. What is
        # compiled to compute again in bfloat16 is not to be trusted: on a CPU it gave NaN.
        found = steps(sizes.device, sizes.compiler, halved=True)
        yield compared("three steps, compiled, bf16", distance(found, exact), 1e-2)
        found = steps(sizes.device, sizes.compiler)
        yield compared("three steps, compiled", distance(found, exact))


def kernels(sizes: Sizes) -> Found:
    """Transformer blocks by Triton kernels: output and all gradients beside torch's, and times."""
    from mmfe_restore.model.restormer import TransformerBlock

    if sizes.device != "cuda":
        return
    from mmfe_restore.kernels.block import run_block

    def plain(made: TransformerBlock, x: Tensor) -> Tensor:
        return made(x)

    config = sizes.model
    # The one that takes most of a training step comes first.
    shapes = [(2 * config.width, 0), *((config.width * 2**level, level) for level in range(4))]
    for place, (channels, level) in enumerate(shapes[: sizes.fused]):
        side, heads = sizes.crop >> level, config.num_heads[level]
        torch.manual_seed(0)
        made = TransformerBlock(channels, heads, config.expansion).cuda()
        x = torch.randn(sizes.batches[0], side, side, channels, device="cuda", requires_grad=True)
        inputs = (x, *made.parameters())

        def step(
            run: Any, half: bool = True, made: Any = made, x: Tensor = x, inputs: Any = inputs
        ) -> list[Tensor]:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
                y = run(made, x.bfloat16() if half else x)
            return [y, *torch.autograd.grad(y.float().square().mean(), inputs)]

        name = f"{channels}ch_{side}px"
        with float32_products():
            truth = step(plain, False)
            # In float32 the first shape alone: compiling takes most of the time.
            for half in (True, False) if place == 0 else (True,):
                key = f"{name}_{'bf16' if half else 'float32'}"
                off = max(map(distance, step(run_block, half), truth))
                # In bf16 torch's block is off by some too; no more is asked of the kernels.
                others = max(map(distance, step(plain), truth)) if half else 0.0
                yield compared(key, off, max(3e-2, others) if half else 1e-3)
        del truth
        for kind, run in (("triton", run_block), ("torch", plain)):
            work = partial(step, run)
            yield {
                f"{name}_{kind}_ms": 1e3 * seconds(work, sizes),
                f"{name}_{kind}_gib": peak_gib(work, sizes),
            }
