"""The first minutes on a GPU: is everything right there, and how fast is it?

    python -m benchmarks.gpu_first_contact --out DIR [--only PART,PART] [--write]

Every part runs in a process of its own with a limit on its time, and its result is written when it
ends: DIR/PART.json, or DIR/PART.error.txt with what went wrong. What has a result is not run again.
In all it takes ten minutes at most. `--write` puts the figures into the table of
docs/performance.md; a cell without a figure says "not measured".

The command fails if a part failed or a number differs by more than its limit from the CPU's (the
Triton kernels': from torch's block on the same card).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.machine import float32_products
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.recipes.schema import ModelConfig

DOCS = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- gpu_first_contact: begin -->", "<!-- gpu_first_contact: end -->"
NOT_MEASURED = "not measured"

Figures = dict[str, Any]


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
        photographs: (width, height) of restored images.
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
    photographs: tuple[tuple[int, int], ...] = ((256, 256), (3840, 2160))
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
        photographs=((32, 32),),
        repeats=1,
        compiler="eager",
        kernels=False,
        fused=1,  # compiling takes as long as at any size
    )


# What parts have in common


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


# The parts


def versions(sizes: Sizes) -> Figures:
    """What runs on what."""
    import lightning
    import transformers

    found = {
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
    return found


def ceilings(sizes: Sizes) -> Figures:
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
    return {
        "copy_tb_per_s": 2 * sizes.copied / copy / 1e12,
        "upload_gb_per_s": len(host) / up / 1e9,
        "bf16_tflops": 2 * sizes.side**3 / product / 1e12,
    }


def correct_guides(sizes: Sizes) -> Figures:
    """Guides against the CPU, in true float32."""
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.toy import make_tiny

    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (96, 64, 3), dtype=np.uint8) for _ in range(3)]
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("scene", "qwen2.5-vl", "fastvlm"):
            name = kind if kind == "scene" else make_tiny(Path(scratch) / kind, kind=kind)
            truth, found = (
                load_guide(name, device=device, precision="float32").encode(pictures)
                for device in ("cpu", sizes.device)
            )
            differences[kind] = max(
                distance(found.present()[key], value) for key, value in truth.present().items()
            )
    return {"differences": differences, "limits": dict.fromkeys(differences, 1e-3)}


def correct_network(sizes: Sizes) -> Figures:
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
    differences: dict[str, float] = {}
    with float32_products(), torch.no_grad():
        there = network(sizes.device).eval()
        image, seen = image_of(1, side, sizes.device), embeddings_of(config, 1, sizes.device)
        there.whole_bytes = 1 << 50
        whole = there(image, seen)
        there.whole_bytes, there.strip_bytes = 0, 1 << 20
        differences["strips"] = distance(there(image, seen), whole)
        exact = network("cpu").eval()(image.cpu(), seen.to("cpu"))
        differences["whole maps"] = distance(whole, exact)
        draw = torch.Generator().manual_seed(3)
        one, other = (torch.rand(2, 3, 64, 64, generator=draw) for _ in range(2))
        answer, weights = torch.randn(8, 32, generator=draw), torch.rand(8, 4, generator=draw)
        for name, loss in {
            "fourier": lambda d: fourier_loss(one.to(d), other.to(d)),
            "router": lambda d: router_loss(answer.to(d), {"a": weights.to(d)})[0],
        }.items():
            differences[name] = distance(loss(sizes.device), loss("cpu"))

    def steps(device: str, compiler: str | None) -> Tensor:
        trained = network(device).train()
        if compiler is not None:
            trained.compile_core(0.5, backend=compiler)
        adam = torch.optim.Adam(trained.parameters(), lr=1e-4)
        losses: list[Tensor] = []
        clean, guides = image_of(2, sizes.crop, device), embeddings_of(config, 2, device)
        for _ in range(3):
            loss = F.l1_loss(trained(clean, guides), clean.flip(0))
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    with float32_products():
        exact = steps("cpu", None)
        differences["three steps"] = distance(steps(sizes.device, None), exact)
        differences["three steps, compiled"] = distance(steps(sizes.device, sizes.compiler), exact)
    with bf16(sizes):
        differences["three steps, bf16"] = distance(steps(sizes.device, None), exact)
    limits = dict.fromkeys(differences, 1e-3) | {"three steps, bf16": 3e-2}
    return {"differences": differences, "limits": limits}


def depthwise(sizes: Sizes) -> Figures:
    """The widest depthwise convolution, both layouts: forward and both gradients, in ms."""
    channels, found = 2 * 16 * -(-int(2 * sizes.model.width * 2.66) // 16), {}
    shape = (sizes.batches[0], channels, sizes.crop, sizes.crop)
    for layout in (torch.channels_last, torch.contiguous_format):
        name = "nhwc" if layout == torch.channels_last else "nchw"
        x, grad = (
            torch.randn(shape, device=sizes.device, dtype=torch.bfloat16).to(memory_format=layout)
            for _ in range(2)
        )
        weight = torch.randn(channels, 1, 3, 3, device=sizes.device, dtype=torch.bfloat16)

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
        found |= {f"{name}_{kind}_ms": 1e3 * seconds(run, sizes) for kind, run in work.items()}
    return found


def eager(sizes: Sizes) -> Figures:
    """Eager training steps, ours and the reference's."""
    from benchmarks.train_step import measure_step

    found: Figures = {}
    for which in ("reference", "ours"):
        step = measure_step(
            which,
            device=sizes.device,
            size=sizes.crop,
            batch=sizes.batches[0],
            repeats=sizes.repeats,
            config=sizes.model,
        )
        found |= {f"{which}_{name}": value for name, value in step.items()}
    return found


