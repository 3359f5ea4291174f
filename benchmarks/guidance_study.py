"""Does guidance help? The paper's central claim, with controls that tell information from size.

Trains the rows below on one synthetic set with an equal budget and compares them on photographs
that no row has seen. `shuffled` gives every sample another sample's embeddings, `constant` gives
all samples the same: the same network without the information.

    python -m benchmarks.guidance_study --photos BSD400 --test-photos CBSD68 --out study
        [--steps 1000] [--seeds 3] [--first-seed 0] [--seeded full full-no-mgl ...]
        [--budgets 1 2 4]
        [--rows full baseline ...] [--guides scene oracle] [--students scene ...]
        [--student-init random]
        [--scenes CDD11_SCENES] [--jobs N]
        [--max-side N] [--test-scenes N] [--unknown low] [--json]

A guide is a name, `timm:MODEL,weights=FILE`, a directory or a file. `--students scene` distils a
student of `scene` from its training cache and runs the rows with it too; what a network that was
trained with the teacher loses when the student takes its place is `benchmarks.guidance_students`.
A student begins with the eyes of the shipped `scene`, which its own teacher's student need not
learn; with `--student-init random` it learns them too.
A run that was stopped goes on when the same command is given again: data, caches and every row's
training resume, and finished rows are not repeated; a row that other settings trained is refused.
With `--unknown low` the oracle knows where
low light is, but not how strong: what a single picture hardly shows. `--budgets 1 2 4` trains the
rows of `BUDGET_ROWS` with twice and four times the steps as well; `--scenes` judges every row on
the photographs of another folder too, by which nothing was chosen. The rows view-… compare what the
guide is shown: the whole picture shrunk to the crop's size, as `cdd11`, or as `cdd11-crop` and
`cdd11-aligned`. benchmarks/guidance_contrasts.py tests the differences between rows,
benchmarks/guidance_answers.py those between guides.

The aim: `full` beats `baseline` by 0.5 dB and its own `shuffled` by 0.3 dB.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.guidance_answers import (
    answer_line,
    answers_of,
    label_of,
    share_line,
    shares_of,
)
from benchmarks.guidance_contrasts import contrast_line, contrasts_of
from benchmarks.guidance_rows import ROWS, SEEDED, VIEW, VIEW_ROWS, recipe_of
from benchmarks.guidance_trainings import (
    Sources,
    Test,
    rows_of,
    run,
    run_side_by_side,
    tag,
)
from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.degradations import KINDS
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.student.training import Settings, distill
from mmfe_cache.io import counted
from mmfe_cache.packing import pack, pack_path
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store import open_cache, store_path

MIDDLE = 0.75
"""The middle of CDD11's severities, 0.5 to 1."""


def blurred(samples: SampleSet, kind: str | None) -> SampleSet:
    """The same samples, each ``kind`` that is there recorded as of `MIDDLE` severity."""
    if kind is None:
        return samples

    def vague(sample: Sample) -> Sample:
        known = dict(sample.severities or {})
        return replace(sample, severities={**known, kind: MIDDLE} if kind in known else known)

    return replace(samples, samples=tuple(vague(sample) for sample in samples))


def prepare(arguments: argparse.Namespace) -> Sources:
    """The sets, the training one packed, and their caches: whole or resumed."""
    root = arguments.out / "set"
    cache = arguments.out / (f"cache-without-{arguments.unknown}" if arguments.unknown else "cache")
    write_synth(
        arguments.photos, root, test_photos=arguments.test_photos, max_side=arguments.max_side
    )
    packed = pack_path(root, "cdd11", "train")
    if not packed.exists():
        pack(load_dataset("cdd11", "train", root), packed)
    for student, teacher in students_of(arguments).items():
        if not Path(student).exists():
            samples = load_dataset("cdd11", "train", root)
            store = store_path("cdd11", "train", teacher, root=cache)
            build_cache(samples, load_guide(teacher), (VIEW,), store)
            settings = Settings(init=arguments.student_init)
            distill(open_cache(store), samples, Path(student), settings)
        if student not in arguments.guides:
            arguments.guides.append(student)
    tests = [Test("test", load_dataset("cdd11", "test", root), cache)]
    if arguments.scenes is not None:
        second = arguments.out / "scenes"
        clear = arguments.scenes / "clear"
        # A set has a training split; one photograph is enough for what is only judged on.
        one = sorted(path for path in arguments.photos.rglob("*") if path.is_file())[:1]
        photos = clear if clear.is_dir() else arguments.scenes
        write_synth(one, second, test_photos=photos, max_side=arguments.max_side)
        tests.append(Test("scenes", load_dataset("cdd11", "test", second), second / cache.name))
    for name in arguments.guides:
        recipes = [recipe_of(row, name, 0, 1, arguments.set) for row in arguments.rows]
        guided = [recipe for recipe in recipes if recipe.model.reads]
        training = dict.fromkeys(view for recipe in guided for view in recipe.training_views)
        judged = dict.fromkeys(recipe.eval.view for recipe in guided)
        guide = load_guide(name)
        sets = [(load_dataset("cdd11", "train", root), training, cache)]
        sets += [(test.samples, judged, test.cache) for test in tests]
        for samples, views, folder in sets:
            if views:
                place = store_path("cdd11", samples.split, name, root=folder)
                build_cache(blurred(samples, arguments.unknown), guide, tuple(views), place)
    kept = [
        replace(test, samples=first_scenes(test.samples, arguments.test_scenes)) for test in tests
    ]
    return Sources(root, cache, tuple(kept))


