"""The guide ``scene``: degradations seen by a small network that comes with the package."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmfe_cache.degradations import KINDS
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.guides.base import PixelGuide, check_image
from mmfe_cache.guides.scene.network import DIM, MIN_SIDE, TRAITS, SceneNetwork
from mmfe_cache.guides.scene.weights import load_scene
from mmfe_cache.samples import ImageArray
from mmfe_cache.views import mirror_to

MAX_PIXELS = 512 * 512
"""The pixel budget under the view ``native``; larger pictures are shrunk to it."""

_BATCH_PIXELS = 16 * 224 * 224
"""Pixels that run at once: more does not run faster, and takes more memory."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What ``scene`` says of B pictures.

    Attributes:
        present: (B, 4) probability that each of low, haze, rain, snow is there.
        severities: (B, 4) in [0, 1].
        traits: (B, 3) in [0, 1], see `TRAITS`; of meaning where what has the trait is there.
    """

    present: NDArray[np.float32]
    severities: NDArray[np.float32]
    traits: NDArray[np.float32]


class SceneGuide(PixelGuide):
    """See `mmfe_cache.guides.scene.network` for what each embedding is.

    Args:
        weights: a file of ``mmfe guide train``; None takes the shipped one.
        device: where to run; MPS stands for the CPU.
        network: a network that is loaded already, with its digest.

    Attributes:
        digest: SHA-256 of the weights' file.
        weights: that file; None for the shipped one.

    Raises:
        GuideError: the weights are missing or damaged.
    """

    def __init__(
        self,
        weights: Path | None = None,
        *,
        device: torch.device,
        network: tuple[SceneNetwork, str] | None = None,
    ) -> None:
        if device.type == "mps":  # its adaptive pooling wants sizes that are multiples of four
            device = torch.device("cpu")
        loaded, self.digest = network or load_scene(weights)
        super().__init__("scene" if weights is None else weights.stem, DIM, loaded, device)
        self.weights = weights
        self._network.to(device)

    @property
    def network(self) -> SceneNetwork:
        """What runs, in evaluation mode and on the guide's device."""
        assert isinstance(self._network, SceneNetwork)
        return self._network

    def prepare(self, image: ImageArray) -> ImageArray:
        """Bring one image to a size that the network takes, (H, W, 3) uint8.

        Images above the pixel budget shrink (antialiased bicubic), small ones are mirrored.
        """
        height, width = check_image(image).shape[:2]
        if height * width > MAX_PIXELS:
            scale = (MAX_PIXELS / (height * width)) ** 0.5
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            height, width = image.shape[:2]
        rows, columns = (max(MIN_SIDE, side + side % 2) for side in (height, width))
        return mirror_to(image, rows, columns)

    def judge(self, answer_BD: Tensor) -> Judgement:
        """Say what was done to B pictures, from their ``answer`` embeddings."""
        network = self._network
        with torch.inference_mode():
            answer = answer_BD.to(self.device, torch.float32)
            heads = (network.label_head, network.severity_head, network.trait_head)
            return Judgement(*(torch.sigmoid(head(answer)).cpu().numpy() for head in heads))

    def inspect(self, image: ImageArray) -> dict[str, dict[str, Any]]:
        """Say in words and numbers what is wrong with one picture.

        Args:
            image: (H, W, 3) uint8, a view of a photograph.

        Returns:
            ``degradations``: each label's ``probability`` and ``severity`` in [0, 1], the severity
            0 where the label is less likely than not; ``traits``: each of `TRAITS` in [0, 1], None
            where what has it is not there.
        """
        answer = self.encode([image]).answer
        assert answer is not None
        return self.explain(answer)

    def explain(self, answer_BD: Tensor) -> dict[str, dict[str, Any]]:
        """The same as `inspect`, from the ``answer`` of one picture (B = 1)."""
        judged = self.judge(answer_BD)
        present: dict[str, float] = dict(zip(KINDS, judged.present[0].tolist(), strict=True))
        severities: dict[str, float] = dict(zip(KINDS, judged.severities[0].tolist(), strict=True))
        traits: dict[str, float] = dict(zip(TRAITS, judged.traits[0].tolist(), strict=True))
        needs = {"airlight": "haze", "noise": "low"}
        return {
            "degradations": {
                kind: {
                    "probability": round(present[kind], 4),
                    "severity": round(severities[kind], 4) if present[kind] >= 0.5 else 0.0,
                }
                for kind in KINDS
            },
            "traits": {
                trait: round(value, 4)
                if trait not in needs or present[needs[trait]] >= 0.5
                else None
                for trait, value in traits.items()
            },
        }

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        return {
            "guide": "scene",
            "weights": self.digest,
            "tokens": "severities and traits, plus the mean + 4x4 grid of 16-pixel cells",
            "max_pixels": MAX_PIXELS,
            "dtype": "float32",
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        return {
            "name": self.name,
            "kind": "scene",
            "dim": self.dim,
            "licence": "Apache-2.0",
            "weights": str(self.weights or "in the package"),
            "sha256": self.digest,
            "predicts": list(KINDS),
            "device": str(self.device),
        }

    def _shape(self, prepared: ImageArray) -> Hashable:
        return prepared.shape

    def _encode_batch(self, prepared: Sequence[ImageArray]) -> Embeddings:
        height, width = prepared[0].shape[:2]
        step = max(1, _BATCH_PIXELS // (height * width))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, len(prepared), step):
            output = self._network(self._to_tensor(prepared[start : start + step]))
            parts.append((*self._network.tokens(output), output.answer.float()))
        image, joint, answer = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return Embeddings(image, joint, answer)

    def _to_tensor(self, prepared: Sequence[ImageArray]) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], channels last."""
        return self._to_device(prepared).permute(0, 3, 1, 2).float().div_(255)
