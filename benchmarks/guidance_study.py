"""Does guidance help? The paper's central claim, with controls that tell information from size.

Trains the rows below on one synthetic set with an equal budget and compares them on photographs
that no row has seen. `shuffled` gives every sample another sample's embeddings, `constant` gives
all samples the same: the same network without the information.

    python benchmarks/guidance_study.py --photos BSD400 --test-photos CBSD68 --out study
        [--steps 1000] [--seeds 3] [--rows full baseline ...] [--guides scene oracle]
        [--students scene ...] [--max-side N] [--test-scenes N] [--unknown low] [--json]

A guide is a name, `timm:MODEL,weights=FILE`, a directory or a file. `--students scene` distils a
student of `scene` from its training cache and runs the rows with it too; what a network that was
trained with the teacher loses when the student takes its place is `benchmarks.guidance_students`.
A run that was stopped goes on when the same command is given again: data, caches and every row's
training resume, and finished rows are not repeated. With `--unknown low` the oracle knows where
low light is, but not how strong: what a single picture hardly shows.

The aim: `full` beats `baseline` by 0.5 dB and its own `shuffled` by 0.3 dB.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.degradations import KINDS
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.student.training import distill
from mmfe_cache.packing import pack, pack_path
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store import open_cache, store_path
from mmfe_restore.evaluation import evaluate
from mmfe_restore.model import Restorer, count_parameters
from mmfe_restore.recipes import Recipe, load_recipe
from mmfe_restore.training import train

UNGUIDED = ("model.encoder_guidance=none", "model.decoder_guidance=none")
NO_EXPERTS = ("model.experts=none", "loss.mgl=0")

ROWS: dict[str, tuple[str, ...]] = {
    "baseline": (*UNGUIDED, *NO_EXPERTS),
    "wide": (*UNGUIDED, *NO_EXPERTS),  # and a width that gives it the full model's parameters
    "mgfb": NO_EXPERTS,
    "mofe": UNGUIDED,
    "full": (),
    "full-no-mgl": ("loss.mgl=0",),
    "shuffled": ("guide.control=shuffled",),
    "constant": ("guide.control=constant",),
}
"""What each row changes; rows without guidance are trained once, not once a guide."""

MORE_SEEDS = ("baseline", "full", "shuffled")
"""Rows that run with every seed (`shuffled` with the first guide's only); the others run once."""

MIDDLE = 0.75
"""The middle of CDD11's severities, 0.5 to 1."""

VIEW = "crop@224"
"""What the guide sees, in training and at the test: more than the network's own 64² crops."""

SIZE = (
    "model.width=16",
    "model.num_blocks=[1,1,1,2]",
    "model.num_refinement_blocks=1",
    "model.num_experts=8",
    "model.guidance_dropout=0",
    "model.expansion=2.66",
    "data.repeats={}",
    f"train.view={VIEW}",
    "train.learning_rate=1e-3",
    "train.log_every=50",
)


def recipe_of(row: str, guide: str, seed: int, steps: int, extra: Sequence[str]) -> Recipe:
    """The recipe of one row."""
    stages = f"train.stages=[{{epochs: {steps}, resolution: 64, batch_size: 8}}]"
    overrides = [
        f"guide={guide}",
        *SIZE,
        stages,
        f"train.max_steps={steps}",
        f"train.seed={seed}",
        f"eval.view={VIEW}",
        *ROWS[row],
        *extra,
    ]
    recipe = load_recipe("demo", overrides)
    if row != "wide":
        return recipe
    full = parameters(load_recipe("demo", [f"guide={guide}", *SIZE, *extra]))
    widths = range(recipe.model.width, 4 * recipe.model.width, 2)
    candidates = [load_recipe("demo", [*overrides, f"model.width={width}"]) for width in widths]
    return min(candidates, key=lambda candidate: abs(parameters(candidate) - full))


def parameters(recipe: Recipe) -> int:
    """Parameters of the recipe's network."""
    return count_parameters(Restorer(recipe.model))


def blurred(samples: SampleSet, kind: str | None) -> SampleSet:
    """The same samples, each ``kind`` that is there recorded as of `MIDDLE` severity."""
    if kind is None:
        return samples

    def vague(sample: Sample) -> Sample:
        known = dict(sample.severities or {})
        return replace(sample, severities={**known, kind: MIDDLE} if kind in known else known)

    return replace(samples, samples=tuple(vague(sample) for sample in samples))


def prepare(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The set, packed, and its caches: whole or resumed."""
    root = arguments.out / "set"
    cache = arguments.out / (f"cache-without-{arguments.unknown}" if arguments.unknown else "cache")
    write_synth(
        arguments.photos, root, test_photos=arguments.test_photos, max_side=arguments.max_side
    )
    packed = pack_path(root, "cdd11", "train")
    if not packed.exists():
        pack(load_dataset("cdd11", "train", root), packed)
    for teacher in arguments.students:
        student = student_path(arguments.out, teacher)
        if not student.exists():
            samples = load_dataset("cdd11", "train", root)
            store = store_path("cdd11", "train", teacher, root=cache)
            build_cache(samples, load_guide(teacher), (VIEW,), store)
            distill(open_cache(store), samples, student)
        if str(student) not in arguments.guides:
            arguments.guides.append(str(student))
    for name in arguments.guides:
        guide = load_guide(name)
        for split in ("train", "test"):
            samples = blurred(load_dataset("cdd11", split, root), arguments.unknown)
            build_cache(samples, guide, (VIEW,), store_path("cdd11", split, name, root=cache))
    return root, cache


def tag(guide: str) -> str:
    """A guide's name for a folder: that of its caches, which tells files and weights apart."""
    return store_path("cdd11", "train", guide).stem


def student_path(out: Path, teacher: str) -> Path:
    """Where the student of ``teacher`` lies."""
    return out / "students" / f"{tag(teacher)}.safetensors"


def first_scenes(samples: SampleSet, count: int | None) -> SampleSet:
    """All samples of the first ``count`` scenes by name; None for all."""
    kept = set(sorted({sample.scene for sample in samples})[:count])
    return replace(samples, samples=tuple(one for one in samples if one.scene in kept))


def run(recipe: Recipe, root: Path, cache: Path, out: Path, scenes: int | None) -> dict[str, Any]:
    """Train and judge one row; a finished one is read back."""
    result = out / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    report = train(recipe, root=root, cache=cache, out=out)
    samples = first_scenes(load_dataset("cdd11", "test", root), scenes)
    store = store_path("cdd11", "test", recipe.guide.name, root=cache)
    scores = evaluate(
        Restorer.from_pretrained(out / "model"),
        recipe,
        samples,
        open_cache(store) if recipe.model.reads else None,
        with_pictures=False,
    ).to_json()
    found = {
        "parameters": parameters(recipe),
        "steps": report.total_steps,
        "average": scores["average"],
        "classes": scores["classes"],
    }
    result.write_text(json.dumps(found, indent=2))
    return found


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows; every finished one is printed at once."""
    root, cache = prepare(arguments)
    rows: list[dict[str, Any]] = []
    for row in arguments.rows:
        guided = bool(recipe_of(row, arguments.guides[0], 0, 1, arguments.set).model.reads)
        for guide in arguments.guides if guided else arguments.guides[:1]:
            often = row in MORE_SEEDS and (row != "shuffled" or guide == arguments.guides[0])
            seeds = range(arguments.seeds if often else 1)
            found: list[dict[str, Any]] = []
            for seed in seeds:
                recipe = recipe_of(row, guide, seed, arguments.steps, arguments.set)
                known = tag(guide)
                knows = f"{known}-without-{arguments.unknown}" if arguments.unknown else known
                name = f"{row}-{knows}-{seed}" if guided else f"{row}-{seed}"
                out = arguments.out / "runs" / name
                found.append(run(recipe, root, cache, out, arguments.test_scenes))
            rows.append(summary(row, guide if guided else None, found))
            if not arguments.json:
                print(line(rows[-1]), flush=True)
    return {"steps": arguments.steps, "rows": rows, "aims": aims(rows)}


def summary(row: str, guide: str | None, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of one row."""
    psnr = [result["average"]["psnr"] for result in found]
    return {
        "row": row,
        "guide": guide,
        "seeds": len(found),
        "parameters": found[0]["parameters"],
        "input_psnr": found[0]["average"]["input_psnr"],
        "psnr": mean(psnr),
        "spread": pstdev(psnr),
        "ssim_uniform": mean(result["average"]["ssim_uniform"] for result in found),
        "classes": {
            label: mean(result["classes"][label]["psnr"] for result in found)
            for label in found[0]["classes"]
        },
    }


def aims(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """What the study is to show, in dB, and the share of the oracle's gain that is kept."""
    by = {(row["row"], row["guide"]): row["psnr"] for row in rows}
    base = by.get(("baseline", None))
    full, oracle = by.get(("full", "scene")), by.get(("full", "oracle"))
    shuffled = by.get(("shuffled", "scene"))

    def less(one: float | None, two: float | None) -> float | None:
        return None if one is None or two is None else one - two

    kept, ceiling = less(full, base), less(oracle, base)
    return {
        "full_minus_baseline": kept,
        "full_minus_shuffled": less(full, shuffled),
        "share_of_oracle": kept / ceiling if kept is not None and ceiling else None,
    }


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    return (
        f"{row['row']:12} {row['guide'] or '-':7} {row['parameters'] / 1e6:6.2f} M "
        f"{row['psnr']:6.2f} dB ± {row['spread']:.2f} ({row['seeds']} seeds, "
        f"input {row['input_psnr']:.2f}) SSIM {row['ssim_uniform']:.4f}"
    )


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--test-photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--guides", nargs="*", default=["scene", "oracle"])
    parser.add_argument(
        "--students",
        nargs="*",
        default=[],
        metavar="TEACHER",
        help="also distil a student of each of these guides, and run the rows with it",
    )
    parser.add_argument("--max-side", type=int, default=None)
    parser.add_argument("--test-scenes", type=int, default=None, help="judge the first N only")
    parser.add_argument(
        "--unknown", choices=KINDS, help="how strong this is, the oracle does not know"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.unknown and arguments.guides != ["oracle"]:
        parser.error("--unknown goes with --guides oracle: other guides read no severities")
    found = study(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found["aims"].items():
        print(f"{name}: {'not run' if value is None else f'{value:.2f}'}")


if __name__ == "__main__":
    main()
