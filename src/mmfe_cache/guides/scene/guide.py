"""The guide ``scene``: degradations seen by a small network whose weights come with the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors, save as save_tensors
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfe_cache.degradations import KINDS
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.io import write_file
from mmfe_cache.samples import ImageArray
from mmfe_cache.views import mirror_to

from ..base import PixelGuide, check_image
from .network import DIM, MIN_SIDE, TRAITS, SceneNetwork, ask_only

MAX_PIXELS = 512 * 512
"""The pixel budget under the view ``native``; larger pictures are shrunk to it."""

_BATCH_PIXELS = 16 * 224 * 224
"""Pixels that run at once: more does not run faster, and takes more memory."""


@dataclass(frozen=True, slots=True)
class SceneEstimate:
    """What ``scene`` says of B pictures.

    Attributes:
        present: (B, 4) probability that each of low, haze, rain, snow is there.
        severities: (B, 4) in [0, 1].
        traits: (B, 3) in [0, 1], see `TRAITS`; of meaning where what has the trait is there.
    """

    present: NDArray[np.float32]
    severities: NDArray[np.float32]
    traits: NDArray[np.float32]


def to_scene_size(image: ImageArray) -> ImageArray:
    """Bring one image to a size that the network takes, (H, W, 3) uint8.

    Images above the pixel budget shrink (antialiased bicubic), small ones are mirrored.
    """
    height, width = image.shape[:2]
    if height * width > MAX_PIXELS:
        scale = (MAX_PIXELS / (height * width)) ** 0.5
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        height, width = image.shape[:2]
    rows, columns = (max(MIN_SIDE, side + side % 2) for side in (height, width))
    return mirror_to(image, rows, columns)


class ScenePictures(PixelGuide):
    """How pictures go into the network of ``scene``: what its guides have in common."""

    def prepare(self, image: ImageArray) -> ImageArray:
        """Bring one image to a size that the network takes, (H, W, 3) uint8."""
        return to_scene_size(check_image(image))

    def _shape(self, prepared: ImageArray) -> Hashable:
        return prepared.shape

    def _batches(self, prepared: Sequence[ImageArray]) -> Iterator[Tensor]:
        """(B, 3, H, W) float32 in [0, 1], channels last, so many at once as run fast."""
        height, width = prepared[0].shape[:2]
        step = max(1, _BATCH_PIXELS // (height * width))
        for start in range(0, len(prepared), step):
            batch = self._to_device(prepared[start : start + step])
            yield batch.permute(0, 3, 1, 2).float().div_(255)


class SceneGuide(ScenePictures):
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

    def estimate(self, answer_BD: Tensor) -> SceneEstimate:
        """Say what was done to B pictures, from their ``answer`` embeddings."""
        network = self._network
        with torch.inference_mode():
            answer = answer_BD.to(self.device, torch.float32)
            heads = (network.label_head, network.severity_head, network.trait_head)
            return SceneEstimate(*(torch.sigmoid(head(answer)).cpu().numpy() for head in heads))

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
        judged = self.estimate(answer_BD)
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

    def only(self, embeddings: Embeddings, kinds: Collection[str]) -> Embeddings:
        """Embeddings that ask for some degradations alone; see `ask_only`."""
        return ask_only(self.network, embeddings, kinds)

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
        more = {"sha256": self.digest, "predicts": list(KINDS)}
        return self._about("scene", "Apache-2.0", self.weights or "in the package", **more)

    def _encode_batch(self, prepared: Sequence[ImageArray]) -> Embeddings:
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for pictures in self._batches(prepared):
            output = self._network(pictures)
            parts.append((*self._network.tokens(output), output.answer.float()))
        image, joint, answer = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return Embeddings(image, joint, answer)


FORMAT = "mmfe-scene"
"""What the file's metadata must say."""

SHIPPED = "scene.safetensors"
"""The weights inside the package; ``scene.json`` beside them holds their hash."""

_TRAINING_ONLY = "clean_head."
"""Of the network's tensors, those that the guide never uses; they are not part of the file."""


