"""What every guide must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.samples import ImageArray, Sample


@runtime_checkable
class Guide(Protocol):
    """A frozen model that turns degraded images into embeddings.

    Attributes:
        name: its registry name, or the directory's name for a local checkpoint.
        dim: D, the width of its embeddings.
        reads: ``"pixels"``, or ``"severities"`` for the oracle, which sees no picture.
        calls: how many samples this object has encoded so far.
    """

    name: str
    dim: int
    reads: Literal["pixels", "severities"]
    calls: int

    def encode(self, images: Sequence[ImageArray]) -> Embeddings:
        """Encode B uint8 RGB images (H, W, 3) of any sizes.

        Returns:
            CPU float32 ``image`` (B, 17, D), ``joint`` (B, 17, D) and ``answer`` (B, D).
        """
        ...

    def prepare(self, image: ImageArray) -> Any:
        """The CPU half of `encode` for one image; picklable, so that a worker can run it."""
        ...

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """The device half of `encode` for B prepared images."""
        ...

    def encode_samples(self, samples: Sequence[Sample]) -> Embeddings:
        """Encode from the samples' recorded severities; only where ``reads`` says so."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings; JSON values only."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it: kind, D, licence, where its weights are."""
        ...
