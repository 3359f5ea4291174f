"""`evaluate`: restore every test image and compare it with the ground truth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from mmfe_cache.datasets import DATASETS
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import DataError, MmfeError, ModelError
from mmfe_cache.guides import GUIDES
from mmfe_cache.guides.base import guide_calls
from mmfe_cache.guides.lineage import differing_guide, guide_fingerprint, lineage_of
from mmfe_cache.machine import float32_products, pick_device
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, Sample, SampleSet
from mmfe_cache.views import View
from mmfe_restore.data.cache import PROMPT
from mmfe_restore.evaluation.compare import (
    SAME,
    SavedReport,
    check_comparable,
    compare,
    differing_settings,
    run_name,
)
from mmfe_restore.evaluation.inputs import (
    EvalPair,
    batches,
    check_guidance,
    read_pairs,
)
from mmfe_restore.evaluation.published import Protocol, protocol_named
from mmfe_restore.evaluation.report import (
    EvalReport,
    check_free,
    pictures,
    write_report,
)
from mmfe_restore.evaluation.report.eval_report import SYNTHETIC
from mmfe_restore.evaluation.report.files import OtherRun
from mmfe_restore.evaluation.report.pictures import Pictures
from mmfe_restore.evaluation.statistics import (
    ImageScore,
    join_figures,
    quality,
    to_tensor,
    to_uint8,
)
from mmfe_restore.metrics.registry import PerImage, Settings, chosen_metrics
from mmfe_restore.model import count_parameters
from mmfe_restore.model.folders import recorded_guide, shown_name
from mmfe_restore.recipes import Recipe

if TYPE_CHECKING:
    from mmfe_cache.store import CacheReader
    from mmfe_restore.data import SampleGuidance
    from mmfe_restore.model import Restorer


def evaluate(
    restorer: Restorer,
    recipe: Recipe,
    samples: SampleSet,
    cache: CacheReader | None,
    *,
    out: Path | None = None,
    view: str | None = None,
    protocol: str | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 1,
    with_pictures: bool = True,
    lpips: bool = False,
    metrics: Sequence[str] = (),
    beside: Sequence[SavedReport] = (),
    force: bool = False,
) -> EvalReport:
    """Judge ``restorer`` on ``samples``; reads embeddings from a cache and never loads a guide.

    Whole images are restored, clamped to [0, 1], and compared in float64. Inside a
    torch.distributed process group every process takes a disjoint share, all return the same
    report, and the first one writes it.

    Args:
        restorer: the network.
        recipe: what trained it; it names the embeddings, the view and the protocol.
        samples: the test set.
        cache: its embeddings; None for an unguided network, or to run a network that has one on
            its null guidance.
        out: folder for metrics.json, per_image.csv and report.html; None writes nothing.
        view: the guide's view; None for the recipe's.
        protocol: a peer's name, as in `PROTOCOLS`; None for the recipe's.
        progress: where to report.
        checkpoint: where the weights lie, for the report.
        device: ``"auto"`` takes a GPU where there is one.
        batch_size: images of one size and class that go through the network together.
        with_pictures: collect the pictures of the report's page.
        lpips: also measure LPIPS, whose backbone weights must be on this machine.
        metrics: optional metrics to measure too, by their names in `METRICS`.
        beside: reports of other trainings on the same test set, for the page; one whose inputs
            turn out to be other pictures is left out, with a warning.
        force: write over a report in ``out``.

    Raises:
        CacheError: the cache does not serve this checkpoint on these samples.
        DataError: a test image is unreadable, has no ground truth or one of another size.
        ModelError: the network cannot run without embeddings, or gives values that are not
            finite.
        UsageError: an unknown protocol or metric, ``out`` exists, or a report of ``beside`` is of
            other images or was measured otherwise.
    """
    progress = Progress() if progress is None else progress
    started, calls = time.perf_counter(), guide_calls()
    if out is not None:
        check_free(out, force=force)
    used = pick_device(device)
    used_view = recipe.eval.view if view is None else view
    measured = protocol_named(recipe.eval.protocol if protocol is None else protocol)
    chosen = chosen_metrics((*metrics, "lpips") if lpips else tuple(metrics))
    _check_samples(samples)
    if restorer.recipe is None:  # which says how it reads embeddings
        restorer.recipe = recipe
    named = None if checkpoint is None else shown_name(checkpoint)
    trained = None if checkpoint is None else recorded_guide(checkpoint)
    guidance = check_guidance(restorer, recipe, samples, cache, used_view, trained)
    rank, size = rank_and_size()
    judged_on = torch.device("cpu") if used.type == "mps" else used
    settings = Settings(judged_on, measured.covariance)
    run = _Run(
        restorer=restorer.to(used).eval(),
        guidance=guidance,
        view=used_view,
        dataset=samples.dataset,
        protocol=measured,
        crop=measured.crop_for(samples.dataset, recipe.eval.crop_multiple),
        shown=pictures.choose(samples) if with_pictures else frozenset(),
        guide_sees=_guide_sees(recipe),
        metrics={metric.name: metric.load(settings) for metric in chosen},
    )
    report = EvalReport(
        dataset=samples.dataset,
        split=samples.split,
        recipe=recipe.name,
        checkpoint=named,
        protocol=measured,
        crop_multiple=run.crop,
        window=restorer.config.attention_window,
        view=None if guidance is None else used_view,
        guide=None if guidance is None else recipe.guide.name,
        embeddings=None if guidance is None or cache is None else cache.guide,
        prompt=None if guidance is None or cache is None else cache.fingerprint.get(PROMPT),
        tokens=None if guidance is None else recipe.guide.tokens,
        control=recipe.guide.control,
        parameters=count_parameters(restorer),
        scores=tuple(ImageScore(s.id, s.label, s.scene, 0, 0, {}) for s in samples),
        layout=samples.layout,
        published_test_set=_is_published(samples),
        notes=(
            *_notes(recipe, samples, guidance, run.crop),
            *_guide_notes(trained, cache, checkpoint),
        ),
    )
    _check_beside(report, beside)
    mine = read_pairs(samples, range(rank, len(samples), size), run.crop)
    title = f"evaluating {samples.dataset}/{samples.split}"
    with progress.task(title, len(samples)) as bar, float32_products():
        for pairs in batches(mine, batch_size):
            run.evaluate_batch(pairs)
            bar.advance(len(pairs) * size)
    scores, shown = gather(run.scores), gather(run.pictures)
    report = replace(
        report,
        scores=tuple(scores[i] for i in sorted(scores)),
        pictures=tuple(shown[i] for i in sorted(shown)),
        seconds=time.perf_counter() - started,
        guide_calls=guide_calls() - calls,
    )
    if out is not None and rank == 0:
        others = _other_runs(report, out, beside, progress)
        write_report(report, out, others=others, force=force)
    return report


@dataclass
class _Run:
    """One evaluation under way, on one process."""

    restorer: Restorer
    guidance: SampleGuidance | None
    view: str
    dataset: str
    protocol: Protocol
    crop: int
    shown: frozenset[int]
    guide_sees: bool
    metrics: Mapping[str, PerImage]

    def __post_init__(self) -> None:
        self.scores: dict[int, ImageScore] = {}
        self.pictures: dict[int, Pictures] = {}

    def evaluate_batch(self, pairs: list[EvalPair]) -> None:
        """Restore and score images of one size and label."""
        device = next(self.restorer.parameters()).device
        degraded = torch.cat([to_tensor(pair.degraded) for pair in pairs]).to(device)
        clean = torch.cat([to_tensor(pair.clean) for pair in pairs]).to(device)
        restored = self.restore(degraded, [pair.position for pair in pairs])
        if self.protocol.rounded:
            restored = (restored * 255.0).round() / 255.0
        if restored.device.type == "mps":  # metrics are computed in float64, which it lacks
            degraded, clean, restored = degraded.cpu(), clean.cpu(), restored.cpu()
        channel = self.protocol.channel_for(self.dataset, pairs[0].sample.label)
        before = quality(degraded, clean, self.protocol, channel, self.metrics)
        after = quality(restored, clean, self.protocol, channel, self.metrics)
        for index, pair in enumerate(pairs):
            sample = pair.sample
            height, width = pair.clean.shape[:2]
            figures = join_figures(before[index], after[index])
            self.scores[pair.position] = ImageScore(
                sample.id, sample.label, sample.scene, height, width, figures
            )
            if pair.position in self.shown:
                self.pictures[pair.position] = pictures.encode(
                    sample.id,
                    pair.degraded,
                    to_uint8(restored[index]),
                    pair.clean,
                    pictures.budget_each(len(self.shown)),
                    self.seen(sample),
                )

    def seen(self, sample: Sample) -> ImageArray | None:
        """What the guide saw of a sample, before any crop; None where it saw no picture of it."""
        if self.guidance is None or not self.guide_sees:
            return None
        return View.parse(self.view).render(sample.degraded.read())

    def restore(self, degraded: torch.Tensor, positions: list[int]) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 1]."""
        embeddings: Embeddings | None = None
        if self.guidance is not None:
            embeddings = self.guidance.read(positions, self.view).to(degraded.device)
        with torch.inference_mode():
            restored = self.restorer(degraded, embeddings).float()
        if not bool(restored.isfinite().all()):
            raise ModelError(
                "the network gave values that are not finite",
                got=f"on the image at position {positions[0]} of the test set",
                remedy="train it anew, or take an earlier checkpoint",
            )
        return restored.clamp(0.0, 1.0)


