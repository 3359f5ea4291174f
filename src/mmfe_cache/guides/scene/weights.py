"""The weights of ``scene`` on disk: safetensors, float16, checked by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.scene.network import DIM, SceneNetwork
from mmfe_cache.io import write_file

FORMAT = "mmfe-scene"
"""What the file's metadata must say."""

SHIPPED = "scene.safetensors"
"""The weights inside the package; ``scene.json`` beside them holds their hash."""

_TRAINING_ONLY = "clean_head."
"""Of the network's tensors, those that the guide never uses; they are no part of the file."""


def save_scene(network: SceneNetwork, path: Path, training: Mapping[str, Any]) -> str:
    """Write a trained network; aside first, so that a file is there whole or not at all.

    Args:
        network: in any state of training.
        path: where to; its folder is made.
        training: how it was trained; kept in the file.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith(_TRAINING_ONLY)
    }
    metadata = {"format": FORMAT, "dim": str(DIM), "training": json.dumps(dict(training))}
    content = _in_order(save_tensors(state, metadata))
    write_file(path, content)
    return hashlib.sha256(content).hexdigest()


def _in_order(content: bytes) -> bytes:
    """The same file with its header's keys sorted: safetensors writes metadata in random order."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


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
    _fold(network)
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


def _fold(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, throughout ``module``."""
    for child in module.children():
        _fold(child)
    if not isinstance(module, nn.Sequential):
        return
    for index in range(len(module) - 1):
        first, second = module[index], module[index + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            module[index] = fuse_conv_bn_eval(first, second)
            module[index + 1] = nn.Identity()
