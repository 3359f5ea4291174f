"""PSNR and SSIM equal scikit-image's on 200 random and real pairs, and on the odd ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mmfe_restore.metrics import luma, psnr_per_image, psnr_ssim, ssim_per_image


def batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


def reference_ssim(a: np.ndarray, b: np.ndarray, window: str, **options: bool) -> float:
    return structural_similarity(
        a, b, channel_axis=2, data_range=1.0, gaussian_weights=window == "gaussian", **options
    )


def test_psnr_on_200_pairs(pairs):
    assert len(pairs) == 200
    for restored, clean in pairs:
        ours = psnr_per_image(batch(restored), batch(clean)).item()
        assert ours == pytest.approx(
            peak_signal_noise_ratio(clean, restored, data_range=1.0), abs=1e-5
        )


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_on_200_pairs(pairs, window):
    for restored, clean in pairs:
        ours = ssim_per_image(batch(restored), batch(clean), window=window).item()
        reference = reference_ssim(restored.astype(np.float64), clean.astype(np.float64), window)
        assert ours == pytest.approx(reference, abs=1e-9)
        assert ours == pytest.approx(reference_ssim(restored, clean, window), abs=1e-5)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_with_the_population_covariance(pairs, window):
    for restored, clean in pairs[:10]:
        ours = ssim_per_image(
            batch(restored), batch(clean), window=window, covariance="population"
        ).item()
        reference = reference_ssim(restored, clean, window, use_sample_covariance=False)
        assert ours == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_of_a_huge_image_worked_through_in_bands(window):
    random = np.random.default_rng(1)
    clean = random.random((700, 1400, 3)).astype(np.float32)
    restored = np.clip(clean + random.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
    assert clean.size > 4 * psnr_ssim._BAND_PIXELS
    ours = ssim_per_image(batch(restored), batch(clean), window=window).item()
    assert ours == pytest.approx(reference_ssim(restored, clean, window), abs=1e-5)


@pytest.mark.parametrize(("window", "side"), [("uniform", 7), ("gaussian", 11)])
def test_ssim_of_the_smallest_image(window, side):
    random = np.random.default_rng(2)
    clean, restored = random.random((2, side, side, 3)).astype(np.float32)
    ours = ssim_per_image(batch(restored), batch(clean), window=window).item()
    assert ours == pytest.approx(reference_ssim(restored, clean, window), abs=1e-5)


def test_luma_equals_scikit_image(pairs):
    image = pairs[0][0]
    reference = color.rgb2ycbcr(image.astype(np.float64))[..., 0] / 255
    np.testing.assert_allclose(luma(batch(image))[0, 0].numpy(), reference, atol=1e-9)


def test_rounded_luma_is_of_whole_levels(pairs):
    y = luma(batch(pairs[0][0]), rounded=True) * 255
    assert torch.equal(y, y.round())
    assert y.min() >= 16
    assert y.max() <= 235
