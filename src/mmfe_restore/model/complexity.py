"""How large a network is: parameters by part, and the arithmetic of one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmfe_restore.model.card import count_parameters
from mmfe_restore.model.mofe import num_bands
from mmfe_restore.model.restorer import Restorer

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import ModelConfig, Recipe


def parameters_of(config: ModelConfig) -> int:
    """How many numbers a network learns, counted without making it."""
    with torch.device("meta"):
        return count_parameters(Restorer(config))


def parts(restorer: Restorer) -> dict[str, int]:
    """Parameters of the backbone, of each kind of added part, and of the null guidance."""
    encoder = sum(count_parameters(m) for s, m in restorer.mgfb.items() if _in_encoder(s))
    mgfb, mofe = count_parameters(restorer.mgfb), count_parameters(restorer.mofe)
    null = count_parameters(restorer.null_guidance) if restorer.null_guidance else 0
    return {
        "backbone": count_parameters(restorer) - mgfb - mofe - null,
        "mgfb_encoder": encoder,
        "mgfb_decoder": mgfb - encoder,
        "mofe": mofe,
        "null_guidance": null,
    }


def _in_encoder(site: str) -> bool:
    return site.startswith("encoder") or site == "latent_in"


def count_macs(config: ModelConfig, size: int = 256) -> int:
    """Multiply-accumulates of convolutions and matrix products for one ``size``² image.

    Counted on the network as it runs, with 16 guidance tokens; nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        restorer = Restorer(config)
        side = -(-size // restorer.size_multiple) * restorer.size_multiple
        image = torch.empty(1, 3, side, side)
        halved = 1 if config.experts == "spatial" else 2
        sides = [(side >> level) // halved for level in (1, 2, 3)]
        bands = tuple(torch.empty(1, s, s, num_bands(config)) for s in sides)
        tokens = torch.empty(1, 16, config.guidance_dim)
    counter = FlopCounterMode(display=False)
    with counter:
        restorer.restore_padded(image, bands, tokens, tokens, tokens[:, 0])
    return counter.get_total_flops() // 2


def info(recipe: Recipe) -> dict[str, Any]:
    """What ``mmfe model info --json`` prints.

    Returns:
        ``recipe``, ``description``, ``parameters`` (an integer), ``published`` (millions or None),
        ``parts`` and ``macs_256``.
    """
    with torch.device("meta"):
        restorer = Restorer(recipe.model)
    return {
        "recipe": recipe.name,
        "description": recipe.description,
        "parameters": count_parameters(restorer),
        "published": recipe.published_parameters,
        "parts": parts(restorer),
        "macs_256": count_macs(recipe.model),
    }
