"""The network of stage two, part by part beside the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.model.checkpoints import count_parameters
    from mmfe_restore.model.complexity import count_macs, info, parameters_of, parts
    from mmfe_restore.model.network import MGFB_SITES, MOFE_SITES
    from mmfe_restore.model.restorer import Restorer

__all__ = [
    "MGFB_SITES",
    "MOFE_SITES",
    "Restorer",
    "count_macs",
    "count_parameters",
    "info",
    "parameters_of",
    "parts",
]

# Imported when asked for: which networks are shipped is known without torch.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "network": ["MGFB_SITES", "MOFE_SITES"],
        "restorer": ["Restorer"],
        "complexity": ["count_macs", "info", "parameters_of", "parts"],
        "checkpoints": ["count_parameters"],
    },
)
