"""Radial spectra of feature maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

BINS = 32

_CORNER = 0.5**0.5


def radial_spectrum(maps: NDArray[np.float64], bins: int = BINS) -> tuple[Curve, Curve]:
    """Power over spatial frequency, averaged over directions and channels.

    Args:
        maps: (K, H, W); the mean of each channel is taken out.
        bins: of the frequency axis.

    Returns:
        (bins,) frequencies in cycles per pixel, 0 to √½ (the corners), and (bins,) shares of the
        power that sum to 1 (all 0 for a constant map).
    """
    centred = maps - maps.mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centred)) ** 2).sum(axis=0)
    rows = np.fft.fftfreq(maps.shape[1])[:, None]
    columns = np.fft.fftfreq(maps.shape[2])[None, :]
    radius = np.hypot(rows, columns)
    place = np.minimum((radius / _CORNER * bins).astype(int), bins - 1)
    total = np.bincount(place.ravel(), weights=power.ravel(), minlength=bins)
    sum_of_all = total.sum()
    centres = (np.arange(bins) + 0.5) * _CORNER / bins
    return centres, total / sum_of_all if sum_of_all > 0 else np.zeros(bins)


def centroid(frequencies: Curve, shares: Curve) -> float:
    """The power's mean frequency in cycles per pixel; nan for a constant map."""
    return float((frequencies * shares).sum()) if shares.sum() > 0 else float("nan")
