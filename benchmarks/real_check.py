"""Published data sets through every command, from an empty folder; scores and leaks compared.

    python -m benchmarks.real_check FOLDER [--out DIR] [--only rain100l ...] [--json]

FOLDER holds any of these, complete or not; a set whose folders are missing is left out:

    bsd400/{train,test}                     BSDS500's train and test photographs
    cbsd68                                  CBSD68's 68 clean photographs
    rain100l/{train,test}/{rain,norain}     Rain100L, both sides under the same names
    lol-v1/{our485,eval15}/{low,high}       LOL-v1 as published

Nothing in it is changed: the sets are folders of links in a new folder. Each goes through `data
check`, `data pack --compress`, `data verify`, `cache build` with the guide `scene`, one epoch of
`train` (a small recipe) and `eval`. Then the scores of the inputs alone are compared with the
published ones, and the leaks with those that are known. Exits 1 where one differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfe_cache.datasets import load_dataset
from mmfe_cache.datasets.photographs import list_images
from mmfe_cache.datasets.sources import unclipped_noise

SIDE, BATCH = 64, 8
SETS: dict[str, dict[str, str]] = {
    "denoise": {"bsd400": "bsd400", "cbsd68": "cbsd68"},
    "rain100l": {"train": "rain100l/train", "test": "rain100l/test"},
    "lol-v1": {"our485": "lol-v1/our485", "eval15": "lol-v1/eval15"},
    "folder": {"train": "lol-v1/our485", "test": "lol-v1/eval15"},
    "synth": {"train": "bsd400/test", "test": "cbsd68"},
}
"""Each set's folders, and where in FOLDER they come from."""

PROTOCOL = {"rain100l": "restormer"}
"""Where the published score of the input is not RGB: deraining's is luma."""

INPUT_DB = {"rain100l": 26.90, "lol-v1": 7.77, "folder": 7.77}
"""Published PSNR of the test inputs, in dB; `folder` reads LOL-v1 again."""

NOISE_DB = 20.17
"""PSNR of CBSD68 at sigma 25 before clipping: 20 log10(255 / 25)."""


