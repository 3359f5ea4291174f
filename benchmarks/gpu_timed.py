"""The parts of benchmarks/gpu_first_contact.py that take times and count memory."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu_sizes import (
    Figures,
    Found,
    Sizes,
    bf16,
    compared,
    distance,
    embeddings_of,
    peak_gib,
    seconds,
)
from mmfe_cache.machine import float32_products
from mmfe_restore import Restorer, load_recipe


def versions(sizes: Sizes) -> Found:
    """What runs on what."""
    import lightning
    import transformers

    found: Figures = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "transformers": transformers.__version__,
        "lightning": lightning.__version__,
        "cores": os.cpu_count(),
    }
    if sizes.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "capability": f"{card.major}.{card.minor}",
            "gib": card.total_memory / 2**30,
        }
    yield found


def ceilings(sizes: Sizes) -> Found:
    """The card's own limits: copies and a product."""
    here = torch.zeros(sizes.copied, dtype=torch.uint8, device=sizes.device)
    there = torch.empty_like(here)
    host = torch.zeros(
        max(1, sizes.copied // 8), dtype=torch.uint8, pin_memory=sizes.device == "cuda"
    )
    left, right = (
        torch.randn(sizes.side, sizes.side, device=sizes.device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    copy = seconds(lambda: there.copy_(here), sizes)
    up = seconds(lambda: here[: len(host)].copy_(host, non_blocking=True), sizes)
    product = seconds(lambda: left @ right, sizes)
    yield {
        "copy_tb_per_s": 2 * sizes.copied / copy / 1e12,
        "upload_gb_per_s": len(host) / up / 1e9,
        "bf16_tflops": 2 * sizes.side**3 / product / 1e12,
    }


def depthwise(sizes: Sizes) -> Found:
    """The widest depthwise convolution: forward and both gradients, in ms, by cuDNN and Triton."""
    channels = 2 * 16 * -(-int(2 * sizes.model.width * 2.66) // 16)
    shape = (sizes.batches[0], channels, sizes.crop, sizes.crop)
    x, grad = (torch.randn(shape, device=sizes.device, dtype=torch.bfloat16) for _ in range(2))
    weight = torch.randn(channels, 1, 3, 3, device=sizes.device, dtype=torch.bfloat16)
    for name, layout in {
        "nhwc": torch.channels_last,
        "nchw": torch.contiguous_format,
    }.items():
        x, grad = (t.to(memory_format=layout) for t in (x, grad))

        def backward(
            mask: list[bool], x: Tensor = x, grad: Tensor = grad, w: Tensor = weight
        ) -> Any:
            numbers = ([0], [1, 1], [1, 1], [1, 1], False, [0, 0], len(w))
            return torch.ops.aten.convolution_backward(grad, x, w, *numbers, mask)

        work: dict[str, Callable[[], object]] = {
            "forward": lambda x=x, w=weight: F.conv2d(x, w, padding=1, groups=channels),
            "data_gradient": lambda b=backward: b([True, False, False]),
            "weight_gradient": lambda b=backward: b([False, True, False]),
        }
        yield {f"{name}_{kind}_ms": 1e3 * seconds(run, sizes) for kind, run in work.items()}
    if sizes.device != "cuda":
        return
    from benchmarks.depthwise_kernels import convolve, gradient_of_taps

    expected = F.conv2d(x, weight, padding=1, groups=channels)
    x, grad = (t.movedim(1, -1).contiguous() for t in (x, grad))
    taps = weight.flatten(1).t().float().contiguous()
    yield compared("depthwise", distance(convolve(x, taps).movedim(-1, 1), expected), 1e-2)
    for kind, run in {
        "forward": lambda: convolve(x, taps),
        "data_gradient": lambda: convolve(grad, taps, turned=True),
        "weight_gradient": lambda: gradient_of_taps(x, grad),
    }.items():
        yield {f"triton_{kind}_ms": 1e3 * seconds(run, sizes)}


def eager(sizes: Sizes) -> Found:
    """Eager training steps, ours and the reference's."""
    from benchmarks.train_step import measure_step

    for which in ("reference", "ours"):
        step = measure_step(
            which,
            device=sizes.device,
            size=sizes.crop,
            batch=sizes.batches[0],
            repeats=sizes.repeats,
            config=sizes.model,
        )
        yield {f"{which}_{name}": value for name, value in step.items()}


def blocks(sizes: Sizes) -> Found:
    """One compiled Transformer block a level: padded or not, two shares of activations kept."""
    from mmfe_restore.model import restormer as module
    from mmfe_restore.model.runners import compile_parts

    aligned = module.ALIGNED
    config = sizes.model
    levels = [(config.width * 2**level, sizes.crop >> level) for level in range(4)]
    for level, (channels, side) in enumerate([*levels, (2 * config.width, sizes.crop)]):
        heads = config.num_heads[level % 4]
        for padded, memory in ((True, 1.0), (True, 0.5), (False, 0.5)):
            module.ALIGNED = aligned if padded else 1
            torch._dynamo.reset()
            run = compile_parts(memory, backend=sizes.compiler)[module.TransformerBlock]
            made = module.TransformerBlock(channels, heads, config.expansion).to(sizes.device)
            x = torch.randn(
                sizes.batches[0], side, side, channels, device=sizes.device, requires_grad=True
            )

            def step(run: Any = run, made: nn.Module = made, x: Tensor = x) -> None:
                with bf16(sizes):
                    run(made, x.bfloat16()).float().sum().backward()

            name = f"{channels}ch_{side}px_{'padded' if padded else 'plain'}_memory_{memory:g}"
            yield {
                f"{name}_ms": 1e3 * seconds(step, sizes),
                f"{name}_gib": peak_gib(step, sizes),
            }
    module.ALIGNED = aligned


def step(sizes: Sizes) -> Found:
    """Whole training steps with compiled blocks, and where the time of the last goes."""
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.train_step import measure_step

    def run(batch: int, memory: float, repeats: int = sizes.repeats) -> dict[str, float]:
        return measure_step(
            "ours",
            device=sizes.device,
            size=sizes.crop,
            batch=batch,
            repeats=repeats,
            activation_memory=memory,
            config=sizes.model,
            backend=sizes.compiler,
        )

    for batch in sizes.batches:
        yield {f"batch_{batch}_{name}": value for name, value in run(batch, 0.5).items()}
    activities = [ProfilerActivity.CPU]
    kernels = sizes.kernels and sizes.device == "cuda"
    activities += [ProfilerActivity.CUDA] if kernels else []
    with profile(activities=activities, acc_events=True) as seen:
        run(sizes.batches[0], 0.5, 1)
    order = "device_time_total" if kernels else "cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda row: -getattr(row, order))[:25]
    yield {"profile_us": {row.key[:80]: getattr(row, order) for row in rows}}


def encode(sizes: Sizes) -> Found:
    """Encoding with Qwen2.5-VL, beside the obvious loop."""
    from benchmarks import guide_encode

    for batch in sizes.encoded:
        count = 3 * batch
        arguments = argparse.Namespace(
            device=sizes.device,
            size=sizes.guide,
            side=224 if sizes.guide == "3b" else 56,
            images=count,
            loop_images=min(count, 12),
            batch=batch,
            workers=max(1, min(12, (os.cpu_count() or 2) - 2)),
            rounds=min(2, sizes.repeats),
        )
        result = guide_encode.measure(arguments)
        yield {f"batch_{batch}_{name}": value for name, value in result.items()}


def trains(sizes: Sizes) -> Found:
    """`mmfe train` from a packed set, with a network so small that its data can hardly keep up."""
    from benchmarks.loader import photographs
    from mmfe_cache.datasets import load_dataset, write_synth
    from mmfe_cache.packing import pack, pack_path
    from mmfe_restore.training import train

    steps, batch = 8 * sizes.repeats, sizes.batches[0]
    width, height = sizes.photographs[1]
    overrides = [
        *("model.encoder_guidance=none", "model.decoder_guidance=none", "model.experts=none"),
        *("model.width=8", "model.num_blocks=[1,1,1,1]", "model.num_refinement_blocks=0"),
        f"train.stages=[{{epochs: 1, resolution: {sizes.crop}, batch_size: {batch}}}]",
        *(f"train.max_steps={steps}", f"train.log_every={steps // 2}", "train.compile=off"),
        f'data.repeats={{"*": {steps * batch}}}',
    ]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "set"
        photos = photographs(Path(scratch) / "photos", 4, (height, width))
        write_synth(photos, root, compositions=("low", "rain"), test_share=0)
        pack(load_dataset("cdd11", "train", root), pack_path(root, "cdd11", "train"))
        train(load_recipe("cdd11", overrides), root=root, out=Path(scratch) / "run")
        rows = (Path(scratch) / "run/metrics.csv").read_text(encoding="utf-8").splitlines()
    # The last window: the first holds the start of the loader's processes.
    last = next(csv.DictReader([rows[0], rows[-1]]))
    yield {name: float(last[name]) for name in ("images_per_second", "data_wait")}


def restore(sizes: Sizes) -> Found:
    """Restoring photographs, and the reference's eager network beside it: time and memory."""
    from benchmarks.train_step import reference

    ours = Restorer(sizes.model).to(sizes.device).eval()
    seen = embeddings_of(sizes.model, 1, sizes.device)
    theirs = reference(sizes.model).to(sizes.device).eval()
    for width, height in sizes.photographs:
        image = torch.rand(1, 3, height, width, device=sizes.device)
        work: dict[str, Callable[[], object]] = {"": lambda image=image: ours(image, seen)}
        if (width, height) != sizes.photographs[-1]:  # too much for its whole maps
            work["reference_"] = lambda image=image: theirs(image)
        for kind, exact in (("bf16", False), ("float32", True)):
            times: dict[str, float] = {}
            for name, run in work.items():

                def restored(run: Any = run, exact: bool = exact) -> None:
                    autocast = nullcontext() if exact else bf16(sizes)
                    with torch.inference_mode(), float32_products(), autocast:
                        run()

                def timed(name: str = name, run: Any = restored, found: Any = times) -> None:
                    found[name] = seconds(run, replace(sizes, repeats=min(2, sizes.repeats)))

                gib = peak_gib(timed, sizes)
                key = f"{width}x{height}_{name}{kind}"
                yield {f"{key}_ms": 1e3 * times[name], f"{key}_gib": gib}
            if len(times) > 1:
                yield {f"{width}x{height}_{kind}_ratio": times["reference_"] / times[""]}
