"""What each expert changes in the picture, and at which spatial frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.errors import UsageError
from mmfe_cache.samples import ImageArray
from mmfe_restore.evaluation.statistics import to_tensor

if TYPE_CHECKING:
    from mmfe_restore.model import Restorer

Curve = NDArray[np.float64]
Maps = NDArray[np.float64]

BINS = 32
"""Of the frequency axis."""

CORNER = 0.5**0.5
"""Cycles per pixel: the highest frequency that a grid holds, along its diagonals."""


@dataclass(frozen=True)
class Expert:
    """One expert's work on one image.

    Attributes:
        index: counted from 1, as the paper does.
        change: (H, W) mean over R, G and B of the picture's absolute change.
        frequencies: (BINS,) cycles per pixel of that picture.
        shares: (BINS,) of the power of the change.
        centroid: its mean frequency.
        weight: S_i of Eq. 4 for this image, where its embedding is known.
    """

    index: int
    change: Maps
    frequencies: Curve
    shares: Curve
    centroid: float
    weight: float | None = None


def radial_spectrum(maps: Maps) -> tuple[Curve, Curve]:
    """Power over spatial frequency, summed over directions and channels.

    Args:
        maps: (K, H, W); the mean of each channel is taken out.

    Returns:
        (BINS,) frequencies in cycles per pixel, the middles of equal steps from 0 to √½ (the
        corners), and (BINS,) shares of the power that sum to 1 (all 0 for a constant map).
    """
    centred = maps - maps.mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centred)) ** 2).sum(axis=0)
    rows = np.fft.fftfreq(maps.shape[1])[:, None]
    columns = np.fft.fftfreq(maps.shape[2])[None, :]
    radius = np.hypot(rows, columns)
    place = np.minimum((radius / CORNER * BINS).astype(int), BINS - 1)
    total = np.bincount(place.ravel(), weights=power.ravel(), minlength=BINS)
    sum_of_all = total.sum()
    centres = (np.arange(BINS) + 0.5) * CORNER / BINS
    return centres, total / sum_of_all if sum_of_all > 0 else np.zeros(BINS)


def centroid(frequencies: Curve, shares: Curve) -> float:
    """The power's mean frequency in cycles per pixel; nan for a constant map."""
    return float((frequencies * shares).sum()) if shares.sum() > 0 else float("nan")


def measure_change(index: int, change: Maps, weight: float | None = None) -> Expert:
    """Map, spectrum and centroid of a picture's change.

    Args:
        index: of the expert, from 1.
        change: (3, H, W), on the picture's grid.
        weight: of the expert.
    """
    frequencies, shares = radial_spectrum(change)
    middle = centroid(frequencies, shares)
    return Expert(index, np.abs(change).mean(axis=0), frequencies, shares, middle, weight)


def measure_experts(
    restorer: Restorer,
    image: ImageArray,
    site: str,
    name: str = "the network",
    weights: Curve | None = None,
) -> list[Expert]:
    """Run every expert of a site by itself on one degraded image, lowest centroid first.

    The experts of the frequency domain change subbands of half the picture's size, in which a
    frequency means another one of the picture: a constant HH is its finest chequerboard. So
    M_i(F_HF) − F_HF goes through the inverse wavelet transform (LL is 0) before it is drawn and
    measured. The picture is I_deg resized to the site's features (Eq. 3), which is also what the
    experts of the spatial domain change: both are measured on one grid.

    Args:
        restorer: the network.
        image: (H, W, 3) uint8, degraded.
        site: which MoFE.
        name: of the network, for the message.
        weights: (N,) S of the image.

    Raises:
        UsageError: the network has no such site.
    """
    from mmfe_restore.model import MOFE_SITES
    from mmfe_restore.model.mofe import MoFE, picture_of
    from mmfe_restore.model.restorer import pad_to_multiple

    if site not in restorer.mofe:
        raise UsageError(
            f"{name} has no experts there",
            got=site,
            expected=" | ".join(restorer.mofe) or "a recipe with MoFE",
        )
    mofe, level = restorer.mofe[site], MOFE_SITES[site]
    assert isinstance(mofe, MoFE)
    # What was padded is not part of the picture.
    height, width = (-(-side // 2**level) for side in image.shape[:2])
    found: list[Expert] = []
    with torch.no_grad():
        padded = pad_to_multiple(to_tensor(image).to(restorer.dtype), restorer.size_multiple)
        bands = restorer.cpu().bands(padded)[level - 1]
        for index in range(restorer.config.num_experts):
            difference = (mofe.experts.single(index, bands) - bands).double()
            change = picture_of(difference, restorer.config)[0, :, :height, :width].numpy()
            weight = None if weights is None else float(weights[index])
            found.append(measure_change(index + 1, change, weight))
    return sorted(found, key=lambda expert: expert.centroid)
