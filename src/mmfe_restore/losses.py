"""The training loss: L1 + fourier · Fourier + λ · L_MGL (paper, Eq. 8; Sections 3.3 and 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def l1_loss(restored_BCHW: Tensor, clean_BCHW: Tensor) -> Tensor:
    """Mean absolute error.

    Args:
        restored_BCHW: (B, C, H, W), unclamped.
        clean_BCHW: (B, C, H, W), range [0, 1].

    Returns:
        a scalar.
    """
    return F.l1_loss(restored_BCHW, clean_BCHW)


def fourier_loss(restored_BCHW: Tensor, clean_BCHW: Tensor) -> Tensor:
    """Mean absolute error of the two-dimensional spectra, after MoCE-IR.

    The transform is `torch.fft.rfft2` with its default norm (unscaled forward); real and
    imaginary parts count as separate numbers, and the mean runs over all of them.

    Args:
        restored_BCHW: (B, C, H, W), unclamped.
        clean_BCHW: (B, C, H, W), range [0, 1].

    Returns:
        a scalar; computed in float32 at least, since half precision has no such transform
        and an unscaled spectrum would overflow it.
    """
    precise = torch.promote_types(restored_BCHW.dtype, torch.float32)
    # One transform of the difference is the difference of the transforms, at half the cost.
    spectrum = torch.fft.rfft2(restored_BCHW.to(precise) - clean_BCHW.to(precise))
    return torch.view_as_real(spectrum).abs().mean()


def cosine_similarities(rows_BD: Tensor) -> Tensor:
    """Pairwise cosine similarities of B vectors, (B, B); a zero vector is similar to none."""
    unit = F.normalize(rows_BD, dim=1)
    return unit @ unit.T


def relational_loss(answer_BD: Tensor, weights_BN: Tensor, keep_B: Tensor | None = None) -> Tensor:
    """Mean |Sim(E_Answer) - Sim(S)| over all pairs of a batch.

    A mean, not the sum that Eq. 7 writes: the sum grows with B squared and would drown L_rec.

    Args:
        answer_BD: (B, D) E_Answer; no gradient flows into it.
        weights_BN: (B, N) expert weights S in (0, 1) of one router (Eq. 4).
        keep_B: (B,) bool; samples whose guidance was dropped do not count.

    Returns:
        a scalar; 0 (with zero gradient) when no sample counts.
    """
    precise = torch.promote_types(weights_BN.dtype, torch.float32)
    with torch.autocast(weights_BN.device.type, enabled=False):
        distance = (
            cosine_similarities(answer_BD.detach().to(precise))
            - cosine_similarities(weights_BN.to(precise))
        ).abs()
        if keep_B is None:
            return distance.mean()
        pairs = (keep_B[:, None] & keep_B[None, :]).to(precise)
        return (distance * pairs).sum() / pairs.sum().clamp_min(1)


def router_loss(
    answer_BD: Tensor, weights: Mapping[str, Tensor], keep_B: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """`relational_loss` averaged over the sites of MoFE.

    Args:
        answer_BD: (B, D) E_Answer of the global batch.
        weights: site name to (B, N) expert weights; at least one site.
        keep_B: as in `relational_loss`.

    Returns:
        the mean, and the loss of every site by name (detached).
    """
    sites = {name: relational_loss(answer_BD, s, keep_B) for name, s in weights.items()}
    mean = torch.stack(list(sites.values())).mean()
    return mean, {name: value.detach() for name, value in sites.items()}
