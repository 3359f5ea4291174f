"""The first minutes on a GPU: is everything right there, and how fast is it?

    python -m benchmarks.gpu_first_contact --out DIR [--only PART,PART] [--write]

Every part (gpu_correct.py, gpu_timed.py) runs in a process of its own with a limit on its time.
What it finds is written at once, to DIR/PART.partial.json and at its end to DIR/PART.json; what
went wrong is in DIR/PART.error.txt. What has a whole result is not run again. In all it takes ten
minutes at most. `--write` puts the figures into the table of
docs/performance.md; a cell without a figure says "not measured".

The command fails if a part failed or a number differs by more than its limit from the CPU's (the
Triton kernels': from torch's block on the same card).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks import gpu_correct, gpu_timed
from benchmarks.gpu_sizes import Figures, Found, Sizes, tiny
from mmfe_cache.io import write_file
from mmfe_restore import load_recipe

DOCS = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- gpu_first_contact: begin -->", "<!-- gpu_first_contact: end -->"
NOT_MEASURED = "not measured"

PARTS: dict[str, tuple[Callable[[Sizes], Found], int]] = {
    "versions": (gpu_timed.versions, 15),
    "ceilings": (gpu_timed.ceilings, 15),
    "correct_guides": (gpu_correct.correct_guides, 40),
    "correct_network": (gpu_correct.correct_network, 115),
    "depthwise": (gpu_timed.depthwise, 20),
    "eager": (gpu_timed.eager, 40),
    "blocks": (gpu_timed.blocks, 75),
    "kernels": (gpu_correct.kernels, 55),
    "step": (gpu_timed.step, 115),
    "trains": (gpu_timed.trains, 30),
    "encode": (gpu_timed.encode, 45),
    "restore": (gpu_timed.restore, 35),
}
"""Every part and the most seconds that it may take: ten minutes together."""

BESIDE_RESTORMER = ("eager", "restore")
"""Parts that run the reference too, which is a package of its own."""


# Running them


def run_part(name: str, sizes: Sizes, out: Path) -> bool:
    """Run one part here and write what it finds as it finds it, or what went wrong."""
    started = time.perf_counter()
    so_far, error = out / f"{name}.partial.json", out / f"{name}.error.txt"
    found: Figures = {}
    try:
        for figures in PARTS[name][0](sizes):
            for key, value in figures.items():
                found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
            write_file(so_far, json.dumps(found, indent=2))
    except Exception:  # a part that fails must not take the others with it
        write_file(error, traceback.format_exc())
        return False
    found["seconds"] = time.perf_counter() - started
    write_file(out / f"{name}.json", json.dumps(found, indent=2))
    for left in (so_far, error):
        left.unlink(missing_ok=True)
    return True


def run_apart(name: str, out: Path) -> bool:
    """The same in a process of its own, which is ended when its time is over."""
    command = [sys.executable, "-m", "benchmarks.gpu_first_contact", "--out", str(out)]
    limit = PARTS[name][1]
    error = out / f"{name}.error.txt"
    error.unlink(missing_ok=True)  # of the run before: it would hide that this process died
    try:
        done = subprocess.run(
            [*command, "--only", name, "--here"], timeout=limit, stderr=subprocess.PIPE, text=True
        )
    except subprocess.TimeoutExpired:
        error.write_text(f"not done after {limit} s\n", encoding="utf-8")
        return False
    if not (out / f"{name}.json").exists() and not error.exists():
        text = f"the process ended with {done.returncode}\n{done.stderr}"
        error.write_text(text, encoding="utf-8")
    return (out / f"{name}.json").exists()


def results_in(out: Path) -> dict[str, Figures]:
    """What has been found so far, by part; of one that was ended, what it had found."""
    found: dict[str, Figures] = {}
    for name in PARTS:
        for file in (out / f"{name}.json", out / f"{name}.partial.json"):
            if file.exists():
                found[name] = json.loads(file.read_text(encoding="utf-8"))
                break
    return found


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
    Row("depthwise convolution, forward, cuDNN", "depthwise", "nhwc_forward_ms", "{:.1f} ms"),
    Row("by our nine shifted loads", "depthwise", "triton_forward_ms", "{:.1f} ms"),
    Row("a network of width 8 under mmfe train", "trains", "images_per_second", "{:.0f} images/s"),
    Row("its share of time waiting for data", "trains", "data_wait", "{:.3f}", "0.03"),
    Row("encoding, 3B, batches of 32", "encode", "batch_32_images_per_second", "{:.0f} images/s"),
    Row("over the obvious loop", "encode", "batch_32_ratio", "{:.1f} ×", "20 ×"),
    Row("batches of 128", "encode", "batch_128_images_per_second", "{:.0f} images/s"),
    Row("share of the product's rate", "encode", "batch_128_share_of_matmul", "{:.2f}", "0.4"),
    Row("restoring 256², bf16", "restore", "256x256_bf16_ms", "{:.1f} ms"),
    Row("its memory", "restore", "256x256_bf16_gib", "{:.2f} GiB"),
    Row("restoring 1080×720, bf16", "restore", "1080x720_bf16_ms", "{:.0f} ms"),
    Row("over Restormer, eager, bf16", "restore", "1080x720_bf16_ratio", "{:.1f} ×", "3 ×"),
    Row("its memory", "restore", "1080x720_bf16_gib", "{:.2f} GiB"),
    Row("Restormer's memory", "restore", "1080x720_reference_bf16_gib", "{:.2f} GiB"),
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
    beside = [name for name in chosen if name in BESIDE_RESTORMER]
    if beside and find_spec("spandrel_extra_arches") is None:
        parser.error(
            f"the reference of {', '.join(beside)} is not installed: "
            "pip install spandrel-extra-arches spandrel"
        )
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
    failed = [name for name in chosen if not (arguments.out / f"{name}.json").exists()]
    wrong = too_far(results)
    for line in (*(f"{name}: not whole" for name in failed), *wrong):
        print(line)
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
