"""How fast a guide encodes: `python -m benchmarks.guide_encode [--json] [--only NAME]...`.

Qwen2.5-VL at 224², against the obvious loop: one image at a time through the processor and the
full model with every hidden state kept. On a CPU the toy checkpoint is timed; on CUDA the full 3B
size with random weights, which gives true speed without a download. The rate includes reading
nothing and preparing everything: resizing, patches, tokens, the model, pooling, and the way back
to the CPU.

Then, on whatever device is there, one timm encoder with random weights (at 64², 128² and 224²) and
a toy of every further family of image-text models (at 64²), each against its own obvious loop: one
image at a time, as the documentation of timm and transformers has it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
)

from mmfe_cache.guides import DEFAULT_PROMPT, load_guide
from mmfe_cache.guides.base import AsyncCopy
from mmfe_cache.guides.checkpoint import quiet_transformers
from mmfe_cache.guides.qwen import QwenGuide
from mmfe_cache.guides.registry import TOY_KINDS
from mmfe_cache.guides.toy import QWEN_3B, make_tiny, qwen_config
from mmfe_cache.machine import pick_device

CDD11_ENCODINGS = 54_252
"""13,013 training samples at four views and 2,200 test samples at one."""

LIMITS = {"cpu": {"ratio": 3.0, "share": None}, "cuda": {"ratio": 20.0, "share": 0.4}}
VOCABULARY_3B = 151_936


def load(
    size: str, device: torch.device, dtype: torch.dtype, scratch: Path
) -> tuple[QwenGuide, Any, Any]:
    """The guide, the full model of the obvious loop (with the same weights) and its processor."""
    directory = make_tiny(scratch / "toy")
    precision: Any = str(dtype).removeprefix("torch.")
    guide = load_guide(directory, device=str(device), precision=precision)
    assert isinstance(guide, QwenGuide)
    processor = AutoProcessor.from_pretrained(directory)
    if size == "tiny":
        with quiet_transformers():
            full = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=dtype)
        return guide, full.to(device).eval(), processor
    ids = {
        name: int(processor.tokenizer.convert_tokens_to_ids(name))
        for name in processor.tokenizer.get_added_vocab()
    }
    with torch.device(device):
        torch.set_default_dtype(dtype)
        full = Qwen2_5_VLForConditionalGeneration(qwen_config(QWEN_3B, ids, VOCABULARY_3B))
        torch.set_default_dtype(torch.float32)
    guide.replace_network(full.model)
    return guide, full.eval(), processor


def obvious(
    full: Any, processor: Any, images: Sequence[np.ndarray], device: torch.device
) -> list[np.ndarray]:
    """One image at a time, every hidden state of every layer kept, as a first script would."""
    content = [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    found = []
    with torch.no_grad(), plain_attention(full):
        for image in images:
            inputs = processor(text=[text], images=[Image.fromarray(image)], return_tensors="pt")
            output = full(**inputs.to(device), output_hidden_states=True)
            found.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
    return found


@contextlib.contextmanager
def plain_attention(full: Any) -> Generator[None, None, None]:
    """The vision tower as transformers ships it, also where the guide shares its weights."""
    config = full.model.visual.config
    before = config._attn_implementation
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = before


def ours(guide: QwenGuide, images: Sequence[np.ndarray], batch: int, workers: int) -> np.ndarray:
    """Prepared ahead in threads, encoded in rectangular batches, as a build does."""
    running: deque[AsyncCopy] = deque()
    found: list[np.ndarray] = []

    def take(ahead: int) -> None:
        while len(running) > ahead:
            found.append(running.popleft().result().answer.numpy())

    with ThreadPoolExecutor(workers) as pool:
        # A lazy map: while one batch is on the device, the next ones are prepared.
        prepared = pool.map(guide.prepare, images)
        for _ in range(0, len(images), batch):
            running.append(guide.start(list(islice(prepared, batch))))
            take(guide.ahead)
        take(0)
    return np.concatenate(found)


ENCODER = "tf_efficientnet_lite0"
OTHER_LIMITS = {"timm": 5.0, "image-text": 2.0}
"""How many times faster than the obvious loop; of timm at 64² and 128², where training looks."""


def encoder_loops(device: torch.device) -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    """Timm's documented loop, and the same on the picture's own pixels: one picture to one answer.

    timm's own transform brings every picture to 224², whatever its size.
    """
    import timm

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = timm.create_model(ENCODER, features_only=True).eval().to(device)
    config = timm.data.resolve_data_config(timm.get_pretrained_cfg(ENCODER).to_dict())
    transform = timm.data.create_transform(**config, is_training=False)

    def answer(pixels: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            maps = network(pixels[None].to(device))
        parts = [m[0].flatten(1).double().cpu() for m in maps]
        kinds = [torch.cat([p.mean(1), p.std(1, correction=0)]) for p in parts]
        return torch.cat([k / k.square().mean().sqrt() for k in kinds]).numpy()

    def documented(image: np.ndarray) -> np.ndarray:
        return answer(transform(Image.fromarray(image)))

    def own_pixels(image: np.ndarray) -> np.ndarray:
        mean, spread = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
        return answer((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / spread)

    return documented, own_pixels


def text_loop(directory: Path, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Transformers' documented loop: one picture to one answer."""
    processor = AutoProcessor.from_pretrained(directory)
    with quiet_transformers():
        full = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    full = full.to(device).eval()

    def answer(image: np.ndarray) -> np.ndarray:
        content = [{"type": "image", "image": Image.fromarray(image)}]
        chat = [{"role": "user", "content": [*content, {"type": "text", "text": DEFAULT_PROMPT}]}]
        if processor.chat_template is None:
            text = f"{processor.image_token}{DEFAULT_PROMPT}"
            inputs = processor(text=text, images=Image.fromarray(image), return_tensors="pt")
        else:
            inputs = processor.apply_chat_template(
                chat,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
            )
        with torch.no_grad():
            output = full(**inputs.to(device), output_hidden_states=True)
        return output.hidden_states[-1][0, -1].double().cpu().numpy()

    return answer


