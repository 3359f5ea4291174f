"""The reconstruction terms equal independent NumPy computations."""

import numpy as np
import pytest
import torch

from mmfe_restore.losses import fourier_loss, l1_loss


@pytest.fixture
def pair():
    random = np.random.default_rng(3)
    return random.random((2, 3, 12, 9)), random.random((2, 3, 12, 9))


def test_l1_is_the_mean_absolute_difference(pair):
    restored, clean = pair
    value = l1_loss(torch.from_numpy(restored), torch.from_numpy(clean))
    assert float(value) == pytest.approx(np.abs(restored - clean).mean(), rel=1e-12)


def test_fourier_is_the_mean_over_real_and_imaginary_parts_of_unscaled_spectra(pair):
    restored, clean = pair
    ours, theirs = np.fft.rfft2(restored), np.fft.rfft2(clean)
    stacked = np.stack([ours.real - theirs.real, ours.imag - theirs.imag])
    value = fourier_loss(torch.from_numpy(restored), torch.from_numpy(clean))
    assert float(value) == pytest.approx(np.abs(stacked).mean(), rel=1e-10)


def test_fourier_is_computed_in_float32_for_half_precision(pair):
    restored, clean = (torch.from_numpy(a) for a in pair)
    with torch.autocast("cpu", torch.bfloat16):
        value = fourier_loss(restored.bfloat16(), clean.float())
    assert value.dtype == torch.float32
    exact = fourier_loss(restored.bfloat16().float(), clean.float())
    assert float(value) == pytest.approx(float(exact), rel=1e-6)


def test_both_are_zero_for_equal_images_and_have_gradients_otherwise(pair):
    restored, clean = (torch.from_numpy(a) for a in pair)
    assert float(l1_loss(clean, clean)) == 0
    assert float(fourier_loss(clean, clean)) == 0
    for loss in (l1_loss, fourier_loss):
        leaf = restored.clone().requires_grad_()
        loss(leaf, clean).backward()
        assert leaf.grad is not None
        assert float(leaf.grad.abs().sum()) > 0
