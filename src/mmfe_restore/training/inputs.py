"""Everything that a run reads, opened and checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmfe_cache.datasets import load_dataset
from mmfe_cache.datasets.same_pixels import check_same_pixels, few_pixels
from mmfe_cache.errors import CacheError, DataError, UsageError
from mmfe_cache.guides.lineage import differing_guide, guide_fingerprint, only_precision
from mmfe_cache.progress import Progress
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.seeds import generator
from mmfe_cache.store import CacheReader, open_cache
from mmfe_cache.store.sample_table import ids_digest, pixels_digest
from mmfe_restore.data import (
    PROMPT,
    SampleGuidance,
    Schedule,
    build_command,
    check_cache,
    find_store,
    is_store,
)
from mmfe_restore.model.folders import find_weights
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training.run_dir import PIXELS, check_record


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a run.

    Attributes:
        loaded: the training split as it is on the disk.
        training: the training split without what is held out or skipped.
        validation: held out of training, by whole scenes.
        schedule: every step of the run.
        cache: the open cache, where there are several prompts that of ``guide.prompt``; None for an
            unguided network.
        guidance: of the training samples, by prompt; empty for an unguided network.
        validation_guidance: of ``validation``, as ``guide.prompt`` asks.
    """

    loaded: SampleSet
    training: SampleSet
    validation: tuple[Sample, ...]
    schedule: Schedule
    cache: CacheReader | None
    guidance: tuple[SampleGuidance, ...]
    validation_guidance: SampleGuidance | None

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """Of the store whose embeddings are read; None for an unguided network."""
        return None if self.cache is None else self.cache.fingerprint

    @property
    def identity(self) -> dict[str, Any] | None:
        """`fingerprint`, and the pixels that were seen: those of a set made anew bear equal ids."""
        return None if self.cache is None else _cache_identity(self.cache)

    def data_identity(self) -> dict[str, str] | None:
        """What tells an unguided run's data from others; None where `identity` of a cache does.

        Raises:
            DataError: one of the pictures that are read for it cannot be.
        """
        return _data_identity(self.loaded) if self.cache is None else None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The training samples, in the order that the schedule counts."""
        return self.training.samples


def open_inputs(
    recipe: Recipe, *, root: Path | None, cache: Path | None, progress: Progress
) -> Inputs:
    """Open the data set and the cache, and refuse what would fail later.

    Args:
        recipe: what will be trained.
        root: where the data set lies; None for its default place.
        cache: the folder of the data set's stores, or one store; None for its default place.
        progress: where to warn of anything unusual about the data.

    Raises:
        CacheError: the cache is missing, of other data or of another guide's width, or lacks a
            view or a sample that any stage will need; the remedy is the command that builds it.
        UsageError: the schedule does not fit the data.
        DataError: the data set is not there.
    """
    everything = load_dataset(recipe.data.dataset, "train", root)
    for warning in everything.warnings:
        progress.warn(warning)
    samples = everything.samples
    readers: tuple[CacheReader, ...] = ()
    if recipe.model.reads:
        readers = _open_caches(recipe, root, cache)
        for reader in readers:
            check_same_pixels(everything, reader)
        gone = {name for reader in readers for name in reader.skipped}
        if gone:
            reader = next(reader for reader in readers if reader.skipped)
            if not recipe.data.allow_skipped:
                raise CacheError(
                    f"the cache {reader.path} lacks {len(gone)} samples whose images could not be "
                    "read when it was built",
                    got=", ".join(sorted(gone)[:3]) + (", ..." if len(gone) > 3 else ""),
                    expected="every sample that training draws",
                    remedy=f"repair their images, then: mmfe cache repair {reader.path}; or train "
                    "without them: --set data.allow_skipped=true",
                )
            samples = tuple(s for s in samples if s.id not in gone)
            progress.warn(
                f"{len(gone)} samples were skipped when the cache was built and are not trained on"
            )
    training, validation = hold_out(samples, recipe.data.validation_scenes, recipe.train.seed)
    asked = None
    if readers:
        asked = readers[(recipe.guide.prompts or (recipe.guide.prompt,)).index(recipe.guide.prompt)]
    return Inputs(
        loaded=everything,
        training=replace(everything, samples=training),
        validation=validation,
        schedule=Schedule(recipe, training),
        cache=asked,
        guidance=tuple(_guidance(recipe, reader, training) for reader in readers),
        validation_guidance=(
            _guidance(recipe, asked, validation) if asked is not None and validation else None
        ),
    )


def check_options(
    *, init_from: str | Path | None, resume: str | Path | None, wandb: str | None
) -> None:
    """Refuse what is named and missing, without torch: importing it takes seconds.

    The arguments are those of `train`; ``init_from`` is None also where the run goes on.

    Raises:
        UsageError: as `require_options`; there is no checkpoint ``resume``.
    """
    require_options(None if init_from is None else find_weights(init_from), wandb)
    if resume not in ("auto", None) and not Path(resume).exists():
        raise UsageError(
            "there is no such checkpoint",
            got=resume,
            remedy="--resume auto takes the newest one that can be read",
        )


def check_inputs(recipe: Recipe, *, root: Path | None, cache: Path | None) -> None:
    """Refuse a data set or a cache that is missing or does not fit, without torch.

    Raises:
        MmfeError: as `open_inputs`.
    """
    load_dataset(recipe.data.dataset, "train", root)
    if recipe.model.reads:
        _open_caches(recipe, root, cache)


def check_trained_on(recipe: Recipe, *, root: Path | None, cache: Path | None, out: Path) -> None:
    """Refuse a run that was trained on another cache or data set than these, without torch.

    What is not there is not compared.

    Raises:
        MmfeError: as `check_record`; the cache, or a picture that is compared, cannot be read.
    """
    dataset = recipe.data.dataset
    if recipe.model.reads:
        store = find_store(recipe, dataset, "train", cache)
        if store.exists():
            check_record(out, _cache_identity(open_cache(store)), None)
        return
    try:
        samples = load_dataset(dataset, "train", root)
    except DataError:
        return
    check_record(out, None, _data_identity(samples))


def _cache_identity(cache: CacheReader) -> dict[str, Any]:
    return {**cache.fingerprint, PIXELS: pixels_digest(cache.pixel_digests).hex()}


def _data_identity(samples: SampleSet) -> dict[str, str]:
    return {"samples.ids": ids_digest(samples.ids), PIXELS: few_pixels(samples)}


def require_options(init_from: Path | None, wandb: str | None) -> None:
    """Refuse at once what would end a run only after its data and cache were opened.

    Raises:
        UsageError: there is no file ``init_from``, or Weights & Biases is asked for and not
            installed.
    """
    if init_from is not None and not init_from.is_file():
        raise UsageError(
            "there are no weights to start from",
            got=f"--init-from {init_from}",
            expected="a run's folder, a network that `mmfe model list` names, OWNER/NAME on the "
            "Hugging Face Hub, or a .pth or .safetensors file of Restormer's weights",
            remedy="name one of these, or leave --init-from out",
        )
    if wandb is not None and find_spec("wandb") is None:
        raise UsageError(
            "Weights & Biases is not installed",
            remedy="in mmfe's checkout: pip install -c constraints.txt -e '.[wandb]'",
        )


def hold_out(
    samples: Sequence[Sample], scenes: int, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Set all samples of ``scenes`` scenes aside, the same ones for the same seed.

    Returns:
        the samples to train on, and those held out.

    Raises:
        UsageError: no scene would be left to train on.
    """
    if not scenes:
        return tuple(samples), ()
    names = sorted({sample.scene for sample in samples})
    if scenes >= len(names):
        raise UsageError(
            "data.validation_scenes leaves nothing to train on",
            got=scenes,
            expected=f"below {len(names)}, the scenes there are",
        )
    order = generator("validation", seed).permutation(len(names))[:scenes]
    held = {names[i] for i in order}
    return (
        tuple(s for s in samples if s.scene not in held),
        tuple(s for s in samples if s.scene in held),
    )