def blocks(sizes: Sizes) -> Figures:
    """One compiled Transformer block a level: padded or not, two shares of activations kept."""
    from mmfe_restore.model import restormer as module
    from mmfe_restore.model.runners import compile_parts

    found: Figures = {}
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
            found[f"{name}_ms"] = 1e3 * seconds(step, sizes)
            found[f"{name}_gib"] = peak_gib(step, sizes)
    module.ALIGNED = aligned
    return found


def kernels(sizes: Sizes) -> Figures:
    """Transformer blocks by Triton kernels: output and all gradients beside torch's, and times."""
    from mmfe_restore.model.restormer import TransformerBlock

    found: Figures = {"differences": {}, "limits": {}}
    if sizes.device != "cuda":
        return found
    from mmfe_restore.kernels.block import run_block

    def plain(made: TransformerBlock, x: Tensor) -> Tensor:
        return made(x)

    config = sizes.model
    # The one that takes most of a training step comes first.
    shapes = [(2 * config.width, 0), *((config.width * 2**level, level) for level in range(4))]
    started, limit = time.perf_counter(), PARTS["kernels"][1]
    for place, (channels, level) in enumerate(shapes[: sizes.fused]):
        if place and time.perf_counter() - started > limit / 2:
            break  # a part that is ended keeps nothing
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
                found["differences"][key] = max(map(distance, step(run_block, half), truth))
                # In bf16 torch's block is off by some too; no more is asked of the kernels.
                others = max(map(distance, step(plain), truth)) if half else 0.0
                found["limits"][key] = max(3e-2, others) if half else 1e-3
        del truth
        for kind, run in (("triton", run_block), ("torch", plain)):
            work = partial(step, run)
            found[f"{name}_{kind}_ms"] = 1e3 * seconds(work, sizes)
            found[f"{name}_{kind}_gib"] = peak_gib(work, sizes)
    return found


def step(sizes: Sizes) -> Figures:
    """Whole training steps with compiled blocks, and where the time of the last goes."""
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.train_step import measure_step

    found: Figures = {}

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
        found |= {f"batch_{batch}_{name}": value for name, value in run(batch, 0.5).items()}
    activities = [ProfilerActivity.CPU]
    kernels = sizes.kernels and sizes.device == "cuda"
    activities += [ProfilerActivity.CUDA] if kernels else []
    with profile(activities=activities, acc_events=True) as seen:
        run(sizes.batches[0], 0.5, 1)
    order = "device_time_total" if kernels else "cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda row: -getattr(row, order))[:25]
    found["profile_us"] = {row.key[:80]: getattr(row, order) for row in rows}
    return found


def encode(sizes: Sizes) -> Figures:
    """Encoding with Qwen2.5-VL, beside the obvious loop."""
    from benchmarks import guide_encode

    found: Figures = {}
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
        found |= {f"batch_{batch}_{name}": value for name, value in result.items()}
    return found