class Step:
    """Runs `mmfe` and keeps how long each command took.

    Args:
        folder: the working folder of every command.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def run(self, name: str, *arguments: object, may_fail: bool = False) -> dict[str, Any]:
        """Run ``mmfe ARGUMENTS --json`` and return what it prints; stop where it fails."""
        words = [str(word) for word in arguments]
        print("$ mmfe", *words, file=sys.stderr, flush=True)
        began = time.perf_counter()
        program = Path(sys.executable).with_name("mmfe")
        done = subprocess.run(
            [program, "--quiet", *words, "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.seconds[name] = time.perf_counter() - began
        if done.returncode not in ((0, 1) if may_fail else (0,)) or not done.stdout:
            raise SystemExit(f"mmfe {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)


def link_set(source: Path, root: Path, links: Mapping[str, str], most: int | None) -> bool:
    """Make a set's root from links; False where FOLDER lacks one of its folders."""
    if not all((source / place).is_dir() for place in links.values()):
        return False
    root.mkdir(parents=True)
    for name, place in links.items():
        if most is None:
            (root / name).symlink_to((source / place).resolve())
            continue
        (root / name).mkdir()
        files = list_images(source / place).images
        for file in files[:: max(1, len(files) // most)][:most]:
            (root / name / file.name).symlink_to(file.resolve())
    return True


def one_set(name: str, folder: Path) -> dict[str, Any]:
    """All commands on one set; a row of the table."""
    step = Step(folder)
    where = ("--dataset", name, "--root", f"data/{name}")
    cache, run = f"cache/{name}", f"runs/{name}"
    found = step.run("check", "data", "check", *where, may_fail=True)
    parts = found["parts"]
    packs = step.run("pack", "data", "pack", *where, "--compress")["packs"]
    step.run("verify", "data", "verify", *where)
    built = step.run(
        "cache",
        *("cache", "build", *where, "--guide", "scene", "--views", f"crop@{SIDE}"),
        *("--out", cache),
    )
    changes = (
        f"data.dataset={name}",
        "data.repeats={}",
        f"train.stages=[{{epochs: 1, resolution: {SIDE}, batch_size: {BATCH}}}]",
        f"eval.view=crop@{SIDE}",
    )
    trained = step.run(
        "train",
        *("train", "--recipe", "demo", "--root", f"data/{name}", "--cache", cache, "--out", run),
        *(word for change in changes for word in ("--set", change)),
    )
    protocol = ("--protocol", PROTOCOL[name]) if name in PROTOCOL else ()
    judged = step.run("eval", "eval", "--checkpoint", run, *where, "--cache", cache, *protocol)
    return {
        "set": name,
        "layouts": sorted({part["layout"] for part in parts}),
        "pairs": {s: sum(p["found"] for p in parts if p["split"] == s) for s in ("train", "test")},
        "published": {part["split"]: part["published"] for part in parts},
        "bad": sum(len(p["unreadable"]) + len(p["mismatched"]) for p in parts)
        + sum("partner" in line for p in parts for line in p["missing"]),
        "leaks": len(found["leaks"]),
        "distinct": found["distinct"],
        "pack_ratio": sum(p["pack_bytes"] for p in packs) / sum(p["source_bytes"] for p in packs),
        "packed": sum(
            load_dataset(name, split, folder / "data" / name).layout.endswith("(packed)")
            for split in ("train", "test")
        ),
        "encodings": built["encodings"],
        "steps": trained["steps"],
        "guide_calls": trained["guide_calls"],
        "input_db": {label: row["input_psnr"] for label, row in judged["classes"].items()},
        "restored_db": {label: row["psnr"] for label, row in judged["classes"].items()},
        "input_average_db": judged["average"]["input_psnr"],
        "restored_average_db": judged["average"]["psnr"],
        "seconds": step.seconds,
    }


def noise_before_clipping(root: Path) -> float:
    """Mean PSNR in dB of CBSD68 at sigma 25, before it is clipped and cut to uint8."""
    scores: list[float] = []
    for sample in load_dataset("denoise", "test", root, packed=False):
        if sample.noise_sigma == 25 and sample.clean is not None:
            clean = sample.clean.read()
            error = unclipped_noise(clean, 25.0, sample.id).astype(np.float64) - clean
            scores.append(float(10 * np.log10(255**2 / np.mean(error**2))))
    return float(np.mean(scores))


def leaks_between(step: Step, source: Path, train: str, test: str) -> tuple[int, int] | None:
    """(leaks, different photographs in ``test``) as `mmfe data check` reports them."""
    name = f"leaks-{train}-{test}".replace("/", "-")
    root = step.folder / "data" / name
    if not link_set(source, root, {"train": train, "test": test}, None):
        return None
    report = step.run(
        "leaks", "data", "check", "--dataset", "synth", "--root", f"data/{name}", may_fail=True
    )
    return len(report["leaks"]), report["distinct"]["test"]


KNOWN_LEAKS: tuple[tuple[str, str, int | None], ...] = (
    ("bsd400/train", "rain100l/test/norain", 75),
    ("bsd400/test", "rain100l/train/norain", None),
    ("bsd400/train", "cbsd68", 0),
    ("bsd400/test", "cbsd68", 0),
)
"""(train, test, photographs of ``test`` that ``train`` holds); None for all of them."""

DISTINCT = {"rain100l": 91}
"""Different photographs among a set's test photographs."""


def comparisons(rows: list[dict[str, Any]], folder: Path, source: Path) -> list[dict[str, Any]]:
    """What was found beside what is known: (what, here, known, holds)."""
    found: list[tuple[str, float, float]] = []
    for row in rows:
        name = row["set"]
        if name in INPUT_DB:
            found.append((f"{name}: input, dB", row["input_average_db"], INPUT_DB[name]))
        if name in DISTINCT:
            found.append((f"{name}: different scenes", row["distinct"]["test"], DISTINCT[name]))
        if name == "denoise":
            here = noise_before_clipping(folder / "data" / name)
            found.append(("CBSD68, sigma 25, unclipped, dB", here, NOISE_DB))
        found.append((f"{name}: bad files or pairs", row["bad"], 0))
        found.append((f"{name}: splits read from packs", row["packed"], 2))
        found.append((f"{name}: guide calls of train", row["guide_calls"], 0))
    step = Step(folder)
    for train, test, known in KNOWN_LEAKS:
        leaks = leaks_between(step, source, train, test)
        if leaks is not None:
            everything = len(list_images(source / test).images)
            found.append((f"{test} in {train}", leaks[0], everything if known is None else known))
    return [
        {"what": what, "here": here, "known": known, "holds": abs(here - known) < 0.005 + 1e-9}
        for what, here, known in found
    ]


def show(rows: list[dict[str, Any]], compared: list[dict[str, Any]]) -> None:
    """Print both tables."""
    print(
        f"{'set':9} {'train':>6} {'test':>5} {'of':>11} {'pack/files':>10} {'encoded':>8} "
        f"{'steps':>5} {'input dB':>9} {'restored':>9} {'seconds':>8}  layouts"
    )
    for row in rows:
        pairs, whole = row["pairs"], row["published"]
        of = f"{whole.get('train') or '-'}/{whole.get('test') or '-'}"
        print(
            f"{row['set']:9} {pairs['train']:6} {pairs['test']:5} {of:>11} "
            f"{row['pack_ratio']:10.2f} {row['encodings']:8} {row['steps']:5} "
            f"{row['input_average_db']:9.2f} {row['restored_average_db']:9.2f} "
            f"{sum(row['seconds'].values()):8.0f}  {', '.join(row['layouts'])}"
        )
    print()
    for line in compared:
        verdict = "" if line["holds"] else "  DIFFERS"
        print(f"{line['what']:44} {line['here']:9.2f} {line['known']:9.2f}{verdict}")


def main() -> int:
    """Run everything, print, and say whether it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="a new folder to keep; a temporary one without")
    parser.add_argument("--only", nargs="*", choices=tuple(SETS), default=tuple(SETS))
    parser.add_argument("--photographs", type=int, default=12, help="of synth, in each split")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.out is not None and options.out.exists():
        parser.error(f"{options.out} exists; name a new folder")
    out = options.out or Path(tempfile.mkdtemp())
    source = options.folder.resolve()
    try:
        rows: list[dict[str, Any]] = []
        for name in options.only:
            most = options.photographs if name == "synth" else None
            if link_set(source, out / "data" / name, SETS[name], most):
                rows.append(one_set(name, out))
            else:
                print(f"{name}: left out, not all of it is in {source}", file=sys.stderr)
        compared = comparisons(rows, out, source)
    finally:
        if options.out is None:
            shutil.rmtree(out)
    holds = bool(rows) and all(line["holds"] for line in compared)
    if options.json:
        print(json.dumps({"rows": rows, "compared": compared, "holds": holds}))
    else:
        show(rows, compared)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
