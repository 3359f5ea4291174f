"""What the network refuses: settings, images and guidance that do not fit, each by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmfe_cache.errors import ModelError
from mmfe_restore.recipes.schema import WINDOW_UNIT

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_restore.recipes.schema import ModelConfig, Recipe


def check_config(config: ModelConfig) -> None:
    """Refuse widths, heads and windows that no network can have.

    Raises:
        ModelError: an odd width, heads that do not divide their level's channels, or windows whose
            cells have no middle on every level.
    """
    if config.width < 2 or config.width % 2:
        raise ModelError(
            "model.width cannot be halved before the pixels are regrouped",
            got=config.width,
            expected="an even number",
        )
    window = config.attention_window
    counted = isinstance(window, int)  # a caller may give anything
    if window is not None and (not counted or window < 1 or window % WINDOW_UNIT):
        raise ModelError(
            "model.attention_window cannot be divided into cells on every level",
            got=repr(window),
            expected=f"a multiple of {WINDOW_UNIT}, or null",
        )
    for level, heads in enumerate(config.num_heads):
        channels = config.width * 2**level
        if heads < 1 or channels % heads:
            raise ModelError(
                f"model.num_heads does not divide the channels of level {level + 1}",
                got=f"{heads} heads for {channels} channels",
                expected=f"a divisor of {channels}",
            )


def check_image(image: Tensor, dtype: torch.dtype, *, values: bool) -> None:
    """Refuse what is not a batch of images.

    Args:
        image: what the caller gave.
        dtype: of the network's weights.
        values: also look for NaN and infinity, which costs a pass and, on CUDA, a wait.

    Raises:
        ModelError: another shape than (B, 3, H, W), a wrong dtype, or a non-finite value where
            ``values`` asks for it.
    """
    _check_shape(image)
    if not image.is_floating_point():
        raise ModelError(
            "the restorer takes floating-point pixels",
            got=image.dtype,
            expected="a floating dtype, values in [0, 1]",
            remedy="divide uint8 pixels by 255",
        )
    if image.dtype != dtype and not _autocast(image):
        raise ModelError(
            "the image is of another type than the network's weights",
            got=image.dtype,
            expected=dtype,
            remedy="image.to(restorer.dtype), or restorer.to(image.dtype)",
        )
    if values and not bool(image.isfinite().all()):
        raise ModelError("the image holds NaN or infinity", expected="finite pixels in [0, 1]")


def check_bytes(image: Tensor) -> None:
    """Refuse what is no batch of 8-bit images.

    Raises:
        ModelError: another shape than (B, 3, H, W), or another type than uint8.
    """
    _check_shape(image)
    if image.dtype != torch.uint8:
        raise ModelError("these are no images of 8 bits", got=image.dtype, expected=torch.uint8)


def _check_shape(image: Tensor) -> None:
    if image.dim() != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ModelError(
            "the restorer takes a batch of RGB images",
            got=tuple(image.shape),
            expected="(B, 3, H, W), each at least 1",
        )


def check_embeddings(
    embeddings: Embeddings, config: ModelConfig, batch: int, *, values: bool
) -> None:
    """Refuse embeddings that do not fit the network.

    Args:
        embeddings: what the caller gave.
        config: which kinds the network reads, and D.
        batch: B, the number of images.
        values: also look for NaN and infinity, which costs a pass and, on CUDA, a wait.

    Raises:
        ModelError: a missing kind; another batch size, width, number of axes or a dtype that
            is not floating-point; a non-finite value where ``values`` asks for it.
    """
    for name in config.reads:
        tensor = getattr(embeddings, name)
        tokens = "" if name == "answer" else "T, "
        expected = f"{name} of shape ({batch}, {tokens}{config.guidance_dim})"
        if tensor is None:
            raise ModelError(
                f"the network reads the embedding `{name}`, which is missing",
                got=", ".join(embeddings.present()) or "no embedding at all",
                expected=", ".join(config.reads),
                remedy=f'ask the guide or the cache for arrays=("{name}", ...) too',
            )
        if not tensor.is_floating_point():
            raise ModelError(
                f"the embedding `{name}` is not floating-point",
                got=tensor.dtype,
                expected="float16, bfloat16, float32 or float64",
            )
        wanted = 2 if name == "answer" else 3
        if tensor.dim() == wanted and tensor.shape[-1] != config.guidance_dim:
            raise ModelError(
                f"the embedding `{name}` has another width than this network was made for",
                got=f"D = {tensor.shape[-1]}",
                expected=f"D = {config.guidance_dim} (model.guidance_dim)",
                remedy="use the guide of the network's recipe, or train with `--set guide=NAME`",
            )
        if tensor.dim() != wanted or len(tensor) != batch or 0 in tensor.shape:
            raise ModelError(
                f"the embedding `{name}` does not fit the batch of images",
                got=tuple(tensor.shape),
                expected=expected,
            )
        if values and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"the embedding `{name}` holds NaN or infinity",
                expected="finite numbers",
                remedy="mmfe cache verify PATH",
            )


def check_view(view: str, recipe: Recipe) -> None:
    """Refuse embeddings of a view that the network never met.

    Raises:
        ModelError: ``view`` is neither one of the recipe's training views nor its test's.
    """
    known = dict.fromkeys((*recipe.training_views, recipe.eval.view))
    if view not in known:
        raise ModelError(
            "the embeddings are of another view than this network was trained with",
            got=view,
            expected=", ".join(known),
            remedy=f"cache.gather(..., view={recipe.eval.view!r}); or, to try it all the same, "
            "dataclasses.replace(embeddings, view=None)",
        )


def check_keep(keep: Tensor, batch: int) -> None:
    """Refuse a ``keep`` that does not say yes or no for each of ``batch`` images.

    Raises:
        ModelError: another shape, or a dtype that is not bool.
    """
    if keep.dtype != torch.bool or keep.shape != (batch,):
        raise ModelError(
            "`keep` does not say for every image whether its guidance is kept",
            got=f"{keep.dtype} of shape {tuple(keep.shape)}",
            expected=f"torch.bool of shape ({batch},)",
        )


def _autocast(image: Tensor) -> bool:
    return not image.is_meta and torch.is_autocast_enabled(image.device.type)
