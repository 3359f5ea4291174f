"""Embeddings of samples by position, from a cache or from one of the two controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.embeddings import ArrayName, Embeddings, Tokens
from mmfe_cache.seeds import generator

if TYPE_CHECKING:
    from mmfe_cache.store import CacheReader
    from mmfe_restore.recipes.schema import Recipe

Control = Literal["none", "shuffled", "constant"]


class SampleGuidance:
    """Reads the guidance of samples, in the order that training or evaluation counts them.

    Args:
        cache: an open cache that holds every sample.
        ids: the samples' ids, in that order.
        arrays: which kinds of embedding are wanted.
        tokens: which reading of ``image`` and ``joint``.
        control: ``none`` reads each sample's own; ``shuffled`` another sample's, by one fixed
            permutation over all samples; ``constant`` the same pseudo-random values for every
            sample, at training and at test (dim decides them, nothing else).

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

    def read(self, positions: Sequence[int] | NDArray[np.int64], view: str) -> Embeddings:
        """The embeddings of the samples at ``positions``, as stored (float16), at ``view``."""
        return self._read(positions, view, self._arrays)

    def read_answers(self, positions: Sequence[int] | NDArray[np.int64], view: str) -> torch.Tensor:
        """(B, D) E_Answer alone, for the router's loss over a global batch."""
        answer = self._read(positions, view, ("answer",)).answer
        assert answer is not None
        return answer

    def _read(
        self,
        positions: Sequence[int] | NDArray[np.int64],
        view: str,
        arrays: tuple[ArrayName, ...],
    ) -> Embeddings:
        chosen = self._indices[np.asarray(positions, dtype=np.int64)]
        if self._constant is None:
            found = self._cache.gather(chosen, view, arrays=arrays, tokens=self._tokens)
            # Whoever gives a view by name, such as `mmfe eval --view`, means it.
            return replace(found, view=None)
        one = self._constant
        kinds = {name: t for name, t in one.present().items() if name in arrays}
        return Embeddings.of(
            {name: t.expand(len(chosen), *t.shape[1:]).contiguous() for name, t in kinds.items()}
        )


def _constant(dim: int, arrays: Sequence[ArrayName], tokens: Tokens) -> Embeddings:
    random = generator("constant-guidance", dim)
    full = Embeddings(
        image=torch.from_numpy(random.standard_normal((1, 17, dim))).half(),
        joint=torch.from_numpy(random.standard_normal((1, 17, dim))).half(),
        answer=torch.from_numpy(random.standard_normal((1, dim))).half(),
    ).select(tokens)
    return Embeddings.of({name: t for name, t in full.present().items() if name in arrays})
