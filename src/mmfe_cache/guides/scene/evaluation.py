"""How well a guide sees degradations: the measurements of the guides' model card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mmfe_cache.datasets.photographs import Photograph
from mmfe_cache.degradations import CLEAR, COMPOSITIONS, KINDS, PROCEDURAL, DegradationConfig
from mmfe_cache.images import read_noted
from mmfe_cache.progress import Progress, Task
from mmfe_cache.views import View

from ..base import Guide
from ..prompt import CLASSES, PromptGuide
from .data import Rendered, compose
from .guide import SceneEstimate, SceneGuide
from .network import TRAITS

DOMINANCE = 2.0
"""How many times the next severity the dominant one must be (Figure 1's claim, as tested here)."""

TRIPLES = tuple(name for name in COMPOSITIONS if name.count("_") == 2)
"""The compositions of three degradations."""

TRIPLE_DRAWS = 4
"""Pictures of each triple per photograph: few of them have a clearly dominant part."""

_BATCH = 16

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GuideScores:
    """What was measured.

    Attributes:
        guide: its name.
        photos: how many photographs.
        view: the view the guide saw.
        average_precision: per label at CDD11's severities, clear pictures included; None for a
            guide that predicts no labels.
        mean_average_precision: their mean.
        spearman: per label, predicted against true severity over all eleven compositions, with
            severities drawn from U(0, 1); 0 where the degradation is not there (not predicted).
        spearman_present: the same over the pictures that hold it only, which is harder.
        severity_error: per label, root mean square error of the predicted severity at CDD11's
            severities, over the pictures that hold it.
        severity_spread: the true severities' standard deviation over the same pictures: the error
            of a guide that always names their mean.
        spearman_traits: per trait (`TRAITS`), over the pictures that have it.
        quiet_on_clear: the share of clear photographs on which no label's probability is above 0.5.
        dominant_share: of the triple compositions whose strongest severity is at least twice the
            next, how many lie nearest to the centroid of the pictures that suffer from the
            strongest one alone, among the four such centroids (Euclidean, on ``answer``).
        dominant_share_cosine: the same by cosine similarity.
        dominant_samples: how many such compositions there were.
        class_accuracy: per class of `CLASSES`, at CDD11's severities, how many of its pictures are
            assigned to it: by ``prompt``, or by the labels of ``scene``; None for other guides.
        mean_class_accuracy: their mean.
        chance: the share expected of a guide that sees nothing.
    """

    guide: str
    photos: int
    view: str
    average_precision: Mapping[str, float] | None
    mean_average_precision: float | None
    spearman: Mapping[str, float] | None
    spearman_present: Mapping[str, float] | None
    severity_error: Mapping[str, float] | None
    severity_spread: Mapping[str, float]
    spearman_traits: Mapping[str, float] | None
    quiet_on_clear: float | None
    dominant_share: float
    dominant_share_cosine: float
    dominant_samples: int
    class_accuracy: Mapping[str, float] | None = None
    mean_class_accuracy: float | None = None
    chance: float = 1 / len(KINDS)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """A guide's view of N pictures.

    Attributes:
        answer: (N, D) embeddings.
        truth: (N, 4) true severities, 0 where absent.
        present: (N, 4) whether each degradation is there.
        composition: (N,) names.
        traits: (N, 3) true traits, NaN where there is none.
        probability: (N, 4) predicted presence; None where the guide predicts none.
        predicted: (N, 4) predicted severities; None likewise.
        predicted_traits: (N, 3); None likewise.
        named: (N,) the class that each is assigned to; None where the guide assigns none.
    """

    answer: Array
    truth: Array
    present: NDArray[np.bool_]
    composition: NDArray[np.str_]
    traits: Array
    probability: Array | None = None
    predicted: Array | None = None
    predicted_traits: Array | None = None
    named: NDArray[np.str_] | None = None


def evaluate_guide(
    guide: Guide,
    photos: Sequence[Photograph],
    *,
    view: str = "whole@224",
    seed: int = 0,
    config: DegradationConfig = PROCEDURAL,
    progress: Progress | None = None,
) -> GuideScores:
    """Measure a guide on degraded photographs that it never saw.

    Args:
        guide: any guide that reads pictures; labels and severities are measured for ``scene``.
        photos: clean photographs, such as `clean_photographs` finds.
        view: what the guide sees of each.
        seed: of the degradations.
        config: masks and maps to use instead of procedural ones.
        progress: where to report.
    """
    seen_at = View.parse(view)
    report = progress or Progress()
    total = len(photos) * (1 + 2 * len(COMPOSITIONS) + TRIPLE_DRAWS * len(TRIPLES))
    with report.task(f"evaluating {guide.name}", total, "pictures") as task:

        def see(names: Sequence[str], draws: int, *, uniform: bool) -> Seen:
            pictures = _pictures(photos, names, draws, seed, config, uniform=uniform)
            return _encode_pictures(guide, pictures, seen_at, task)

        published = see((CLEAR, *COMPOSITIONS), 1, uniform=False)
        uniform = see(COMPOSITIONS, 1, uniform=True)
        triples = see(TRIPLES, TRIPLE_DRAWS, uniform=True)
    precision = _precisions(published)
    euclidean, cosine, count = dominant_share(published, triples)
    accuracy = class_accuracies(published)
    return GuideScores(
        guide=guide.name,
        photos=len(photos),
        view=seen_at.name,
        average_precision=precision,
        mean_average_precision=None if precision is None else float(np.mean([*precision.values()])),
        spearman=_rank_correlations(uniform, present_only=False),
        spearman_present=_rank_correlations(uniform, present_only=True),
        severity_error=severity_errors(published),
        severity_spread={
            kind: float(published.truth[published.present[:, k], k].std())
            for k, kind in enumerate(KINDS)
        },
        spearman_traits=_trait_correlations(uniform),
        quiet_on_clear=quiet_on_clear(published),
        dominant_share=euclidean,
        dominant_share_cosine=cosine,
        dominant_samples=count,
        class_accuracy=accuracy,
        mean_class_accuracy=None if accuracy is None else float(np.mean([*accuracy.values()])),
    )


def dominant_share(singles: Seen, mixtures: Seen) -> tuple[float, float, int]:
    """Figure 1's claim: do mixtures lie nearest to their dominant degradation?

    Returns:
        The share by Euclidean distance, the share by cosine similarity, and the number of
        mixtures with a clearly dominant part (NaN, NaN, 0 where there is none).
    """
    centroids = np.stack(
        [singles.answer[singles.composition == kind].mean(axis=0) for kind in KINDS]
    )
    return nearest_is_dominant(mixtures.answer, mixtures.truth, centroids, ratio=DOMINANCE)


def average_precision(present: NDArray[np.bool_], score: Array) -> float:
    """Area under the precision-recall curve, as steps; equal scores count together."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(present[order])
    last_of_equal = np.append(np.diff(score[order]) != 0, True)
    hits, seen = hits[last_of_equal], np.arange(1, len(score) + 1)[last_of_equal]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / seen).sum() / max(1, hits[-1]))


def spearman(first: Array, second: Array) -> float:
    """Rank correlation; equal values share their mean rank. NaN where one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _precisions(seen: Seen) -> dict[str, float] | None:
    if seen.probability is None:
        return None
    return {
        kind: average_precision(seen.present[:, k], seen.probability[:, k])
        for k, kind in enumerate(KINDS)
    }


def _rank_correlations(seen: Seen, *, present_only: bool) -> dict[str, float] | None:
    if seen.probability is None or seen.predicted is None:
        return None
    said = np.where(seen.probability >= 0.5, seen.predicted, 0.0)
    found: dict[str, float] = {}
    for k, kind in enumerate(KINDS):
        if present_only:
            held = seen.present[:, k]
            found[kind] = spearman(seen.truth[held, k], seen.predicted[held, k])
        else:
            found[kind] = spearman(seen.truth[:, k], said[:, k])
    return found


def severity_errors(seen: Seen) -> dict[str, float] | None:
    """Per label, root mean square error of the severity where it is there; None: not predicted."""
    if seen.predicted is None:
        return None
    wrong = np.where(seen.present, seen.predicted - seen.truth, np.nan)
    return dict(zip(KINDS, np.sqrt(np.nanmean(wrong**2, axis=0)).tolist(), strict=True))


def class_accuracies(seen: Seen) -> dict[str, float] | None:
    """Per class, how many of its pictures are assigned to it; None where none is assigned."""
    if seen.named is None:
        return None
    return {
        name: float((seen.named[seen.composition == name] == name).mean())
        for name in CLASSES
        if (seen.composition == name).any()
    }


def most_likely_classes(present_BK: NDArray[np.float32]) -> list[str]:
    """The class that label probabilities make most likely, were the labels independent.

    The rule that needs no training, which the head of ``prompt`` is judged by.
    """
    parts = np.array([[kind in name.split("_") for kind in KINDS] for name in CLASSES])
    chance = np.clip(present_BK[:, None].astype(np.float64), 1e-6, 1 - 1e-6)
    likely = np.where(parts, np.log(chance), np.log(1 - chance)).sum(axis=2)
    return [CLASSES[int(place)] for place in likely.argmax(axis=1)]


def quiet_on_clear(seen: Seen) -> float | None:
    """The share of clear pictures on which no label is above 0.5; None: not predicted."""
    if seen.probability is None:
        return None
    loudest = seen.probability[seen.composition == CLEAR].max(axis=1)
    return float((loudest <= 0.5).mean())


def _trait_correlations(seen: Seen) -> dict[str, float] | None:
    if seen.predicted_traits is None:
        return None
    found: dict[str, float] = {}
    for k, trait in enumerate(TRAITS):
        known = ~np.isnan(seen.traits[:, k])
        found[trait] = spearman(seen.traits[known, k], seen.predicted_traits[known, k])
    return found


def _pictures(
    photos: Sequence[Photograph],
    names: Sequence[str],
    draws: int,
    seed: int,
    config: DegradationConfig,
    *,
    uniform: bool,
) -> Iterator[Rendered]:
    for index, photo in enumerate(photos):
        clean, _ = read_noted(photo.path)  # `clean_photographs` tells of its notes, once
        for name in names:
            for draw in range(draws):
                parts = ("scene-evaluation", seed, index, draws, draw, int(uniform))
                yield compose(
                    clean,
                    name,
                    seed_parts=parts,
                    uniform=uniform,
                    config=config,
                    photograph=photo.name,
                )


def _encode_pictures(guide: Guide, pictures: Iterator[Rendered], view: View, task: Task) -> Seen:
    answers: list[Array] = []
    facts: list[Rendered] = []
    luminances: list[float] = []
    said: list[SceneEstimate] = []
    named: list[str] = []
    while batch := list(islice(pictures, _BATCH)):
        answer = guide.encode([view.render(picture.degraded) for picture in batch]).answer
        assert answer is not None
        answers.append(answer.double().numpy())
        if isinstance(guide, SceneGuide):
            said.append(guide.estimate(answer))
            named += most_likely_classes(said[-1].present)
        elif isinstance(guide, PromptGuide):
            named += guide.names(answer)
        facts.extend(batch)
        luminances.extend(float(view.render(picture.clean).mean()) / 255 for picture in batch)
        task.advance(len(batch))
    return Seen(
        answer=np.concatenate(answers),
        truth=np.stack([fact.severities for fact in facts]).astype(float),
        present=np.stack([fact.present for fact in facts]),
        composition=np.array([fact.composition for fact in facts]),
        traits=np.c_[np.stack([fact.traits for fact in facts]), luminances].astype(float),
        probability=_joined(one.present for one in said),
        predicted=_joined(one.severities for one in said),
        predicted_traits=_joined(one.traits for one in said),
        named=np.array(named) if named else None,
    )


def _joined(parts: Iterable[NDArray[np.float32]]) -> Array | None:
    found = list(parts)
    return np.concatenate(found).astype(float) if found else None


def dominant(severities_NK: Array, ratio: float) -> NDArray[np.int64]:
    """(N,) the strongest of K degradations; -1 where the next is nearer than a ``ratio`` to it.

    Args:
        severities_NK: in [0, 1], 0 where a degradation is absent; K at least 2.
        ratio: how many times the next severity the strongest must be.
    """
    ordered = np.sort(severities_NK, axis=1)
    clear = (ordered[:, -1] >= ratio * ordered[:, -2]) & (ordered[:, -1] > 0)
    return np.where(clear, severities_NK.argmax(axis=1), -1)


def nearest_is_dominant(
    answer_ND: Array, severities_NK: Array, centroids_KD: Array, *, ratio: float
) -> tuple[float, float, int]:
    """How often the nearest single-degradation centroid is the dominant one's (paper, Figure 1).

    Args:
        answer_ND: E_Answer of mixtures.
        severities_NK: their severities.
        centroids_KD: mean E_Answer of the pictures that suffer from one degradation alone.
        ratio: as for `dominant`; other mixtures are left out.

    Returns:
        The share by Euclidean distance, the share by cosine similarity, and the number of
        mixtures with a clearly dominant part (NaN, NaN, 0 where there is none).
    """
    strongest = dominant(severities_NK, ratio)
    chosen = strongest >= 0
    if not chosen.any():
        return float("nan"), float("nan"), 0
    answer, strongest = answer_ND[chosen], strongest[chosen]
    distance = np.linalg.norm(answer[:, None] - centroids_KD, axis=2)
    similarity = unit_rows(answer) @ unit_rows(centroids_KD).T
    by_distance = distance.argmin(axis=1) == strongest
    by_cosine = similarity.argmax(axis=1) == strongest
    return float(by_distance.mean()), float(by_cosine.mean()), len(strongest)


def unit_rows(rows: Array) -> Array:
    """Every row divided by its length; rows of zeros stay."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
