"""The guide ``prompt``: one of twelve classes and nothing more (OneRestore's scene descriptor).

The row "prompt-based" of the paper's Table 5c, and its Figure 1a: a picture is assigned to one of
`CLASSES`, and everything that it hands on is a function of that class. What it looks with is the
network of ``scene``, so that the two differ in nothing but the snapping: what ``prompt`` loses
beside ``scene`` is what lies between the classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.nn import functional as F

from mmfe_cache.degradations import CLEAR, COMPOSITIONS
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.scene.guide import (
    MAX_PIXELS,
    ScenePictures,
    load_scene,
    read_metadata,
    write_weights,
)
from mmfe_cache.guides.scene.network import DIM
from mmfe_cache.samples import ImageArray

CLASSES = (CLEAR, *COMPOSITIONS)
"""The twelve classes of OneRestore's descriptor: clear, and CDD11's eleven."""

FORMAT = "mmfe-prompt"
"""What the file's metadata must say."""

SHIPPED = "prompt.safetensors"
"""The weights inside the package; they belong to the shipped ``scene``."""


@dataclass(frozen=True, slots=True)
class PromptHead:
    """What snaps an ``answer`` of ``scene`` to a class.

    Attributes:
        weight: (12, D) of the linear classifier.
        bias: (12,).
        vectors: (12, D) each class's own: the mean ``answer`` of its training pictures.
        scene: SHA-256 of the weights of ``scene`` that it was made for.
    """

    weight: Tensor
    bias: Tensor
    vectors: Tensor
    scene: str

    def classify(self, answer_BD: Tensor) -> Tensor:
        """(B,) the most likely class of each picture."""
        return F.linear(answer_BD.float(), self.weight, self.bias).argmax(dim=1)


class PromptGuide(ScenePictures):
    """Snaps each picture to its class; see the module's docstring.

    ``answer`` is the class's vector. ``image`` and ``joint`` are what the tokens of ``scene`` would
    say by that vector alone, the same for every picture of the class.

    Args:
        weights: a file of ``mmfe guide train --kind prompt``; None takes the shipped one.
        device: where to run.

    Raises:
        GuideError: the weights are missing, damaged, or belong to another ``scene``.
    """

    def __init__(self, weights: Path | None = None, *, device: torch.device) -> None:
        network, scene = load_scene()
        head, self._digest = load_prompt(weights)
        if head.scene != scene:
            raise GuideError(
                "these weights of the guide prompt were made for another scene",
                got=f"{weights or SHIPPED}, made for the scene {head.scene[:16]}…",
                expected=f"the scene of this package, {scene[:16]}…",
                remedy="mmfe guide train PHOTOS --kind prompt --out FILE.safetensors",
            )
        super().__init__("prompt" if weights is None else weights.stem, DIM, network, device)
        self._network.to(device)
        self._scene, self._weights = scene, weights
        self._head = PromptHead(
            head.weight.to(device), head.bias.to(device), head.vectors.to(device), scene
        )
        with torch.inference_mode():
            self._image, self._joint = self._network.tokens_of_answer(self._head.vectors)

    def classify(self, images: Sequence[ImageArray]) -> list[str]:
        """The class of each of B pictures, one of `CLASSES`."""
        found = self.encode(images).answer
        assert found is not None
        return self.names(found)

    def names(self, answer_BD: Tensor) -> list[str]:
        """The class of each of B answers of this guide."""
        distances = torch.cdist(answer_BD.float(), self._head.vectors.to(answer_BD.device))
        return [CLASSES[int(place)] for place in distances.argmin(dim=1)]

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        return {
            "guide": "prompt",
            "weights": self._digest,
            "scene": self._scene,
            "classes": list(CLASSES),
            "tokens": "what scene's tokens say of the class's vector",
            "max_pixels": MAX_PIXELS,
            "dtype": "float32",
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        more = {"sha256": self._digest, "classes": list(CLASSES)}
        return self._about("prompt", "Apache-2.0", self._weights or "in the package", **more)

    def _encode_batch(self, prepared: Sequence[ImageArray]) -> Embeddings:
        answers = [self._network(pictures).answer for pictures in self._batches(prepared)]
        place = self._head.classify(torch.cat(answers))
        return Embeddings(self._image[place], self._joint[place], self._head.vectors[place])


# Its weights


def save_prompt(head: PromptHead, path: Path, training: Mapping[str, Any]) -> str:
    """Write a head; aside first, so that a file is there whole or not at all.

    Args:
        head: the head.
        path: where to.
        training: how it was made; kept in the file as JSON.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    state = {"weight": head.weight, "bias": head.bias, "vectors": head.vectors}
    said = json.dumps(dict(training))
    metadata = {"format": FORMAT, "dim": str(DIM), "scene": head.scene, "training": said}
    return write_weights(path, {name: t.float() for name, t in state.items()}, metadata)


def load_prompt(path: Path | None = None) -> tuple[PromptHead, str]:
    """Read a head.

    Args:
        path: a file written by `save_prompt`; None takes the one inside the package.

    Returns:
        The head and the file's SHA-256.

    Raises:
        GuideError: the file is missing, damaged, or holds something else.
    """
    try:
        shipped = resources.files("mmfe_cache.guides").joinpath(SHIPPED)
        content = shipped.read_bytes() if path is None else path.read_bytes()
        head = _read_head(content)
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise GuideError(
            "these are no weights of the guide prompt",
            got=f"{path or SHIPPED}: {' '.join(str(problem).split())[:300]}",
            expected="a file written by `mmfe guide train --kind prompt`",
            remedy="install mmfe again" if path is None else None,
        ) from problem
    return head, hashlib.sha256(content).hexdigest()


def _read_head(content: bytes) -> PromptHead:
    state = load_tensors(content)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    rows = len(CLASSES)
    if shapes != {"weight": (rows, DIM), "bias": (rows,), "vectors": (rows, DIM)}:
        raise ValueError(f"tensors of other shapes: {shapes}")
    return PromptHead(**state, scene=read_metadata(content)["scene"])