def restore(sizes: Sizes) -> Figures:
    """Restoring photographs: time and memory."""
    found: Figures = {}
    made = Restorer(sizes.model).to(sizes.device).eval()
    seen = embeddings_of(sizes.model, 1, sizes.device)
    for width, height in sizes.photographs:
        image = torch.rand(1, 3, height, width, device=sizes.device)
        for name, exact in (("float32", True), ("bf16", False)):

            def run(image: Tensor = image, exact: bool = exact) -> None:
                kind = torch.autocast(sizes.device, dtype=torch.bfloat16, enabled=not exact)
                with torch.inference_mode(), float32_products(), kind:
                    made(image, seen)

            key = f"{width}x{height}_{name}"
            found[f"{key}_ms"] = 1e3 * seconds(run, replace(sizes, repeats=min(2, sizes.repeats)))
            found[f"{key}_gib"] = peak_gib(run, sizes)
    return found


PARTS: dict[str, tuple[Callable[[Sizes], Figures], int]] = {
    "versions": (versions, 15),
    "ceilings": (ceilings, 15),
    "correct_guides": (correct_guides, 50),
    "correct_network": (correct_network, 100),
    "depthwise": (depthwise, 20),
    "eager": (eager, 30),
    "blocks": (blocks, 100),
    "kernels": (kernels, 50),
    "step": (step, 120),
    "encode": (encode, 70),
    "restore": (restore, 30),
}
"""Every part and the most seconds that it may take: ten minutes together."""


# Running them


