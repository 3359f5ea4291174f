"""The guide ``oracle``: the truth of synthetic samples, as the ceiling in experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.degradations import KINDS
from mmfe_cache.embeddings import NUM_TOKENS, Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import record_calls
from mmfe_cache.guides.pooling import Projection
from mmfe_cache.samples import ImageArray, Sample

DIM = 64
"""D, the width of its embeddings."""

_VERSION = 1


class OracleGuide:
    """Turns recorded severities into embeddings by fixed random nonlinear projections.

    Each of the 17 tokens of ``image`` and ``joint``, and ``answer``, has its own `Projection`. It
    sees no picture, so it is refused for anything else than a synthetic set.
    """

    name = "oracle"
    dim = DIM
    reads: Literal["pixels", "severities"] = "severities"
    takes_prompt: ClassVar[bool] = False

    def __init__(self) -> None:
        self.calls = 0
        self._joint, self._image, self._answer = (
            Projection(("oracle", _VERSION, kind), len(KINDS), tokens, DIM)
            for kind, tokens in (("joint", NUM_TOKENS), ("image", NUM_TOKENS), ("answer", 1))
        )

    @classmethod
    def load(cls, *_: object, **_options: object) -> OracleGuide:
        """The one oracle, whatever `load_guide` was given."""
        return cls()

    def encode(self, images: Sequence[ImageArray]) -> Embeddings:
        """Refused: the oracle does not look at pictures."""
        raise GuideError(
            "the guide oracle reads recorded severities and sees no picture, so it guides only "
            "synthetic sets, in experiments",
            got=f"{len(images)} images",
            expected="a data set made by `mmfe data synth`",
            remedy="use --guide scene",
        )

    def prepare(self, image: ImageArray) -> Any:
        """Refused, as `encode`."""
        return self.encode([image])

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """Refused, as `encode`."""
        return self.encode(prepared)

    def encode_samples(self, samples: Sequence[Sample]) -> Embeddings:
        """Encode B samples from their severities.

        Raises:
            GuideError: a sample records none.
        """
        truth = np.stack([_severities(sample) for sample in samples])
        self.calls += len(samples)
        record_calls(len(samples))
        image, joint, answer = (
            _tokens(projection, truth) for projection in (self._image, self._joint, self._answer)
        )
        return Embeddings(image, joint, answer.squeeze(1))

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        return {"guide": "oracle", "version": _VERSION, "kinds": list(KINDS), "dtype": "float32"}

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        return {
            "name": self.name,
            "kind": "oracle",
            "dim": self.dim,
            "licence": "Apache-2.0",
            "weights": "none",
            "reads": "severities",
        }


def _tokens(projection: Projection, truth_BK: NDArray[np.float64]) -> torch.Tensor:
    """(B, T, D): one sample at a time and in float64, so the bytes do not depend on the batch."""
    tokens = np.stack([projection(row) for row in truth_BK])
    return torch.from_numpy(tokens.astype(np.float32))


def _severities(sample: Sample) -> NDArray[np.float64]:
    if sample.severities is None:
        raise GuideError(
            "the guide oracle needs recorded severities, and this sample has none",
            got=sample.id,
            expected="a data set made by `mmfe data synth` (its severities.json)",
            remedy="use --guide scene, or make a synthetic set with `mmfe data synth`",
        )
    return np.array([float(sample.severities.get(kind, 0.0)) for kind in KINDS])
