"""Whether a guide may take another's place, by their fingerprints alone: the same, or its student.

Imports neither torch nor a store: restoring a photograph compares two guides and reads no cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmfe_cache.errors import GuideError

_PREFIX = "guide.teacher.fingerprint."


def guide_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a store's fingerprint that says how its guide sees: equal for all splits."""
    return {key: value for key, value in fingerprint.items() if key.startswith("guide.")}


def differing_guide(trained: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The parts of two guides' fingerprints that differ, as ``key: trained / here``.

    Args:
        trained: ``guide.*`` keys, as a store has them.
        here: likewise.

    Returns:
        one for each key; of guides of two kinds, which share little, only those that name them.
    """
    keys = differing_keys(trained, here)
    kinds = trained.get("guide.guide"), here.get("guide.guide")
    if None not in kinds and kinds[0] != kinds[1]:
        keys = [key for key in keys if key in ("guide.guide", "guide.name")]
    return [
        f"{key.removeprefix('guide.')}: {trained.get(key)!r} / {here.get(key)!r}" for key in keys
    ]


_CHECKPOINT = ("guide.checkpoint", "guide.checkpoint_bytes")


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two fingerprints differ, flat, as caches have them; sorted.

    Where a checkpoint was fetched from changes nothing. Its weights have two digests, see
    `checkpoint_digests`: the same ones where any of them agree.
    """
    left_out = {"guide.repository", "guide.checkpoint_bytes"}
    names = [{found[key] for key in _CHECKPOINT if key in found} for found in (one, other)]
    if names[0] & names[1]:
        left_out.add("guide.checkpoint")
    keys = (one.keys() | other.keys()) - left_out
    return sorted(key for key in keys if one.get(key) != other.get(key))


def spellings(fingerprint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A guide's own fingerprint in every way that a cache of it may have it, this one first.

    Where weights were read, ``checkpoint_bytes`` stands beside ``checkpoint``; where they were not,
    it does not, and earlier versions had it in the other's place.
    """
    found = [dict(fingerprint)]
    if "checkpoint_bytes" in fingerprint:
        rest = {key: value for key, value in fingerprint.items() if key != "checkpoint_bytes"}
        found += [rest, {**rest, "checkpoint": fingerprint["checkpoint_bytes"]}]
    return found


def only_precision(differing: Sequence[str]) -> bool:
    """Whether two guides differ in nothing but precision, which changes their last digits only."""
    return all(line.split(":")[0].endswith("dtype") for line in differing)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a student's fingerprint says of its teacher.

    Attributes:
        teacher: its name.
        fingerprint: the teacher's own, flat, as a cache has it (``guide.…``).
        views: at which the student learnt.
    """

    teacher: str
    fingerprint: Mapping[str, Any]
    views: tuple[str, ...]


def lineage_of(fingerprint: Mapping[str, Any]) -> Lineage | None:
    """Read a fingerprint, flat, as a cache has it; None where the guide is not a student."""
    if fingerprint.get("guide.guide") != "student":
        return None
    return Lineage(
        str(fingerprint.get("guide.teacher.name")),
        {k.removeprefix(_PREFIX): v for k, v in fingerprint.items() if k.startswith(_PREFIX)},
        tuple(fingerprint.get("guide.views", ())),
    )


def stands_in(
    name: str, here: Mapping[str, Any], trained: Mapping[str, Any], view: str
) -> Lineage | None:
    """Whether a guide is a student that may take the place of the one in training.

    Args:
        name: of the guide that is here.
        here: its fingerprint, flat.
        trained: the one's in training, flat.
        view: at which it would look.

    Returns:
        None where it is not a student, or where the network was trained with a student itself.

    Raises:
        GuideError: it is a student of another guide, or did not learn at the view.
    """
    lineage = lineage_of(here)
    if lineage is None or trained.get("guide.guide") == "student":
        return None
    check_teacher(name, lineage.teacher, lineage.fingerprint, trained)
    check_student_view(name, lineage.views, view)
    return lineage


def check_teacher(
    name: str, teacher: str, learnt: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuse a student of another guide than the one that it is to stand in for.

    Args:
        name: the student's.
        teacher: its teacher's name.
        learnt: its teacher's fingerprint, flat.
        wanted: the guide's that is asked for; precision alone may differ.

    Raises:
        GuideError: names what differs.
    """
    differing = differing_guide(wanted, learnt)
    if not only_precision(differing):
        raise GuideError(
            f"{name} is a student of {teacher}, and not of the guide that is needed here",
            got=f"{'; '.join(differing)} (needed / its teacher)",
            expected="a student of the same weights, prompt and pooling",
            remedy="mmfe guide distill with the cache of the guide that is needed",
        )


def check_student_view(name: str, learnt: Sequence[str], view: str) -> None:
    """Refuse a view at which a student did not learn; which of the fixed crops is all the same.

    Raises:
        GuideError: names those at which it did.
    """
    if view.split("#")[0] not in {known.split("#")[0] for known in learnt}:
        raise GuideError(
            f"the student {name} did not learn at the view {view}",
            got=view,
            expected=", ".join(learnt),
            remedy="mmfe guide distill with a cache that holds this view",
        )