def save_scene(network: SceneNetwork, path: Path, training: Mapping[str, Any]) -> str:
    """Write a trained network; aside first, so that a file is there whole or not at all.

    Args:
        network: in any state of training.
        path: where to; its folder is made.
        training: how it was trained; kept in the file.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    state = {n: t for n, t in network.state_dict().items() if not n.startswith(_TRAINING_ONLY)}
    metadata = {"format": FORMAT, "dim": str(DIM), "training": json.dumps(dict(training))}
    return write_weights(path, halved(state), metadata)


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in float16, as weights lie on disk."""
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file, whole or not at all; equal contents give equal bytes.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    content = save_tensors(dict(state), dict(metadata))
    length = int.from_bytes(content[:8], "little")
    # The library writes the header's keys in random order.
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    content = len(header).to_bytes(8, "little") + header + content[8 + length :]
    write_file(path, content)
    return hashlib.sha256(content).hexdigest()


def read_metadata(content: bytes) -> dict[str, str]:
    """What `write_weights` was given as ``metadata``.

    Raises:
        ValueError: these bytes are no such file.
        KeyError: likewise.
    """
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def load_scene(path: Path | None = None) -> tuple[SceneNetwork, str]:
    """Read a network, ready to run.

    Args:
        path: a file written by `save_scene`; None takes the one inside the package.

    Returns:
        As `scene_from`, and the file's SHA-256.

    Raises:
        GuideError: the file is missing, damaged, or holds something else.
    """
    state, digest = read_scene(path)
    return scene_from(state, path or SHIPPED), digest


def read_scene(path: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file of `save_scene`, as they lie on disk, and the file's SHA-256.

    Raises:
        GuideError: the file is missing or damaged.
    """
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if path is None:
        _check_shipped(digest)
    try:
        return load_tensors(content), digest
    except SafetensorError as problem:
        raise _no_weights(path or SHIPPED, problem) from problem


def scene_from(state: Mapping[str, Tensor], source: object) -> SceneNetwork:
    """A network with the tensors of `read_scene`.

    Args:
        state: name to tensor.
        source: where they come from, for messages.

    Returns:
        The network in evaluation mode, batch norms folded into its convolutions, channels last,
        its ``clean_head`` untrained.

    Raises:
        GuideError: the tensors are another network's.
    """
    network = SceneNetwork()
    # float16 on disk is exact in float32: what is shipped is what is computed with.
    full = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    rest = {n: t for n, t in network.state_dict().items() if n.startswith(_TRAINING_ONLY)}
    try:
        network.load_state_dict({**rest, **full})
    except RuntimeError as problem:
        raise _no_weights(source, problem) from problem
    network.eval()
    fold_norms(network)
    return network.to(memory_format=torch.channels_last)


def _no_weights(source: object, problem: Exception) -> GuideError:
    return GuideError(
        "these are no weights of the guide scene",
        got=f"{source}: {' '.join(str(problem).split())[:300]}",
        expected="a file written by `mmfe guide train` of this version",
        remedy="mmfe guide train PHOTOS --out FILE",
    )


def _read(path: Path | None) -> bytes:
    try:
        if path is not None:
            return path.read_bytes()
        return resources.files("mmfe_cache.guides.scene").joinpath(SHIPPED).read_bytes()
    except FileNotFoundError as problem:
        raise GuideError(
            "the weights of the guide scene are missing",
            got=path or f"no {SHIPPED} in the installed package",
            remedy="install mmfe again" if path is None else "mmfe guide train PHOTOS --out FILE",
        ) from problem


def _check_shipped(digest: str) -> None:
    note = resources.files("mmfe_cache.guides.scene").joinpath("scene.json").read_text("utf-8")
    expected = json.loads(note)["sha256"]
    if digest != expected:
        raise GuideError(
            "the weights of the guide scene are not the ones that were shipped",
            got=f"SHA-256 {digest}",
            expected=expected,
            remedy="install mmfe again",
        )


def fold_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, throughout ``module``."""
    for child in module.children():
        fold_norms(child)
    if not isinstance(module, nn.Sequential):
        return
    for index in range(len(module) - 1):
        first, second = module[index], module[index + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            module[index] = fuse_conv_bn_eval(first, second)
            module[index + 1] = nn.Identity()