def others(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every other guide and size."""
    device, rows = pick_device(arguments.device), []
    name = str(device)
    with tempfile.TemporaryDirectory() as scratch:
        if wanted(arguments, "timm"):
            guide = load_guide(f"timm:{ENCODER},weights=random", device=name, precision="float32")
            documented, own_pixels = encoder_loops(device)
            for side in (64, 128, 224):
                row = compare(guide, documented, own_pixels, side, arguments, device)
                limit = OTHER_LIMITS["timm"] if side < 224 else None
                with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
                    guide.encode([np.zeros((side, side, 3), np.uint8)])
                flops = counter.get_total_flops()
                ceiling = matmul_flops(device, torch.float32)
                row |= {
                    "gflop_per_image": flops / 1e9,
                    # What the fastest guide of this arithmetic would reach beside the same loop.
                    "ratio_bound": ceiling / flops / row["loop_images_per_second"],
                }
                rows.append({"guide": f"timm:{ENCODER}", **row, "ratio_limit": limit})
        for kind in TOY_KINDS[2:]:  # the first two have guides of their own
            if wanted(arguments, kind):
                directory = make_tiny(Path(scratch) / kind, kind=kind)
                guide = load_guide(directory, device=name, precision="float32")
                loop = text_loop(directory, device)
                row = compare(guide, loop, loop, 64, arguments, device)
                limit = OTHER_LIMITS["image-text"]
                rows.append({"guide": f"{kind}, a toy", **row, "ratio_limit": limit})
    return rows


def wanted(arguments: argparse.Namespace, name: str) -> bool:
    """Whether a guide is to be timed."""
    return not arguments.only or name in arguments.only


def attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Operations of attention from the shapes (B, heads, tokens, D); keys may have fewer heads."""
    batch, heads, tokens, size = query
    return 2 * batch * heads * tokens * key[2] * (size + value[3])


ATTENTION = dict.fromkeys(
    (
        torch.ops.aten._scaled_dot_product_efficient_attention,
        torch.ops.aten._scaled_dot_product_flash_attention,
        torch.ops.aten._scaled_dot_product_cudnn_attention,
    ),
    attention_flops,
)
"""What counts them on CUDA: torch 2.11's own formulas refuse grouped queries."""


def compare(
    guide: Any,
    loop: Callable[[np.ndarray], np.ndarray],
    same: Callable[[np.ndarray], np.ndarray],
    side: int,
    arguments: argparse.Namespace,
    device: torch.device,
) -> dict[str, Any]:
    """Time a guide and two loops in turns; ``same`` gives what the guide's ``answer`` must be."""
    draw = np.random.default_rng(0)
    images = list(draw.integers(0, 256, (arguments.images, side, side, 3), dtype=np.uint8))
    few = images[: arguments.loop_images]
    expected = np.stack([same(image) for image in few[:2]])
    got = guide.encode(few[:2]).answer.double().numpy()
    loop(few[0])
    times: dict[str, list[float]] = {"guide": [], "loop": [], "same": []}
    for _ in range(arguments.rounds):
        times["guide"].append(seconds(lambda: guide.encode(images), device) / len(images))
        times["loop"].append(seconds(lambda: [loop(image) for image in few], device) / len(few))
        times["same"].append(seconds(lambda: [same(image) for image in few], device) / len(few))
    middle = {key: statistics.median(values) for key, values in times.items()}
    return {
        "side": side,
        "images_per_second": 1 / middle["guide"],
        "loop_images_per_second": 1 / middle["loop"],
        "ratio": middle["loop"] / middle["guide"],
        "ratio_on_the_same_pixels": middle["same"] / middle["guide"],
        "difference_from_loop": float(np.abs(got - expected).max() / np.abs(expected).max()),
    }


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of ``work``, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The best of ten large square products, in FLOP/s."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: left @ right, device) for _ in range(10))
    return 2 * side**3 / best


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time both, in turns, and put the numbers beside their limits."""
    device = pick_device(arguments.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = arguments.size or ("3b" if device.type == "cuda" else "tiny")
    draw = np.random.default_rng(0)
    shape = (arguments.images, arguments.side, arguments.side, 3)
    images = list(draw.integers(0, 256, shape, dtype=np.uint8))
    few = images[: arguments.loop_images]
    with tempfile.TemporaryDirectory() as scratch:
        guide, full, processor = load(size, device, dtype, Path(scratch))
        prepared = guide.prepare(images[0])
        with (
            FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter,
            contextlib.suppress(RuntimeError),
        ):
            guide.encode_prepared([prepared])
        flops = counter.get_total_flops()
        encode = lambda: ours(guide, images, arguments.batch, arguments.workers)  # noqa: E731
        loop = lambda: obvious(full, processor, few, device)  # noqa: E731
        expected = np.stack(obvious(full, processor, few[:2], device))
        got = ours(guide, images, arguments.batch, arguments.workers)[:2]
        difference = float(np.abs(got - expected).max() / np.abs(expected).max())
        fast, slow = [], []
        for _ in range(arguments.rounds):
            fast.append(seconds(encode, device) / len(images))
            slow.append(seconds(loop, device) / len(few))
    rate, loop_rate = 1 / statistics.median(fast), 1 / statistics.median(slow)
    ceiling = matmul_flops(device, dtype)
    limits = LIMITS[device.type]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "model": f"Qwen2.5-VL {size}, random weights",
        "dtype": str(dtype).removeprefix("torch."),
        "side": arguments.side,
        "batch": arguments.batch,
        "images_per_second": rate,
        "loop_images_per_second": loop_rate,
        "ratio": rate / loop_rate,
        "ratio_limit": limits["ratio"],
        "gflop_per_image": flops / 1e9,
        "matmul_tflops": ceiling / 1e12,
        "share_of_matmul": flops * rate / ceiling,
        "share_limit": limits["share"],
        "difference_from_loop": difference,
        "cdd11_encodings": CDD11_ENCODINGS,
        "cdd11_minutes": CDD11_ENCODINGS / rate / 60,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=("tiny", "3b"), help="default: 3b on CUDA, else tiny")
    parser.add_argument("--side", type=int, default=224, help="pixels of the square images")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--loop-images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only",
        action="append",
        choices=("qwen2.5-vl", "timm", *TOY_KINDS[2:]),
        help="time this alone; may be given several times",
    )
    arguments = parser.parse_args()
    result = measure(arguments) if wanted(arguments, "qwen2.5-vl") else {}
    result["others"] = others(arguments)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        if name != "others":
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    for row in result["others"]:
        limit = "" if row["ratio_limit"] is None else f", aim {row['ratio_limit']:.0f}"
        bound = f", at most {row['ratio_bound']:.0f} ×" if "ratio_bound" in row else ""
        print(
            f"{row['guide']:32} {row['side']:4}²  {row['images_per_second']:7.1f} images/s, "
            f"{row['ratio']:5.1f} × the loop{limit}{bound} "
            f"({row['ratio_on_the_same_pixels']:.1f} × on the same pixels)"
        )


if __name__ == "__main__":
    main()
