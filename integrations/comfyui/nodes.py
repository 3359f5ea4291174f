"""The node's class. ComfyUI's stock node would cut images up before the guide sees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

FOLDER = "mmfe"
"""Files of `mmfe export -o FILE.safetensors` are looked for in ComfyUI's `models/mmfe`."""


def own_files() -> dict[str, Path]:
    """Name to path of the exported networks in `models/mmfe`; empty outside of ComfyUI."""
    try:
        import folder_paths  # ComfyUI's own
    except ImportError:
        return {}
    folder = Path(folder_paths.models_dir) / FOLDER
    return {path.name: path for path in sorted(folder.glob("*.safetensors"))}


def device() -> torch.device:
    """Where ComfyUI computes; outside of it, where mmfe would."""
    try:
        from comfy import model_management
    except ImportError:
        from mmfe_cache.machine import pick_device

        return pick_device("auto")
    return model_management.get_torch_device()


@lru_cache(maxsize=2)
def load(name: str, changed: float) -> Any:
    """A network with its guide; ``changed`` tells a file from one of the same name before."""
    from mmfe_restore.export.files import gather_parts
    from mmfe_restore.export.guided import GuidedRestorer, read_guided
    from mmfe_restore.model.checkpoints import read_weights
    from mmfe_restore.model.folders import shipped_models
    from mmfe_restore.model.restorer import Restorer

    if name in shipped_models():
        parts = gather_parts(Restorer.from_pretrained(name))
        guide = parts.guide
        if guide is None:
            return GuidedRestorer(parts.restorer, None).eval()
        return GuidedRestorer(parts.restorer, guide.network, guide.view, guide.tokens).eval()
    return read_guided(read_weights(own_files()[name]))


class RestorePhotographs:
    """Removes low light, haze, rain and snow from a batch of images."""

    CATEGORY = "image/restoration"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "Removes low light, haze, rain and snow, guided by what the images suffer from."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802, the name that ComfyUI asks for
        """What the node takes, as ComfyUI reads it."""
        from mmfe_restore.model.folders import shipped_models

        names = [*shipped_models(), *own_files()]
        strength = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "image": ("IMAGE",),
                "model": (names,),
                "strength": ("FLOAT", strength),
            }
        }

    def restore(
        self, image: torch.Tensor, model: str, strength: float = 1.0
    ) -> tuple[torch.Tensor]:
        """Restore B images.

        Args:
            image: (B, H, W, C), RGB or RGBA in [0, 1]; alpha is kept.
            model: a network of mmfe, or a file in `models/mmfe`.
            strength: 0 leaves the images as they are, 1 takes the whole restoration.

        Returns:
            The images, (B, H, W, C), on the CPU as ComfyUI hands them on.

        Raises:
            RuntimeError: the network is not there or cannot be read; in one line.
        """
        network = _find(model)
        used = device()
        network.to(used)
        watch = _progress(len(image))
        restored: list[torch.Tensor] = []
        with torch.inference_mode():
            for number, one in enumerate(image):  # one by one: they are large
                given = one[None, ..., :3].permute(0, 3, 1, 2).to(used, torch.float32)
                result = network(given).clamp(0, 1)
                mixed = torch.lerp(given, result, strength)
                done = mixed[0].permute(1, 2, 0).to("cpu", image.dtype)
                restored.append(torch.cat([done, one[..., 3:].cpu()], dim=-1))
                watch(number + 1)
        return (torch.stack(restored),)


def _find(name: str) -> Any:
    from mmfe_cache.errors import MmfeError
    from mmfe_restore.model.folders import shipped_models

    files = own_files()
    if name not in shipped_models() and name not in files:
        raise RuntimeError(
            f"mmfe: there is no network {name}; export one with `mmfe export MODEL -o {name}` "
            f"into ComfyUI's models/{FOLDER}"
        )
    try:
        return load(name, files[name].stat().st_mtime if name in files else 0.0)
    except MmfeError as problem:
        raise RuntimeError(f"mmfe: {'; '.join(str(problem).split(chr(10)))}") from problem


def _progress(total: int) -> Callable[[int], None]:
    """Moves ComfyUI's bar, and stops where its user asks for that."""
    try:
        from comfy import model_management
        from comfy.utils import ProgressBar
    except ImportError:
        return lambda _: None
    bar = ProgressBar(total)

    def watch(done: int) -> None:
        bar.update_absolute(done, total)
        model_management.throw_exception_if_processing_interrupted()

    return watch