def run_part(name: str, sizes: Sizes, out: Path) -> bool:
    """Run one part here and write what it found, or what went wrong."""
    started = time.perf_counter()
    try:
        found = PARTS[name][0](sizes)
    except Exception:  # a part that fails must not take the others with it
        (out / f"{name}.error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return False
    found["seconds"] = time.perf_counter() - started
    text = json.dumps(found, indent=2)
    (out / f"{name}.json.part").write_text(text, encoding="utf-8")
    (out / f"{name}.json.part").replace(out / f"{name}.json")
    (out / f"{name}.error.txt").unlink(missing_ok=True)
    return True


def run_apart(name: str, out: Path) -> bool:
    """The same in a process of its own, which is ended when its time is over."""
    command = [sys.executable, "-m", "benchmarks.gpu_first_contact", "--out", str(out)]
    limit = PARTS[name][1]
    try:
        done = subprocess.run(
            [*command, "--only", name, "--here"], timeout=limit, stderr=subprocess.PIPE, text=True
        )
    except subprocess.TimeoutExpired:
        (out / f"{name}.error.txt").write_text(f"not done after {limit} s\n", encoding="utf-8")
        return False
    if not (out / f"{name}.json").exists() and not (out / f"{name}.error.txt").exists():
        text = f"the process ended with {done.returncode}\n{done.stderr}"
        (out / f"{name}.error.txt").write_text(text, encoding="utf-8")
    return (out / f"{name}.json").exists()


def results_in(out: Path) -> dict[str, Figures]:
    """What has been found so far, by part."""
    return {
        name: json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        for name in PARTS
        if (out / f"{name}.json").exists()
    }


def too_far(results: dict[str, Figures]) -> list[str]:
    """Numbers that differ from the CPU's by more than their limit, NaN included."""
    return [
        f"{part}: {name} differs by {value:.2g} (limit {found['limits'][name]:g})"
        for part, found in results.items()
        for name, value in found.get("differences", {}).items()
        if not value <= found["limits"][name]
    ]


# The table


@dataclass(frozen=True)
class Row:
    """One line of the table in docs/performance.md.

    Attributes:
        label: what it is.
        part: which part finds it.
        key: under which name.
        shown: how its number is written.
        aim: what is wanted.
    """

    label: str
    part: str
    key: str
    shown: str
    aim: str = ""


ROWS = (
    Row("card", "versions", "card", "{}"),
    Row("copy on the card", "ceilings", "copy_tb_per_s", "{:.2f} TB/s"),
    Row("upload from page-locked memory", "ceilings", "upload_gb_per_s", "{:.0f} GB/s"),
    Row("product of 8192², bf16", "ceilings", "bf16_tflops", "{:.0f} TFLOP/s"),
    Row("Restormer, eager, 32 of 128²", "eager", "reference_images_per_s", "{:.0f} images/s"),
    Row("its memory", "eager", "reference_peak_mb", "{:,.0f} MiB"),
    Row("ours, eager", "eager", "ours_images_per_s", "{:.0f} images/s"),
    Row("its memory", "eager", "ours_peak_mb", "{:,.0f} MiB"),
    Row(
        "ours, blocks compiled, 32 of 128²",
        "step",
        "batch_32_images_per_s",
        "{:.0f} images/s",
        "3 × the reference, then 5 ×",
    ),
    Row("its memory", "step", "batch_32_peak_mb", "{:,.0f} MiB", "0.5 of the reference's"),
    Row("its first step, compilation included", "step", "batch_32_first_s", "{:.0f} s"),
    Row("the same, 64 of 128²", "step", "batch_64_images_per_s", "{:.0f} images/s"),
    Row("its memory", "step", "batch_64_peak_mb", "{:,.0f} MiB"),
    Row(
        "a block of 96 channels, 32 of 128², compiled",
        "blocks",
        "96ch_128px_padded_memory_0.5_ms",
        "{:.1f} ms",
    ),
    Row("its memory", "blocks", "96ch_128px_padded_memory_0.5_gib", "{:.2f} GiB"),
    Row("by Triton kernels", "kernels", "96ch_128px_triton_ms", "{:.1f} ms"),
    Row("its memory", "kernels", "96ch_128px_triton_gib", "{:.2f} GiB"),
    Row("encoding, 3B, batches of 32", "encode", "batch_32_images_per_second", "{:.0f} images/s"),
    Row("over the obvious loop", "encode", "batch_32_ratio", "{:.1f} ×", "20 ×"),
    Row("batches of 128", "encode", "batch_128_images_per_second", "{:.0f} images/s"),
    Row("share of the product's rate", "encode", "batch_128_share_of_matmul", "{:.2f}", "0.4"),
    Row("restoring 256², bf16", "restore", "256x256_bf16_ms", "{:.1f} ms"),
    Row("restoring 3840×2160, bf16", "restore", "3840x2160_bf16_ms", "{:,.0f} ms"),
    Row("its memory", "restore", "3840x2160_bf16_gib", "{:.1f} GiB", "12 GiB"),
    Row("in float32", "restore", "3840x2160_float32_ms", "{:,.0f} ms"),
    Row("its memory", "restore", "3840x2160_float32_gib", "{:.1f} GiB", "12 GiB"),
)
"""What docs/performance.md shows of the results."""


def table(results: dict[str, Figures]) -> str:
    """The results in Markdown, with "not measured" where a part has none."""
    lines = ["| | found | aim |", "|---|---|---|"]
    for row in ROWS:
        value = results.get(row.part, {}).get(row.key)
        shown = NOT_MEASURED if value is None else row.shown.format(value)
        lines.append(f"| {row.label} | {shown} | {row.aim} |")
    return "\n".join(lines)


def write_docs(results: dict[str, Figures], docs: Path = DOCS) -> None:
    """Put the table between its marks in ``docs``."""
    before, rest = docs.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    docs.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run what has no result yet, show all, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where results are kept")
    parser.add_argument("--only", help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--here", action="store_true", help="in this process, without time limits")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal at the smallest sizes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--write", action="store_true", help=f"fill the table of {DOCS.name}")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; a rehearsal: --tiny --device cpu")
    full = Sizes(arguments.device, load_recipe("cdd11").model)
    sizes = tiny(arguments.device) if arguments.tiny else full
    arguments.out.mkdir(parents=True, exist_ok=True)
    here = arguments.here or arguments.tiny
    for name in chosen:
        if (arguments.out / f"{name}.json").exists():
            print(f"{name}: done before")
            continue
        print(f"{name} ...", flush=True)
        done = run_part(name, sizes, arguments.out) if here else run_apart(name, arguments.out)
        print(f"{name}: {'done' if done else f'FAILED, see {name}.error.txt'}", flush=True)
    results = results_in(arguments.out)
    if arguments.write:
        write_docs(results)
    print(table(results))
    failed = [name for name in chosen if name not in results]
    wrong = too_far(results)
    for line in (*(f"{name}: no result" for name in failed), *wrong):
        print(line)
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
