"""What the guidance study says of guides: one against another, and what is kept of a gain.

The network is `full` in every comparison, with equal budgets and seeds; only the guide differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.guidance_contrasts import (
    averages,
    by_name,
    contrast,
    interval,
    resampled,
    said,
    scene_means,
)
from mmfe_cache.guides.timm_models import RANDOM, TIMM, TimmName

Done = Mapping[tuple[str, str | None], Sequence[dict[str, Any]]]
"""Results, a seed each, of every row and guide (None for rows without one)."""

SHARE_AIM = 0.95
"""Of its teacher's gain that a student is to keep."""


def label_of(guide: str | None, students: Mapping[str, str]) -> str:
    """A guide's name for people; ``students`` maps a student's file to its teacher."""
    if guide is None:
        return "-"
    if guide in students:
        return f"student of {label_of(students[guide], {})}"
    return TimmName.parse(guide).plain if guide.startswith(TIMM) else guide


def questions(guides: Sequence[str], students: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """What the guides that have run can answer: the question, a guide, and the one less."""
    there = set(guides)
    found = [
        ("continuous less discrete", "scene", "prompt"),
        ("the severities themselves less what is seen of them", "oracle", "scene"),
    ]
    encoders = [name for name in guides if name.startswith(TIMM)]
    random = [name for name in encoders if TimmName.parse(name).weights == RANDOM]
    for trained in (name for name in encoders if name not in random):
        found += [
            ("pretrained less random weights", trained, other)
            for other in random
            if TimmName.parse(other).model == TimmName.parse(trained).model
        ]
        found.append(("trained on degradations less on ImageNet", "scene", trained))
    found += [("a student less its teacher", student, name) for student, name in students.items()]
    return [one for one in found if one[1] in there and one[2] in there]


def answers_of(
    done: Done, guides: Sequence[str], students: Mapping[str, str], tests: Sequence[str]
) -> list[dict[str, Any]]:
    """Each question's difference in dB on every test set, with its intervals and p-values."""
    found: list[dict[str, Any]] = []
    for question, one, other in questions(guides, students):
        rows = done.get(("full", one)), done.get(("full", other))
        if rows[0] is None or rows[1] is None:
            continue
        about = {"question": question, "guides": [label_of(g, students) for g in (one, other)]}
        found += [about | {"test": test} | contrast(rows[0], rows[1], test) for test in tests]
    return found


def shares_of(
    done: Done, students: Mapping[str, str], tests: Sequence[str]
) -> list[dict[str, Any]]:
    """Of the teacher's gain over `baseline`: what a network trained on its student gains."""
    base = done.get(("baseline", None))
    found: list[dict[str, Any]] = []
    for student, teacher in students.items():
        theirs, mine = done.get(("full", teacher)), done.get(("full", student))
        if base is None or theirs is None or mine is None:
            continue
        about = {"student_of": label_of(teacher, {}), "aim": SHARE_AIM}
        found += [about | {"test": test} | share_kept(base, theirs, mine, test) for test in tests]
    return found


def share_kept(
    base: Sequence[dict[str, Any]],
    whole: Sequence[dict[str, Any]],
    part: Sequence[dict[str, Any]],
    test: str,
) -> dict[str, Any]:
    """The share of one row's gain over ``base`` that another row has.

    Args:
        base: results of the row that both are compared with, a seed each.
        whole: of the row whose gain is 1.
        part: of the row in question.
        test: the test set's name.

    Returns:
        ``share`` of the means, ``interval_scenes`` of 95 % by the bootstrap over scenes, and
        ``each_seed``'s where the seeds are as many. All None where some resampled set of scenes
        gives ``whole`` no gain: there is nothing then to have a share of.
    """
    from_base, from_whole, from_part = (averages(row, test) for row in (base, whole, part))
    rows = by_name(*(scene_means(row, test) for row in (base, whole, part)))
    low, high, mine = (resampled(row).mean(axis=1) for row in rows)
    if (high - low).min() <= 0:
        return {"share": None, "interval_scenes": None, "each_seed": None}
    seeds = None
    if len(from_base) == len(from_whole) == len(from_part):
        trios = zip(from_base, from_whole, from_part, strict=True)
        seeds = [(p - b) / (w - b) if w > b else None for b, w, p in trios]
    return {
        "share": (mean(from_part) - mean(from_base)) / (mean(from_whole) - mean(from_base)),
        "interval_scenes": interval((mine - low) / (high - low)),
        "each_seed": seeds,
    }


def answer_line(found: dict[str, Any]) -> str:
    """One answer for people."""
    return f"{found['question']} ({' less '.join(found['guides'])}, {found['test']}): {said(found)}"


def share_line(found: dict[str, Any]) -> str:
    """One share for people."""
    about = f"a network trained on the student of {found['student_of']} ({found['test']})"
    return f"{about} has {share_said(found)} of the gain of the teacher's (aim {found['aim']:.0%})"


def share_said(found: dict[str, Any]) -> str:
    """A share with what makes it uncertain."""
    if found["share"] is None:
        return "no share (the whole is no gain on some choice of scenes)"
    low, high = found["interval_scenes"]
    seeds = "".join(
        f", {'none' if share is None else f'{share:.0%}'}" for share in found["each_seed"] or ()
    )
    each = f"; seed by seed{seeds[1:]}" if seeds else ""
    return f"{found['share']:.0%} (over scenes {low:.0%} to {high:.0%}{each})"
