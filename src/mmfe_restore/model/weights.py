"""Weights: counted, read from files as tensors only, refused where they are another network's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmfe_cache.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name to tensor, from .safetensors, or from a pickle that is read with ``weights_only=True``.

    Args:
        path: the state dict itself, or one under ``params`` or ``state_dict``.

    Raises:
        ModelError: there is no such file, it is damaged, or it holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(
            f"there are no weights at {path}", expected="a .safetensors or .pth file"
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as problem:
        raise ModelError(
            f"{path} is damaged or not a file of weights",
            got=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
        ) from problem
    except Exception as problem:  # pickle.UnpicklingError and whatever a hostile pickle raises
        raise ModelError(
            f"{path} holds more than tensors and is refused",
            got=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
            expected="tensors only, as torch.load(weights_only=True) reads them",
            remedy="save its state dict alone, best as .safetensors",
        ) from problem
    for key in ("params", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise ModelError(
            f"{path} holds no state dict", got=type(loaded).__name__, expected="name to tensor"
        )
    return cast("dict[str, Tensor]", loaded)


def check_fit(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Refuse weights that are not exactly those of ``network``.

    Args:
        network: to be loaded.
        state: name to tensor.
        path: where they come from, for the message.

    Raises:
        ModelError: names missing or foreign, or tensors of another shape or type.
    """
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} where {tuple(tensor.shape)} belongs"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    shapes += [
        f"{name} of {state[name].dtype}"
        for name in own
        if name in state and not state[name].is_floating_point()
    ]
    if not (missing or foreign or shapes):
        return
    found = [
        *(
            f"{len(names)} {what}, such as {names[0]}"
            for what, names in (
                ("missing", missing),
                ("foreign", foreign),
                ("of another shape or type", shapes),
            )
            if names
        )
    ]
    raise ModelError(
        f"the weights in {path} are another network's",
        got="; ".join(found),
        expected=f"the {len(own)} tensors of its configuration",
        remedy="use the config.json or the recipe that these weights were trained with",
    )
