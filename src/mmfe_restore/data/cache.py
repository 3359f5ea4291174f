"""Which store a recipe reads, whether it is right, and the embeddings of samples by position.

Training, evaluation and inference all ask here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import DEFAULT_PROMPT, ArrayName, Embeddings, Tokens
from mmfe_cache.errors import CacheError, GuideError, MmfeError, UsageError
from mmfe_cache.guides.lineage import differing_guide, guide_fingerprint, only_precision, stands_in
from mmfe_cache.guides.registry import find_guide
from mmfe_cache.seeds import generator
from mmfe_cache.store import store_path
from mmfe_restore.model.folders import split_guide
from mmfe_restore.recipes import Recipe

if TYPE_CHECKING:
    import torch

    from mmfe_cache.store import CacheReader
    from mmfe_restore.recipes.schema import Recipe


_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""The beginning of an address that fsspec knows, such as s3://bucket."""


def is_store(path: Path) -> bool:
    """Whether ``path`` means one store, and not the folder of a data set's stores."""
    if (path / "zarr.json").is_file():
        return True
    # `cache build --out x.zarr` makes a folder of stores, whatever its name.
    return path.suffix == ".zarr" and not any(
        (path / split).is_dir() for split in ("train", "test")
    )


def find_store(recipe: Recipe, dataset: str, split: str, cache: Path | None) -> Path:
    """Where the store of a split lies.

    Args:
        recipe: names the guide.
        dataset: the data set's name.
        split: ``"train"`` or ``"test"``.
        cache: the store itself, or the folder of the data set's stores; None for its default
            place, which the prompt and the pooling of ``joint`` are part of.

    Raises:
        UsageError: ``cache`` is an address: stores are read here by memory map.
        CacheError: the guide is a directory or file that is not here, after whose content its
            stores are named.
    """
    if cache is not None and (address := _ADDRESS.match(str(cache))):
        # As a path, an address has lost one of its two slashes.
        there = f"{address[1]}://{str(cache)[address.end() :].lstrip('/')}"
        store = there if there.endswith(".zarr") else f"{there}/{split}/{recipe.guide.name}.zarr"
        raise UsageError(
            "a cache at an address is not read in training or evaluation: every step would wait",
            got=there,
            expected="a local folder",
            remedy=f"mmfe cache pull {store} {store_path(dataset, split, recipe.guide.name)}",
        )
    if cache is not None and is_store(cache):
        return cache
    path = _store_path(recipe, dataset, split, cache)
    _, own = split_guide(recipe.guide.name)
    if own is not None and not own.exists() and not path.exists():
        raise CacheError(
            "the guide is not here, and its caches are named after what is in it",
            got=recipe.guide.name,
            expected="the directory or file that this path named when the cache was built",
            remedy=f"name the cache: --cache {path.parent}/{guide_name(recipe)}-HASH.zarr",
        )
    return path


def _store_path(recipe: Recipe, dataset: str, split: str, root: Path | None) -> Path:
    guide = recipe.guide
    return store_path(dataset, split, guide.name, guide.prompt, root, guide.joint)


def build_command(
    recipe: Recipe,
    dataset: str,
    split: str,
    views: Sequence[str],
    *,
    root: Path | None = None,
    cache: Path | None = None,
) -> str:
    """The command that builds the store that `find_store` looks for.

    A store at a place of its own cannot be asked for: the command then builds the default one.
    """
    words = ["mmfe", "cache", "build", "--dataset", dataset, "--split", split]
    words += ["--guide", recipe.guide.name, "--views", ",".join(views)]
    if recipe.guide.asked != DEFAULT_PROMPT:
        words += ["--prompt", recipe.guide.asked]
    if recipe.guide.joint != "all":
        words += ["--joint", recipe.guide.joint]
    if root is not None:
        words += ["--root", str(root)]
    if cache is not None and is_store(cache):
        above = cache.parent.parent
        cache = above if _store_path(recipe, dataset, split, above) == cache else None
    if cache is not None:
        words += ["--out", str(cache)]
    return shlex.join(words)