def student_path(out: Path, teacher: str, init: str = "scene") -> Path:
    """Where the student of ``teacher`` lies that began with these eyes."""
    return out / "students" / f"{tag(teacher)}{'' if init == 'scene' else f'-{init}'}.safetensors"


def students_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The students that the command asks for, each one's file to its teacher."""
    init = arguments.student_init
    return {str(student_path(arguments.out, t, init)): t for t in arguments.students}


def first_scenes(samples: SampleSet, count: int | None) -> SampleSet:
    """All samples of the first ``count`` scenes by name; None for all."""
    kept = set(sorted({sample.scene for sample in samples})[:count])
    return replace(samples, samples=tuple(one for one in samples if one.scene in kept))


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows; every finished one is printed at once."""
    sources = prepare(arguments)
    wanted = rows_of(arguments)
    if arguments.jobs > 1:
        trainings = [training for row in wanted for training in row.trainings]
        run_side_by_side(trainings, sources, arguments.jobs, arguments.json)
    rows: list[dict[str, Any]] = []
    contrasts: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    students, tests = students_of(arguments), [test.name for test in sources.tests]
    for budget in arguments.budgets:
        done: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        for row in (one for one in wanted if one.budget == budget):
            found = [run(recipe, sources, out) for recipe, out in row.trainings]
            done[row.name, row.guide] = found
            rows.append(summary(row.name, row.guide, budget, found))
            if not arguments.json:
                print(line(rows[-1], students), flush=True)
        contrasts += contrasts_of(done, budget, tests)
        if budget == 1:
            answers += answers_of(done, arguments.guides, students, tests)
            shares += shares_of(done, students, tests)
    plain = [row for row in rows if row["budget"] == 1]
    return {
        "steps": arguments.steps,
        "rows": rows,
        "contrasts": contrasts,
        "answers": answers,
        "shares": shares,
        "aims": aims(plain),
    }


def summary(
    row: str, guide: str | None, budget: int, found: list[dict[str, Any]]
) -> dict[str, Any]:
    """Mean and spread (sample standard deviation; None of one) over the seeds of one row."""
    psnr = [result["average"]["psnr"] for result in found]
    return {
        "row": row,
        "guide": guide,
        "budget": budget,
        "seeds": len(found),
        "parameters": found[0]["parameters"],
        "input_psnr": found[0]["average"]["input_psnr"],
        "psnr": mean(psnr),
        "spread": stdev(psnr) if len(psnr) > 1 else None,
        "ssim_uniform": mean(result["average"]["ssim_uniform"] for result in found),
        "classes": {
            label: mean(result["classes"][label]["psnr"] for result in found)
            for label in found[0]["classes"]
        },
        "tests": {
            name: mean(result["tests"][name]["average"]["psnr"] for result in found)
            for name in found[0]["tests"]
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


def line(row: dict[str, Any], students: dict[str, str]) -> str:
    """One row for people."""
    longer = f" ×{row['budget']}" if row["budget"] != 1 else ""
    second = "".join(
        f" {name} {value:.2f}" for name, value in row["tests"].items() if name != "test"
    )
    spread = "" if row["spread"] is None else f" ± {row['spread']:.2f}"
    return (
        f"{row['row'] + longer:12} {label_of(row['guide'], students):7} "
        f"{row['parameters'] / 1e6:6.2f} M "
        f"{row['psnr']:6.2f} dB{spread} ({counted(row['seeds'], 'seed')}, "
        f"input {row['input_psnr']:.2f}) SSIM {row['ssim_uniform']:.4f}{second}"
    )


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--test-photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="where another machine trained those before it"
    )
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=None)
    parser.add_argument("--seeded", nargs="*", choices=list(ROWS), default=list(SEEDED))
    parser.add_argument("--budgets", nargs="*", type=int, default=[1], help="times --steps")
    parser.add_argument(
        "--scenes", type=Path, help="a second test set: clean photographs, or a folder of clear/"
    )
    parser.add_argument("--guides", nargs="*", default=["scene", "oracle"])
    parser.add_argument(
        "--students",
        nargs="*",
        default=[],
        metavar="TEACHER",
        help="also distil a student of each of these guides, and run the rows with it",
    )
    parser.add_argument("--student-init", choices=("scene", "random"), default="scene")
    parser.add_argument("--max-side", type=int, default=None)
    parser.add_argument("--test-scenes", type=int, default=None, help="judge the first N only")
    parser.add_argument(
        "--unknown", choices=KINDS, help="how strong this is, the oracle does not know"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings side by side; a dozen fill a GPU"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.unknown and arguments.guides != ["oracle"]:
        parser.error("--unknown goes with --guides oracle: other guides read no severities")
    if arguments.rows is None:
        arguments.rows = [row for row in ROWS if row not in VIEW_ROWS]
    if min(*arguments.budgets, arguments.seeds, arguments.jobs) < 1 or arguments.first_seed < 0:
        parser.error("--seeds, --budgets and --jobs are at least 1, --first-seed at least 0")
    found = study(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for one in found["contrasts"]:
        print(contrast_line(one))
    for one in found["answers"]:
        print(answer_line(one))
    for one in found["shares"]:
        print(share_line(one))
    for name, value in found["aims"].items():
        print(f"{name}: {'not run' if value is None else f'{value:.2f}'}")


if __name__ == "__main__":
    main()
