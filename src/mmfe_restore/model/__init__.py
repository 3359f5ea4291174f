"""The network of stage two, part by part beside the paper."""

from __future__ import annotations

from mmfe_restore.model.complexity import count_macs, count_parameters, info, parts
from mmfe_restore.model.network import MGFB_SITES, MOFE_SITES
from mmfe_restore.model.restorer import Restorer

__all__ = [
    "MGFB_SITES",
    "MOFE_SITES",
    "Restorer",
    "count_macs",
    "count_parameters",
    "info",
    "parts",
]
