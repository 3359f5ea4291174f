"""The embeddings that a checkpoint reads at evaluation, checked before the first image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import CacheError, ModelError
from mmfe_cache.parsing import parse_json
from mmfe_cache.samples import SampleSet
from mmfe_cache.store import CacheReader, open_cache
from mmfe_restore.data import (
    SampleGuidance,
    build_command,
    find_store,
    guide_fingerprint,
    guide_name,
)
from mmfe_restore.recipes import Recipe

if TYPE_CHECKING:
    from mmfe_restore.model import Restorer


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


def trained_guide(checkpoint: Path | None) -> Mapping[str, Any] | None:
    """How the guide saw that a checkpoint was trained with; None where it does not say."""
    if checkpoint is None:
        return None
    try:
        config = parse_json((checkpoint / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    found = config.get("guide_fingerprint")
    return found if isinstance(found, dict) else None


def differing_guide(trained: Mapping[str, Any], cache: CacheReader) -> list[str]:
    """The parts of the guide's fingerprint that differ, as ``key: trained / cache``."""
    here = guide_fingerprint(cache.fingerprint)
    keys = sorted(trained.keys() | here.keys())
    return [
        f"{key.removeprefix('guide.')}: {trained.get(key)!r} / {here.get(key)!r}"
        for key in keys
        if trained.get(key) != here.get(key)
    ]


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
    remedy = _remedy(recipe, samples, view, Path(cache.path))
    if (cache.dataset, cache.split) != (samples.dataset, samples.split):
        raise CacheError(
            f"{cache.path} is a cache of other data",
            got=f"{cache.dataset}/{cache.split}",
            expected=f"{samples.dataset}/{samples.split}",
            remedy=remedy,
        )
    if cache.dim != recipe.model.guidance_dim:
        raise CacheError(
            f"{cache.path} holds embeddings of another width than the checkpoint takes",
            got=f"{cache.dim} ({cache.guide})",
            expected=f"{recipe.model.guidance_dim} ({recipe.guide.name})",
            remedy=remedy,
        )
    if cache.guide != guide_name(recipe):
        raise CacheError(
            f"{cache.path} is of another guide than the one the checkpoint was trained with",
            got=cache.guide,
            expected=recipe.guide.name,
            remedy=remedy,
        )
    other = [] if trained is None else differing_guide(trained, cache)
    if any(not line.startswith("dtype:") for line in other):
        raise CacheError(
            f"{cache.path} was built by another state of the guide than the checkpoint was "
            "trained with (trained / cache)",
            got="; ".join(other),
            expected="the same weights, prompt and pooling",
            remedy=f"build it with the guide of the training cache: {remedy}",
        )
    if view not in cache.views:
        raise CacheError(
            f"{cache.path} lacks the view that evaluation reads",
            got=", ".join(cache.views) or "no finished view",
            expected=view,
            remedy=remedy,
        )
    return SampleGuidance(
        cache,
        samples.ids,
        arrays=recipe.model.reads,
        tokens=recipe.guide.tokens,
        control=recipe.guide.control,
    )
