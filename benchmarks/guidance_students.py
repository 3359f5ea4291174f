"""What a teacher's network loses when the student takes its place.

    python -m benchmarks.guidance_students STUDY --teacher scene [--seeds 3] [--test-scenes N]
        [--student-init random] [--json]

STUDY is the folder of `benchmarks.guidance_study` with `--students TEACHER`. Every finished run
`full` of the teacher is judged again on the student's cache of the test split, image by image, and
the share of the teacher's gain over `baseline` that is left is given, with its interval over the
scenes. What either costs in seconds: `benchmarks.latency`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.guidance_answers import SHARE_AIM, label_of, share_kept, share_said
from benchmarks.guidance_contrasts import averages, contrast, said
from benchmarks.guidance_rows import VIEW
from benchmarks.guidance_study import first_scenes, student_path
from benchmarks.guidance_trainings import Test, judge, tag
from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import UsageError
from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import store_path
from mmfe_restore.evaluation import load_checkpoint


def swapped(
    study: Path, teacher: str, seeds: int, scenes: int | None, init: str = "scene"
) -> dict[str, Any]:
    """The teacher's networks with either guide, and the share of the gain that is left.

    Raises:
        UsageError: a run that is needed is not there, or was judged on other scenes.
    """
    root, cache = study / "set", study / "cache"
    student = str(student_path(study, teacher, init))
    every = load_dataset("cdd11", "test", root)
    store = store_path("cdd11", "test", student, root=cache)
    build_cache(every, load_guide(student), (VIEW,), store)
    test = Test("test", first_scenes(every, scenes), cache)
    runs = [study / "runs" / f"full-{tag(teacher)}-{seed}" for seed in range(seeds)]
    base = [_result(study / "runs" / f"baseline-{seed}", test) for seed in range(seeds)]
    known = [_result(run, test) for run in runs]
    mine = [
        {"tests": {"test": judge(load_checkpoint(run).recipe, test, run / "model", student)}}
        for run in runs
    ]
    means = [sum(averages(row, "test")) / seeds for row in (base, known, mine)]
    return {
        "teacher": label_of(teacher, {}),
        "student_init": init,
        "seeds": seeds,
        "baseline": means[0],
        "with_teacher": means[1],
        "with_student": means[2],
        "student_less_teacher": contrast(mine, known, "test"),
        **share_kept(base, known, mine, "test"),
        "share_aim": SHARE_AIM,
    }


def _result(run: Path, test: Test) -> dict[str, Any]:
    """What the study wrote of a run.

    Raises:
        UsageError: it is not there, or is of other scenes.
    """
    again = "benchmarks.guidance_study --students TEACHER --rows baseline full"
    try:
        found = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise UsageError("the study lacks a run", got=run, remedy=again) from problem
    judged = set(found.get("tests", {}).get("test", {}).get("scenes", ()))
    wanted = {sample.scene for sample in test.samples}
    if judged != wanted:
        raise UsageError(
            f"{run} was judged on other scenes",
            got=f"{len(judged)} scenes",
            expected=f"the {len(wanted)} that the student is judged on",
            remedy="the study's own --test-scenes",
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--teacher", default="scene")
    parser.add_argument("--student-init", choices=("scene", "random"), default="scene")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-scenes", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = swapped(
        arguments.study,
        arguments.teacher,
        arguments.seeds,
        arguments.test_scenes,
        arguments.student_init,
    )
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"baseline {found['baseline']:.2f} dB, with {found['teacher']} "
        f"{found['with_teacher']:.2f} dB, with its student {found['with_student']:.2f} dB: "
        f"{share_said(found)} of the gain is left (aim {SHARE_AIM:.0%})\n"
        f"student less teacher: {said(found['student_less_teacher'])}"
    )


if __name__ == "__main__":
    main()