def _check_samples(samples: SampleSet) -> None:
    if not len(samples):
        raise DataError(
            f"{samples.dataset}/{samples.split} holds no image",
            got=samples.root,
            remedy=f"mmfe data check --dataset {samples.dataset}",
        )
    blind = [sample.id for sample in samples if sample.clean is None]
    if blind:
        raise DataError(
            f"{len(blind)} of {len(samples)} test images have no ground truth",
            got=", ".join(blind[:3]),
            expected="a clean image for each",
        )


def _is_published(samples: SampleSet) -> bool:
    """Whether these are the published test images: their data set, their number, not made here."""
    info = DATASETS.get(samples.dataset)
    published = None if info is None or info.pairs is None else info.pairs.get("test")
    made = samples.layout == SYNTHETIC
    return samples.split == "test" and len(samples) == published and not made


def _guide_sees(recipe: Recipe) -> bool:
    """Whether the embeddings of a sample come from its own picture."""
    info = GUIDES.get(recipe.guide.name)
    return recipe.guide.control == "none" and (info is None or info.reads == "pixels")


def _check_beside(report: EvalReport, beside: Sequence[SavedReport]) -> None:
    """Refuse reports that cannot stand beside this one, whose images are yet to be measured."""
    about = {name: getattr(report, name) for name in SAME} | {"protocol": report.protocol.name}
    planned = SavedReport(Path("this evaluation"), about, report.scores)
    for other in beside:
        check_comparable(other, planned)