def _open_caches(recipe: Recipe, root: Path | None, cache: Path | None) -> tuple[CacheReader, ...]:
    """The store of every prompt that training draws from, in their order."""
    each = recipe.each_prompt
    if len(each) > 1 and cache is not None and is_store(cache):
        raise UsageError(
            "one cache cannot serve several prompts",
            got=f"--cache {cache} and {len(each)} guide.prompts",
            expected="the folder of the data set's caches",
            remedy="leave --cache out, or set guide.prompt alone",
        )
    readers: list[CacheReader] = []
    problems: list[CacheError] = []
    for one in each:
        try:
            readers.append(_open_cache(one, root, cache))
        except CacheError as problem:
            problems.append(problem)
    if len(problems) > 1:  # all that is to be built, and not one at a time
        raise CacheError(
            f"{len(problems)} of the {len(each)} caches that guide.prompts needs cannot be used",
            got="; ".join(problem.problem for problem in problems),
            expected=problems[0].expected,
            remedy="; then: ".join(dict.fromkeys(str(p.remedy) for p in problems)),
        )
    if problems:
        raise problems[0]
    first = guide_fingerprint(readers[0].fingerprint)
    for reader in readers[1:]:
        here = guide_fingerprint(reader.fingerprint)
        differing = differing_guide({**first, PROMPT: here.get(PROMPT)}, here)
        if not only_precision(differing):
            raise CacheError(
                f"{readers[0].path} and {reader.path} were built by different states of the guide",
                got="; ".join(differing),
                expected="caches that differ in their prompts alone",
                remedy="build them with the same guide",
            )
    return tuple(readers)


def _open_cache(recipe: Recipe, root: Path | None, cache: Path | None) -> CacheReader:
    dataset, views = recipe.data.dataset, recipe.training_views
    path = find_store(recipe, dataset, "train", cache)
    remedy = build_command(recipe, dataset, "train", views, root=root, cache=cache)
    try:
        reader = open_cache(path)
    except CacheError as problem:
        if path.exists():
            raise
        raise CacheError(
            f"there is no cache at {path}",
            got=problem.got,
            expected=f"views {', '.join(recipe.training_views)}",
            remedy=remedy,
        ) from None
    check_cache(
        recipe, reader, dataset=dataset, split="train", views=views, use="training", remedy=remedy
    )
    return reader


def _guidance(recipe: Recipe, reader: CacheReader, samples: Sequence[Sample]) -> SampleGuidance:
    return SampleGuidance.by_recipe(recipe, reader, [sample.id for sample in samples])
