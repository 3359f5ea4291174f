"""`python -m benchmarks.reproduce_standin FOLDER`: every command of docs/reproduce.md, for real.

The commands are read from the document, so that the two cannot drift apart. The stand-in has the
real layouts, file names, guide names and embedding widths; its pictures are scikit-image's,
its MLLMs have two layers of random weights, and its networks are small and hardly trained. It
checks the path from an empty disk to every table and figure, and says nothing about quality.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from mmfe_cache.guides.registry import ToyKind

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENT = REPOSITORY / "docs" / "reproduce.md"
NETWORK = (
    *("--set", "model.width=8", "--set", "model.num_blocks=[1,1,1,1]"),
    *("--set", "model.num_refinement_blocks=1"),
)
SMALL = (*NETWORK, "--set", "train.stages=[{epochs: 1, resolution: 128, batch_size: 8}]")
# The rows of Table 4b differ in their stages, so they keep them: two steps of the published 64.
STAGED = (*NETWORK, "--set", "train.max_steps=2", "--set", "data.repeats={'*': 3}")
TASKS = ("--set", "data.repeats={rain: 2}")
LATENCY = ("--size", "160x120", "--repeats", "5", *NETWORK)
GUIDES: dict[str, tuple[ToyKind, int]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": ("qwen2.5-vl", 2048),
    "KamilaMila/FastVLM-0.5B": ("fastvlm", 896),
    "KamilaMila/FastVLM-1.5B": ("fastvlm", 1536),
}
AIO = {
    "Train/Denoise": ("00001.bmp", "a100075.jpg"),
    "Train/Derain/rainy": ("rain-1.png", "rain-2.png"),
    "Train/Derain/gt": ("norain-1.png", "norain-2.png"),
    "Train/Dehaze/synthetic/part1": ("0025_0.8_0.1.jpg", "0026_1_0.2.jpg"),
    "Train/Dehaze/original": ("0025.jpg", "0026.jpg"),
    "Train/Deblur/blur": ("GOPR0384_11_00_000001.png",),
    "Train/Deblur/sharp": ("GOPR0384_11_00_000001.png",),
    "Train/Enhance/low": ("2.png",),
    "Train/Enhance/gt": ("2.png",),
    "train/Rain13K/input": ("1.jpg", "2.jpg"),
    "train/Rain13K/target": ("1.jpg", "2.jpg"),
    "test/denoise/bsd68": ("test001.png",),
    "test/derain/Rain100L/input": ("rain-001.png",),
    "test/derain/Rain100L/target": ("norain-001.png",),
    "test/dehaze/input": ("0001_0.8_0.2.jpg",),
    "test/dehaze/target": ("0001.png",),
    "test/deblur/gopro/input": ("a.png",),
    "test/deblur/gopro/target": ("a.png",),
    "test/enhance/lol/input": ("1.png",),
    "test/enhance/lol/target": ("1.png",),
}
"""Names of the three, five and Rain13K tasks, as PromptIR and Restormer lay them out."""

DEGRADED = ("rainy", "synthetic", "blur", "low", "input")


def commands(document: Path) -> list[list[str]]:
    """The indented commands of a Markdown file, in its order, without their comments."""
    found = re.findall(r"^ {4}((?:mmfe|python|torchrun) .*)$", document.read_text("utf-8"), re.M)
    return [shlex.split(line, comments=True) for line in found]


def made_small(words: Sequence[str]) -> list[str]:
    """A command of the document as the stand-in runs it: two processes, small networks."""
    small = ["2" if word == "8" else word for word in words]
    # With --set runs go to folders of other names; here they must lie where the document's do, for
    # other tables to share them and for `eval` and `plot` to find them.
    if "ablate" in words:
        return [*small, "--out", "runs", *(STAGED if "table4b" in words else SMALL)]
    if "train" in words:
        out = [] if "--out" in words else ["--out", f"runs/{words[words.index('--recipe') + 1]}"]
        return [*small, *out, *SMALL, *(TASKS if any("aio" in word for word in words) else ())]
    return [*small, *LATENCY] if "benchmarks.latency" in words else small


def photograph(number: int, side: int) -> Image.Image:
    """A piece of one of scikit-image's photographs; another one for every number."""
    from skimage import data

    pictures = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    pixels = pictures[number % len(pictures)]
    shift = 7 * (number // len(pictures)) % 32
    return Image.fromarray(pixels[shift : shift + side, shift : shift + side])


def write_data(folder: Path) -> None:
    """CDD11 by `mmfe data synth` from photographs with CDD11's names; the tasks of aio5."""
    photos = {"train": ("00001_01", "00002_01"), "test": ("00469_01",)}
    number = 0
    for split, names in photos.items():
        (folder / "photos" / split).mkdir(parents=True)
        for name in names:
            photograph(number, 160).save(folder / "photos" / split / f"{name}.png")
            number += 1
    root = folder / "data" / "aio5-rain13k"
    noise = np.random.default_rng(0)
    for place, names in AIO.items():
        (root / place).mkdir(parents=True)
        for index, name in enumerate(names):
            # Degraded and clean folders follow one another, so equal indices are one scene.
            picture = photograph((4 if place.startswith("Train") else 0) + index, 240)
            if any(part in DEGRADED for part in Path(place).parts):
                pixels = np.asarray(picture, np.float32) * 0.7 + noise.normal(0, 12, (240, 240, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / place / name)
    for name in ("aio3", "aio5"):
        (folder / "data" / name).symlink_to(root.name)
    place = folder / "outputs" / "OneRestore" / "low_haze_rain"
    place.mkdir(parents=True)
    photograph(2, 160).save(place / "00469_01.png")


def write_guides(hub: Path) -> None:
    """Toy MLLMs of the published widths, where the published ones would lie."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from mmfe_cache.guides.toy import make_tiny

    for repository, (kind, width) in GUIDES.items():
        home = hub / f"models--{repository.replace('/', '--')}"
        made = make_tiny(home / "snapshots" / "standin", kind=kind)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("standin")
        config = AutoConfig.from_pretrained(made)
        config.text_config.hidden_size = width
        config.text_config.num_attention_heads = width // 16
        if kind == "qwen2.5-vl":
            config.vision_config.out_hidden_size = width
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(made)


def run(words: Sequence[str], folder: Path, log: Path) -> bool:
    """Run one command in ``folder``; its output goes to ``log``."""
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "160",
    }
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            words, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    # The stand-in of the tasks lacks most published pairs: `data check` must say so and exit 1.
    lacking = "check" in words and "missing: published pair" in log.read_text("utf-8")
    passed = done.returncode == int(lacking)
    state = "passed" if passed else f"FAILED ({done.returncode})"
    print(f"{state:<12}{time.perf_counter() - started:6.1f} s  {shlex.join(words)}", flush=True)
    if not passed:
        print("\n".join(log.read_text("utf-8").splitlines()[-15:]), flush=True)
    return passed


def main() -> int:
    """Make the stand-in, run every command, and say which passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder, for data, caches and runs")
    parser.add_argument("--only", help="run only commands that match this regular expression")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    logs = folder / "logs"
    if not folder.exists():
        write_data(folder)
        write_guides(folder / "hf" / "hub")
        logs.mkdir()
        synth = ["mmfe", "data", "synth", "photos/train", "--test-photos", "photos/test"]
        if not run([*synth, "--out", "data/cdd11"], folder, logs / "synth.txt"):
            return 1
    elif options.only is None:
        parser.error(f"{folder} is there; give a new folder, or --only to go on in it")
    chosen = [
        (number, words)
        for number, words in enumerate(commands(DOCUMENT))
        if options.only is None or re.search(options.only, shlex.join(words))
    ]
    passed = [run(made_small(words), folder, logs / f"{n:02d}.txt") for n, words in chosen]
    print(f"{sum(passed)} of {len(passed)} commands passed; their output is in {logs}")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
