"""The training loss: L1 + fourier · Fourier + λ · L_MGL (paper, Eq. 8)."""

from __future__ import annotations

from mmfe_restore.losses.reconstruction import fourier_loss, l1_loss
from mmfe_restore.losses.relational import cosine_similarities, relational_loss, router_loss

__all__ = ["cosine_similarities", "fourier_loss", "l1_loss", "relational_loss", "router_loss"]
