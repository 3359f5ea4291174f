"""Image in, image out: a restorer and the guide `scene` as one module, and as one file.

The file is safetensors: the restorer's tensors under ``restorer.``, the guide's under ``scene.``,
and under ``mmfe.config`` the bytes of a JSON document, since programs such as spandrel hand on
nothing but tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmfe_cache.embeddings import TOKEN_SLICES, Embeddings, Tokens
from mmfe_cache.errors import MmfeError, ModelError
from mmfe_cache.guides.scene.guide import SceneGuide, read_scene, scene_from
from mmfe_cache.io import write_file
from mmfe_cache.parsing import parse_json
from mmfe_cache.views import View
from mmfe_restore.model.checkpoints import check_fit
from mmfe_restore.model.restorer import Restorer
from mmfe_restore.recipes import recipe_from_dict

if TYPE_CHECKING:
    from mmfe_cache.guides.scene.network import SceneNetwork
    from mmfe_restore.export.files import Parts

CONFIG = "mmfe.config"
"""The tensor whose bytes are the configuration."""

FORMAT = "mmfe-guided-1"
"""What the configuration says under ``format``; raised when an older reader would go wrong."""

_RESTORER, _SCENE = "restorer.", "scene."


class GuidedRestorer(nn.Module):
    """A restorer that looks at what it restores.

    Args:
        restorer: float32.
        scene: the guide's network, float32; None takes the restorer's null guidance, or is right
            for one that reads no embedding.
        view: what the guide sees of a picture.
        tokens: which of its tokens the restorer reads.
    """

    def __init__(
        self,
        restorer: Restorer,
        scene: SceneNetwork | None,
        view: View | None = None,
        tokens: Tokens = "grid",
    ) -> None:
        super().__init__()
        self.restorer = restorer
        self.scene = scene
        self.view = view or View("native")
        self.tokens: Tokens = tokens

    def forward(self, image: Tensor) -> Tensor:
        """Restore B pictures.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any size, float32.

        Returns:
            (B, 3, H, W), not clamped.
        """
        return self.restorer(image, self.look(image))

    def look(self, image: Tensor) -> Embeddings | None:
        """What the guide sees in each of B pictures, on 8 bits as in training."""
        if self.scene is None:
            return None
        guide = SceneGuide(device=self.restorer.device, network=(self.scene, ""))
        levels = image.detach().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        pictures = [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in levels]
        return guide.encode([self.view.render(one) for one in pictures]).select(self.tokens)


def write_guided(path: Path, parts: Parts, facts: Mapping[str, str]) -> None:
    """Write a network with its guide as one safetensors file.

    Weights that float16 holds exactly are stored in it: shipped ones are, and take half the space.

    Args:
        path: where to.
        parts: the network and its guide.
        facts: kept in the file's configuration and metadata.

    Raises:
        ModelError: the guide is not inside: nothing reads such a file.
    """
    if parts.asks_for:
        raise ModelError(
            "this network's guide does not fit into a safetensors file",
            got=f"a network that asks for {', '.join(parts.asks_for)}",
            expected="one trained with scene, or with guidance dropout",
            remedy="--guide none where the network has null guidance, or export to .onnx",
        )
    state = {_RESTORER + name: t for name, t in parts.restorer.state_dict().items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        "facts": dict(facts),
        "model": asdict(parts.restorer.config),
        "guide": None,
    }
    if parts.guide is not None:
        tensors, _ = read_scene(parts.guide.weights)
        state |= {_SCENE + name: tensor for name, tensor in tensors.items()}
        config["guide"] = {"view": parts.guide.view.name, "tokens": parts.guide.tokens}
    small = {name: _smallest(tensor) for name, tensor in state.items()}
    text = np.frombuffer(json.dumps(config).encode(), dtype=np.uint8).copy()
    content = to_bytes({**small, CONFIG: torch.from_numpy(text)}, {"format": "pt", **facts})
    write_file(path, content)


def _smallest(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def read_guided(state: Mapping[str, Tensor]) -> GuidedRestorer:
    """The module of a file of `write_guided`.

    Args:
        state: the file's tensors.

    Returns:
        In evaluation mode, on the CPU.

    Raises:
        ModelError: the file is damaged or of another version.
        GuideError: the guide's tensors are.
    """
    config = _configuration(state)
    try:
        restorer = Restorer(recipe_from_dict({"model": config["model"]}).model)
        guide = config["guide"]
        view = View.parse(guide["view"]) if guide else None
        tokens = str(guide["tokens"]) if guide else "grid"
        TOKEN_SLICES[cast("Tokens", tokens)]
    except (MmfeError, KeyError, TypeError) as problem:
        raise ModelError(
            "this file of mmfe cannot be read",
            got=" ".join(str(problem).split())[:300] or type(problem).__name__,
            expected="a file that this version of `mmfe export` wrote",
            remedy="export the network again",
        ) from problem
    own = {
        n.removeprefix(_RESTORER): t.float() for n, t in state.items() if n.startswith(_RESTORER)
    }
    check_fit(restorer, own, Path(CONFIG))
    restorer.load_state_dict(own)
    seen = {n.removeprefix(_SCENE): t for n, t in state.items() if n.startswith(_SCENE)}
    scene = scene_from(seen, CONFIG) if guide else None
    sees = cast("Tokens", tokens)
    return GuidedRestorer(restorer, scene, view, sees).eval()


def _configuration(state: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        config = parse_json(state[CONFIG].cpu().numpy().tobytes(), CONFIG)
        found = config["format"]
    except (KeyError, ValueError, TypeError) as problem:
        raise ModelError(
            "this is no file of mmfe",
            got=f"a broken {CONFIG}" if CONFIG in state else f"no {CONFIG}",
            expected="a file of `mmfe export MODEL -o FILE.safetensors`",
        ) from problem
    if found != FORMAT:
        raise ModelError(
            "this file of mmfe is of another version",
            got=str(found),
            expected=FORMAT,
            remedy="export the network again with this version, or install the one that wrote it",
        )
    return config
