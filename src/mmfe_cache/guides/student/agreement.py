"""How near one guide's embeddings come to those in another's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES, Embeddings
from mmfe_cache.errors import CacheError, GuideError
from mmfe_cache.guides.base import Guide
from mmfe_cache.guides.lineage import check_teacher, guide_fingerprint
from mmfe_cache.guides.scene.evaluation import spearman, unit_rows
from mmfe_cache.guides.student.data import LEAST_COMPARED, check_picture, ids_learnt
from mmfe_cache.guides.student.guide import StudentGuide
from mmfe_cache.progress import Progress
from mmfe_cache.samples import Sample
from mmfe_cache.seeds import generator
from mmfe_cache.store import CacheReader
from mmfe_cache.views import View

MOST = 512
"""Samples that are compared at each view, drawn evenly."""

_BATCH = 16

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KindAgreement:
    """One kind of embedding at one view.

    Attributes:
        r2: share of the teacher's variance about its mean (each token's own) that is explained.
        cosine: mean cosine similarity of each vector with the teacher's.
        cosine_centred: the same after the teacher's mean is taken off: what is common to all
            pictures does not count.
    """

    r2: float
    cosine: float
    cosine_centred: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was measured.

    Attributes:
        samples: compared at each view.
        views: by view, each kind of embedding.
        similarities: by view, Spearman's rank correlation between the two guides' cosine
            similarities of all pairs of answers: what L_MGL sees.
        average: of each figure over the views.
    """

    samples: int
    views: Mapping[str, Mapping[str, KindAgreement]]
    similarities: Mapping[str, float]
    average: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def measure_agreement(
    guide: Guide,
    cache: CacheReader,
    samples: Sequence[Sample],
    views: Sequence[str],
    *,
    progress: Progress | None = None,
) -> Agreement:
    """Encode pictures and compare with what the teacher's cache holds of them.

    Args:
        guide: the student.
        cache: the teacher's.
        samples: of the cache's set, two at least.
        views: at which to compare.
        progress: where to report.

    Raises:
        CacheError: a picture is not the one that the cache was built from.
        GuideError: the widths differ, or there are fewer than two samples.
    """
    if guide.dim != cache.dim:
        raise GuideError(
            f"{guide.name} gives embeddings of another width than the teacher",
            got=guide.dim,
            expected=f"{cache.dim} ({cache.guide})",
        )
    if len(samples) < LEAST_COMPARED:
        raise GuideError(
            "too few pictures to compare a student with its teacher",
            got=len(samples),
            expected="two that it did not learn from, at least",
            remedy="the teacher's cache of other photographs, or distill with a larger --hold-out",
        )
    order = np.sort(generator("agreement", len(samples)).permutation(len(samples))[:MOST])
    chosen = [samples[int(place)] for place in order]
    places = cache.index_of([sample.id for sample in chosen])
    digests = cache.pixel_digests_of(places)
    found: dict[str, dict[str, KindAgreement]] = {}
    ranks: dict[str, float] = {}
    report = progress or Progress()
    title = f"comparing {guide.name} with {cache.guide}"
    with report.task(title, len(views) * len(chosen), "pictures") as task:
        for name in views:
            view = View.parse(name)
            parts: list[Embeddings] = []
            for start in range(0, len(chosen), _BATCH):
                batch = chosen[start : start + _BATCH]
                images = [one.degraded.read() for one in batch]
                for one, digest, image in zip(batch, digests[start:], images, strict=False):
                    check_picture(cache, digest, one, image)
                parts.append(guide.encode([view.render(image) for image in images]))
                task.advance(len(batch))
            theirs = cache.gather(places, name, tokens="all")
            kinds: dict[str, KindAgreement] = {}
            for kind in ARRAY_NAMES:
                mine = torch.cat([getattr(part, kind) for part in parts]).double().numpy()
                truth = getattr(theirs, kind).double().numpy()
                kinds[kind] = compare(mine, truth)
                if kind == "answer":
                    ranks[name] = rank_correlation(mine, truth)
            found[name] = kinds
    return Agreement(len(chosen), found, ranks, _average(found, ranks))


def measure_student(
    student: StudentGuide,
    cache: CacheReader,
    samples: Sequence[Sample],
    *,
    progress: Progress | None = None,
) -> tuple[Agreement, bool]:
    """Compare a student with its teacher, on photographs that it did not learn from.

    Args:
        student: the student.
        cache: of its teacher, built from any set.
        samples: that set's.
        progress: where to report.

    Returns:
        What was measured at every view that the student learnt and the cache holds, and whether the
        student learnt from these photographs: then those set aside alone count.

    Raises:
        CacheError: the cache has none of the student's views, or was built from other pictures.
        GuideError: the cache is another guide's, or fewer than two pictures are left.
    """
    wanted = guide_fingerprint(cache.fingerprint)
    check_teacher(student.name, student.teacher, student.teacher_fingerprint, wanted)
    views = [view for view in cache.views if view in student.views]
    if not views:
        raise CacheError(
            f"{cache.path} has no view that the student learnt at",
            got=", ".join(cache.views) or "no finished view",
            expected=", ".join(student.views),
            remedy="mmfe cache build with one of them",
        )
    gone = set(cache.skipped)
    chosen = [sample for sample in samples if sample.id not in gone]
    facts = student.facts
    aside = set(facts.get("held_out_scenes", ()))
    # The teacher's cache may have been built anew, with other shards or in another precision.
    same_set = (facts.get("dataset"), facts.get("split")) == (cache.dataset, cache.split)
    others = ids_learnt([sample for sample in chosen if sample.scene not in aside])
    learnt_here = facts.get("cache") == cache.metadata.id or (
        same_set and facts.get("learnt") == others
    )
    if learnt_here:
        chosen = [sample for sample in chosen if sample.scene in aside]
    return measure_agreement(student, cache, chosen, views, progress=progress), learnt_here


def compare(mine: Array, truth: Array) -> KindAgreement:
    """N samples' vectors, (N, D) or (N, T, D), beside the teacher's."""
    mean = truth.mean(axis=0)
    spread = float(((truth - mean) ** 2).sum())
    missed = float(((truth - mine) ** 2).sum())
    return KindAgreement(
        1 - missed / spread if spread > 0 else float("nan"),
        _cosine(mine, truth),
        _cosine(mine - mean, truth - mean),
    )


def rank_correlation(mine_ND: Array, truth_ND: Array) -> float:
    """Spearman's correlation of the cosine similarities of all pairs; NaN where one is constant."""
    pairs = np.triu_indices(len(truth_ND), k=1)
    units = (unit_rows(rows) for rows in (mine_ND, truth_ND))
    return spearman(*((unit @ unit.T)[pairs] for unit in units))


def _cosine(mine: Array, truth: Array) -> float:
    lengths = np.linalg.norm(mine, axis=-1) * np.linalg.norm(truth, axis=-1)
    return float(((mine * truth).sum(axis=-1) / lengths.clip(1e-12)).mean())


def _average(
    found: Mapping[str, Mapping[str, KindAgreement]], ranks: Mapping[str, float]
) -> dict[str, Any]:
    means = {
        kind: {
            figure: float(np.mean([getattr(kinds[kind], figure) for kinds in found.values()]))
            for figure in ("r2", "cosine", "cosine_centred")
        }
        for kind in ARRAY_NAMES
    }
    return {**means, "similarities": float(np.mean([*ranks.values()]))}
