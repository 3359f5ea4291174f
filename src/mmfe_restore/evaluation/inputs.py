"""What an evaluation opens: a restorer, its recipe, its embeddings, and the test set's pairs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfe_cache.datasets.same_pixels import check_same_pixels
from mmfe_cache.errors import CacheError, DataError, ModelError
from mmfe_cache.samples import ImageArray, Sample, SampleSet
from mmfe_cache.store import CacheReader, open_cache
from mmfe_restore.data import SampleGuidance, build_command, check_cache, find_store
from mmfe_restore.model.folders import model_folder, newest_checkpoint, recipe_of
from mmfe_restore.recipes import Recipe
from mmfe_restore.recipes.schema import READING

if TYPE_CHECKING:
    from mmfe_restore.model import Restorer


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        path: its ``save_pretrained`` folder.
        restorer: the network, in evaluation mode.
        recipe: what trained it.
    """

    path: Path
    restorer: Restorer
    recipe: Recipe


def load_checkpoint(path: str | Path | None = None, recipe: Recipe | None = None) -> Checkpoint:
    """Open a checkpoint.

    Args:
        path: what `model_folder` takes: a run's folder or its ``model/``, a network of the
            package or of the Hub; None for the run under ``runs/`` that finished last.
        recipe: takes the place of the one recorded in the checkpoint; both must read embeddings
            alike.

    Raises:
        UsageError: there is none.
        ModelError: it is damaged, or does not fit the recipe.
    """
    from mmfe_restore.model import Restorer

    folder = newest_checkpoint() if path is None else model_folder(path)
    restorer = Restorer.from_pretrained(folder)
    used = recipe_of(folder, recipe)
    if recipe is not None:
        _check_network(folder, restorer, used)
        restorer.recipe = used  # which says how it reads embeddings
    return Checkpoint(folder, restorer.eval(), used)


_GUIDANCE = ("encoder_guidance", "decoder_guidance", "experts")
"""What of a network's configuration says which embeddings it reads (`ModelConfig.reads`)."""


def _check_network(folder: Path, restorer: Restorer, recipe: Recipe) -> None:
    """Refuse a recipe of a network that reads other embeddings, or reads them otherwise.

    Its size the network says itself; how it reads only the recipe that it records, if any.
    """
    there, named = asdict(restorer.config), asdict(recipe.model)
    keys = [(f"model.{key}", there[key], named[key]) for key in _GUIDANCE]
    if restorer.recipe is not None and recipe.model.reads:
        there, named = asdict(restorer.recipe.guide), asdict(recipe.guide)
        keys += [(f"guide.{key}", there[key], named[key]) for key in READING]
    differing = [one for one in keys if one[1] != one[2]]
    if differing:
        raise ModelError(
            f"{recipe.name} is not the recipe of the network in {folder}",
            got=", ".join(f"{key}={now!r}" for key, _, now in differing),
            expected=", ".join(f"{key}={trained!r}" for key, trained, _ in differing),
            remedy="leave --recipe out where the checkpoint names its own",
        )


def open_eval_cache(
    recipe: Recipe, samples: SampleSet, view: str, cache: Path | None
) -> CacheReader | None:
    """Open the cache that ``recipe`` reads; None where its network reads no embedding.

    Args:
        recipe: names the guide.
        samples: the test set.
        view: that will be read, for the message.
        cache: the folder of the data set's stores, or one store; None for the default place.

    Raises:
        CacheError: there is none.
    """
    if not recipe.model.reads:
        return None
    path = find_store(recipe, samples.dataset, samples.split, cache)
    if not path.exists():
        raise CacheError(
            f"the checkpoint needs the embeddings of its guide, {recipe.guide.name}",
            got=f"no cache at {path}",
            expected=f"the view {view} of {samples.dataset}/{samples.split}",
            remedy=_remedy(recipe, samples, view, path),
        )
    return open_cache(path)


