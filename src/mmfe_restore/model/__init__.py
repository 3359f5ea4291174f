"""The network of stage two, part by part beside the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.model.card import count_parameters as count_parameters
    from mmfe_restore.model.complexity import (
        count_macs as count_macs,
        info as info,
        parameters_of as parameters_of,
        parts as parts,
    )
    from mmfe_restore.model.network import MGFB_SITES as MGFB_SITES, MOFE_SITES as MOFE_SITES
    from mmfe_restore.model.restorer import Restorer as Restorer


# Imported when asked for: which networks are shipped is known without torch.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "network": ["MGFB_SITES", "MOFE_SITES"],
        "restorer": ["Restorer"],
        "complexity": ["count_macs", "info", "parameters_of", "parts"],
        "card": ["count_parameters"],
    },
)
