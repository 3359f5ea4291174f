"""What a teacher's network loses when the student takes its place, and what each costs.

    python -m benchmarks.guidance_students STUDY --teacher scene [--seeds 3] [--test-scenes N]
        [--json]

STUDY is the folder of `benchmarks.guidance_study` with `--students TEACHER`. Every finished run
`full` of the teacher is judged again on the student's cache of the test split, image by image, and
the share of the teacher's gain over `baseline` that is left is given. Beside it stand the seconds
that teacher, student and the restorer itself take for one photograph of 1080×720 on this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.guidance_rows import VIEW
from benchmarks.guidance_study import first_scenes, student_path, tag
from mmfe_cache.datasets import load_dataset
from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import open_cache, store_path
from mmfe_cache.views import View
from mmfe_restore.evaluation import evaluate, load_checkpoint
from mmfe_restore.inference import restore_image
from mmfe_restore.model import Restorer

PHOTOGRAPH = (720, 1080)
"""Height and width of CDD11's pictures."""

SHARE_AIM, COST_AIM = 0.95, 0.03


def swapped(study: Path, teacher: str, seeds: int, scenes: int | None) -> dict[str, Any]:
    """The teacher's networks with either guide, and the share of the gain that is left."""
    root, cache = study / "set", study / "cache"
    student = student_path(study, teacher)
    samples = first_scenes(load_dataset("cdd11", "test", root), scenes)
    store = store_path("cdd11", "test", str(student), root=cache)
    build_cache(load_dataset("cdd11", "test", root), load_guide(student), (VIEW,), store)
    base = [_psnr(study / "runs" / f"baseline-{seed}") for seed in range(seeds)]
    known = [_psnr(study / "runs" / f"full-{tag(teacher)}-{seed}") for seed in range(seeds)]
    found: list[float] = []
    for seed in range(seeds):
        run = study / "runs" / f"full-{tag(teacher)}-{seed}"
        opened = load_checkpoint(run)
        report = evaluate(
            opened.restorer,
            opened.recipe,
            samples,
            open_cache(store),
            checkpoint=opened.path,
            with_pictures=False,
        )
        found.append(report.to_json()["average"]["psnr"])
    gains = [(t - b, s - b) for t, s, b in zip(known, found, base, strict=True)]
    return {
        "teacher": teacher,
        "seeds": seeds,
        "baseline": mean(base),
        "with_teacher": mean(known),
        "with_student": mean(found),
        "share_kept": mean(s for _, s in gains) / mean(t for t, _ in gains),
        "share_of_each_seed": [s / t for t, s in gains],
        "share_aim": SHARE_AIM,
    }


def _psnr(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text(encoding="utf-8"))["average"]["psnr"])


def costs(study: Path, teacher: str, rounds: int) -> dict[str, Any]:
    """Seconds for one photograph: each guide's at the study's view and `native`; the restorer's."""
    photograph = np.random.default_rng(0).integers(0, 256, (*PHOTOGRAPH, 3), dtype=np.uint8)
    restorer: Restorer = load_checkpoint(study / "runs" / f"full-{tag(teacher)}-0").restorer.eval()
    found: dict[str, float] = {}
    looked = None
    for name in (teacher, str(student_path(study, teacher))):
        guide = load_guide(name)
        who = "teacher" if name == teacher else "student"
        for view in (VIEW, "native"):
            look = View.parse(view)
            work = lambda: guide.encode([look.render(photograph)])  # noqa: B023, E731
            found[f"{who}, {view}"] = _seconds(work, rounds)
        looked = guide.encode([View.parse(VIEW).render(photograph)]).select("grid")
    found["restorer"] = _seconds(lambda: restore_image(restorer, photograph, looked), rounds)
    share = found[f"student, {VIEW}"] / found["restorer"]
    return {"seconds": found, "student_share_of_restorer": share, "share_aim": COST_AIM}


def _seconds(work: Callable[[], Any], rounds: int) -> float:
    work()
    times: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--teacher", default="scene")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-scenes", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = swapped(arguments.study, arguments.teacher, arguments.seeds, arguments.test_scenes)
    found["costs"] = costs(arguments.study, arguments.teacher, arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"baseline {found['baseline']:.2f} dB, with {found['teacher']} "
        f"{found['with_teacher']:.2f} dB, with its student {found['with_student']:.2f} dB: "
        f"{found['share_kept']:.0%} of the gain is left (aim {SHARE_AIM:.0%})"
    )
    for name, value in found["costs"]["seconds"].items():
        print(f"{name:24} {value:8.3f} s")
    share = found["costs"]["student_share_of_restorer"]
    print(f"the student takes {share:.1%} of the restorer's time (aim {COST_AIM:.0%})")


if __name__ == "__main__":
    main()