def _other_runs(
    report: EvalReport, out: Path, beside: Sequence[SavedReport], progress: Progress
) -> list[OtherRun]:
    """Other trainings beside this one, paired image by image."""
    mine = SavedReport(out, report.to_json(), report.scores)
    found: list[OtherRun] = []
    for other in beside:
        try:
            difference = compare(other, mine).average
        except MmfeError as problem:  # hours of work are not thrown away for a row of the page
            progress.warn(f"not on the page: {problem.about(other.path)}")
        else:
            found.append(OtherRun(run_name(other), differing_settings(other, mine), difference))
    return found


def _notes(
    recipe: Recipe, samples: SampleSet, guidance: SampleGuidance | None, crop: int
) -> tuple[str, ...]:
    notes = [f"layout: {samples.layout}", *samples.warnings]
    if recipe.eval.crop_multiple != crop:
        notes.append(
            f"the recipe's eval.crop_multiple of {recipe.eval.crop_multiple} has no effect: the "
            f"protocol and the data set ask for {'whole images' if crop == 1 else crop}"
        )
    if recipe.model.reads and guidance is None:
        notes.append("run on the null guidance: no embeddings were read")
    if recipe.guide.control != "none" and guidance is not None:
        notes.append(f"control: embeddings are {recipe.guide.control}")
    return tuple(notes)


def _guide_notes(
    trained: Mapping[str, Any] | None, cache: CacheReader | None, checkpoint: Path | None
) -> tuple[str, ...]:
    if cache is None or checkpoint is None:
        return ()
    if trained is None:
        return ("the checkpoint does not say which guide state it was trained with: not checked",)
    here = guide_fingerprint(cache.fingerprint)
    lineage = lineage_of(here)
    if lineage is not None and lineage_of(trained) is None:
        return (f"guided by {cache.guide}, a student of {lineage.teacher}, in its teacher's place",)
    return tuple(
        f"the cache's guide ran in another precision than in training ({line})"
        for line in differing_guide(trained, here)
    )


T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(mine: dict[int, T]) -> dict[int, T]:
    """Join what all processes found, by position; every position must be found once.

    Raises:
        RuntimeError: two processes found the same position (a bug: shares are disjoint).
    """
    _, size = rank_and_size()
    if size == 1:
        return mine
    parts: list[dict[int, T] | None] = [None] * size
    dist.all_gather_object(parts, mine)
    joined: dict[int, T] = {}
    for part in parts:
        assert part is not None
        if joined.keys() & part.keys():
            raise RuntimeError("two processes evaluated the same sample")
        joined |= part
    return dict(sorted(joined.items()))