def _remedy(recipe: Recipe, samples: SampleSet, view: str, path: Path | None) -> str:
    return build_command(
        recipe, samples.dataset, samples.split, [view], root=samples.root, cache=path
    )


def check_guidance(
    restorer: Restorer,
    recipe: Recipe,
    samples: SampleSet,
    cache: CacheReader | None,
    view: str,
    trained: Mapping[str, Any] | None = None,
) -> SampleGuidance | None:
    """Check that the cache serves this checkpoint on these samples.

    Args:
        restorer: the network.
        recipe: what trained it.
        samples: the test set.
        cache: its embeddings.
        view: that will be read.
        trained: the guide's fingerprint in training; another precision alone is let pass.

    Returns:
        the reader of the samples' embeddings in their order; None for an unguided run.

    Raises:
        CacheError: it is of another data set, split, guide or width, or lacks the view or a
            sample.
        ModelError: there is no cache and the network cannot run without embeddings.
    """
    if not recipe.model.reads:
        return None
    if cache is None:
        if restorer.has_null_guidance:
            return None
        raise ModelError(
            "this checkpoint cannot run without embeddings: it was trained with guidance "
            "dropout 0 and has no null guidance",
            remedy=_remedy(recipe, samples, view, None),
        )
    check_cache(
        recipe,
        cache,
        dataset=samples.dataset,
        split=samples.split,
        views=[view],
        use="evaluation",
        remedy=_remedy(recipe, samples, view, Path(cache.path)),
        trained=trained,
    )
    check_same_pixels(samples, cache)
    return SampleGuidance.by_recipe(recipe, cache, samples.ids)


@dataclass(frozen=True)
class EvalPair:
    """A degraded image and its ground truth, both (H, W, 3) uint8 after the protocol's crop."""

    position: int
    sample: Sample
    degraded: ImageArray
    clean: ImageArray


def read_pairs(samples: SampleSet, positions: Iterable[int], crop: int) -> Generator[EvalPair]:
    """Read test pairs, one ahead of the network.

    Args:
        samples: the test set.
        positions: of the pairs to read, in this order.
        crop: images are centre-cropped to a multiple of this; 1 keeps them whole.

    Raises:
        DataError: an image is unreadable, or a pair's two differ in size.
    """
    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for position in positions:
            coming = reader.submit(_read, position, samples.samples[position], crop)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def _read(position: int, sample: Sample, crop: int) -> EvalPair:
    assert sample.clean is not None
    degraded, clean = sample.degraded.read(), sample.clean.read()
    if degraded.shape != clean.shape:
        raise DataError(
            f"the two images of {sample.id} differ in size",
            got=f"{_size(degraded)} ({sample.degraded.name})",
            expected=f"{_size(clean)} ({sample.clean.name})",
            remedy="mmfe data check shows the layout that is expected",
        )
    return EvalPair(position, sample, centre_crop(degraded, crop), centre_crop(clean, crop))


def _size(image: ImageArray) -> str:
    return f"{image.shape[1]}×{image.shape[0]} pixels"


def centre_crop(image: ImageArray, multiple: int) -> ImageArray:
    """The centre of ``image`` whose sides are multiples of ``multiple``; at least one multiple.

    Raises:
        DataError: the image is smaller than ``multiple``.
    """
    if multiple == 1:
        return image
    height, width = image.shape[:2]
    rows, columns = height - height % multiple, width - width % multiple
    if not rows or not columns:
        raise DataError(
            "a test image is smaller than the protocol's crop",
            got=_size(image),
            expected=f"at least {multiple}×{multiple} pixels",
            remedy="--protocol onerestore or restormer keeps images whole",
        )
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def batches(pairs: Iterable[EvalPair], batch_size: int) -> Generator[list[EvalPair]]:
    """Runs of neighbours of one size and label, ``batch_size`` at most."""
    for _, group in groupby(pairs, key=lambda pair: (pair.clean.shape, pair.sample.label)):
        batch: list[EvalPair] = []
        for pair in group:
            batch.append(pair)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
