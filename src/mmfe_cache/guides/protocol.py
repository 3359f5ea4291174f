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


class Pending(Protocol):
    """A batch that the guide's device works on."""

    def result(self) -> Embeddings:
        """Wait for it: what `Guide.encode_prepared` returns."""
        ...


@runtime_checkable
class StartsAhead(Protocol):
    """A guide that can be given a batch while its device still works on the one before.

    Attributes:
        ahead: how many batches are worth starting before the first is waited for.
    """

    ahead: int

    def start(self, prepared: Sequence[Any]) -> Pending:
        """Begin the device half of `encode` for B prepared images.

        Raises:
            RuntimeError: the device's memory ran out; nothing of the batch is left running.
        """
        ...