def guide_name(recipe: Recipe) -> str:
    """What a store calls the recipe's guide: a registry name, or its folder's or file's."""
    try:
        return find_guide(recipe.guide.name).name
    except MmfeError:
        # The guide's own files need not lie on a training machine.
        encoder, path = split_guide(recipe.guide.name)
        if path is None:
            return recipe.guide.name
        if encoder:
            return encoder.removesuffix(",weights=")
        return path.stem if path.suffix == ".safetensors" else path.name


def check_cache(
    recipe: Recipe,
    cache: CacheReader,
    *,
    dataset: str,
    split: str,
    views: Sequence[str],
    use: Literal["training", "evaluation"],
    remedy: str,
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a cache that does not serve ``recipe``.

    Args:
        recipe: names the guide, and the width and views that its network reads.
        cache: the open store.
        dataset: whose samples will be read.
        split: likewise.
        views: that will be read.
        use: what for.
        remedy: the command that builds the right one.
        trained: the guide's fingerprint in training, where the network is trained already;
            another precision alone is let pass, and in evaluation a student of that guide.

    Raises:
        CacheError: it is of another data set, split, guide or width, was built by another state
            of the guide, or lacks a view.
    """
    training = use == "training"
    if (cache.dataset, cache.split) != (dataset, split):
        raise CacheError(
            f"{cache.path} is a cache of other data",
            got=f"{cache.dataset}/{cache.split}",
            expected=f"{dataset}/{split}",
            remedy=remedy,
        )
    lineage = None
    if not training and trained is not None:
        try:
            for view in views:
                here = guide_fingerprint(cache.fingerprint)
                lineage = stands_in(cache.guide, here, trained, view)
        except GuideError as problem:
            raise CacheError(
                f"{cache.path}: {problem.problem}",
                got=problem.got,
                expected=problem.expected,
                remedy=problem.remedy,
            ) from problem
    if cache.guide != guide_name(recipe) and lineage is None:
        raise CacheError(
            f"{cache.path} holds the embeddings of another guide",
            got=cache.guide,
            expected=guide_name(recipe),
            remedy=f"train with --set guide={cache.guide}, or: {remedy}" if training else remedy,
        )
    if cache.dim != recipe.model.guidance_dim:
        raise CacheError(
            f"{cache.path} holds embeddings of another width than the network takes",
            got=f"{cache.dim} ({cache.guide})",
            expected=f"{recipe.model.guidance_dim} ({recipe.guide.name})",
            remedy=f"train with --set model.guidance_dim={cache.dim}" if training else remedy,
        )
    here = guide_fingerprint(cache.fingerprint)
    if here.get(PROMPT) in (recipe.guide.prompts or ()):
        trained = None if trained is None else {**trained, PROMPT: here[PROMPT]}
    differing: list[str] = []
    if lineage is None:  # a student is asked nothing and pools what its teacher did
        _check_question(recipe, cache, remedy=remedy, training=training)
        differing = [] if trained is None else differing_guide(trained, here)
    if not only_precision(differing):
        raise CacheError(
            f"{cache.path} was built by another state of the guide than the network was trained "
            "with (trained / cache)",
            got="; ".join(differing),
            expected="the same weights, prompt and pooling",
            remedy=f"build it with the guide of the training cache: {remedy}",
        )
    missing = [view for view in views if view not in cache.views]
    if missing:
        lacks = "views that the schedule needs" if training else "the view that evaluation reads"
        raise CacheError(
            f"{cache.path} lacks {lacks}: {', '.join(missing)}",
            got=", ".join(cache.views) or "no finished view",
            expected=", ".join(views),
            remedy=remedy,
        )


PROMPT, JOINT = "guide.prompt", "guide.joint"
"""What a fingerprint calls the question that its guide was asked, and the pooling of ``joint``."""


def _check_question(recipe: Recipe, cache: CacheReader, *, remedy: str, training: bool) -> None:
    """Refuse a cache of another prompt than the recipe names, or of another pooling.

    A recipe without ``guide.prompt`` takes whatever the store at hand was asked.
    """
    guide, found = recipe.guide, cache.fingerprint
    allowed = (guide.prompt, *(guide.prompts or ()))
    if guide.prompt is not None and found.get(PROMPT, guide.prompt) not in allowed:
        raise CacheError(
            f"{cache.path} holds what the guide said to another prompt",
            got=repr(found[PROMPT]),
            expected=repr(guide.prompt),
            remedy=f"train with --set guide.prompt=..., or: {remedy}" if training else remedy,
        )
    joint = found.get(JOINT, "all")
    if joint != guide.joint:
        raise CacheError(
            f"{cache.path} holds another pooling of E_Joint",
            got=f"guide.joint={joint}",
            expected=f"guide.joint={guide.joint}",
            remedy=f"train with --set guide.joint={joint}, or: {remedy}" if training else remedy,
        )


Control = Literal["none", "shuffled", "constant"]


class SampleGuidance:
    """Reads the guidance of samples, in the order that training or evaluation counts them.

    Args:
        cache: an open cache that holds every sample.
        ids: the samples' ids, in that order.
        arrays: which kinds of embedding are wanted.
        tokens: which reading of ``image`` and ``joint``.
        control: ``none`` reads each sample's own; ``shuffled`` another sample's, by one fixed
            permutation over all samples (which leaves about one in its place); ``constant`` the
            same pseudo-random values for every sample, at training and at test (dim decides them,
            nothing else).

    Raises:
        CacheError: the cache lacks a sample.
    """

    def __init__(
        self,
        cache: CacheReader,
        ids: Sequence[str],
        *,
        arrays: Sequence[ArrayName],
        tokens: Tokens = "grid",
        control: Control = "none",
    ) -> None:
        self._cache = cache
        self._arrays = tuple(arrays)
        self._tokens: Tokens = tokens
        self._constant = (
            _constant(cache.dim, self._arrays, tokens) if control == "constant" else None
        )
        indices = cache.index_of(list(ids))
        if control == "shuffled":
            order = generator("shuffled-guidance", len(indices)).permutation(len(indices))
            indices = indices[order]
        self._indices: NDArray[np.int64] = indices

    @classmethod
    def by_recipe(cls, recipe: Recipe, cache: CacheReader, ids: Sequence[str]) -> SampleGuidance:
        """The guidance that ``recipe`` reads for the samples ``ids``."""
        return cls(
            cache,
            ids,
            arrays=recipe.model.reads,
            tokens=recipe.guide.tokens,
            control=recipe.guide.control,
        )

    def read(
        self,
        positions: Sequence[int] | NDArray[np.int64],
        view: str,
        *,
        arrays: Sequence[ArrayName] | None = None,
        pin: bool = False,
    ) -> Embeddings:
        """The embeddings of the samples at ``positions``, as stored (float16), at ``view``.

        Args:
            positions: B of them.
            view: its name.
            arrays: some kinds of those that are wanted; None for all.
            pin: read into page-locked memory where the store allows it, for copies to a GPU.
        """
        arrays = self._arrays if arrays is None else arrays
        chosen = self._indices[np.asarray(positions, dtype=np.int64)]
        if self._constant is None:
            found = self._cache.gather(chosen, view, arrays=arrays, tokens=self._tokens, pin=pin)
            # Whoever gives a view by name, such as `mmfe eval --view`, means it.
            return replace(found, view=None)
        one = self._constant
        kinds = {name: t for name, t in one.present().items() if name in arrays}
        return Embeddings.of(
            {name: t.expand(len(chosen), *t.shape[1:]).contiguous() for name, t in kinds.items()}
        )

    def read_answers(
        self, positions: Sequence[int] | NDArray[np.int64], view: str, *, pin: bool = False
    ) -> torch.Tensor:
        """(B, D) E_Answer alone, for the router's loss over a global batch; see `read`."""
        answer = self.read(positions, view, arrays=("answer",), pin=pin).answer
        assert answer is not None
        return answer


def _constant(dim: int, arrays: Sequence[ArrayName], tokens: Tokens) -> Embeddings:
    import torch

    random = generator("constant-guidance", dim)
    full = Embeddings(
        image=torch.from_numpy(random.standard_normal((1, 17, dim))).half(),
        joint=torch.from_numpy(random.standard_normal((1, 17, dim))).half(),
        answer=torch.from_numpy(random.standard_normal((1, dim))).half(),
    ).select(tokens)
    return Embeddings.of({name: t for name, t in full.present().items() if name in arrays})
