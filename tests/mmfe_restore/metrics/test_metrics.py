"""The metrics as torchmetrics: batches, processes, perfect and unusable images."""

from __future__ import annotations

import math
import os
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmfe_cache.errors import DataError
from mmfe_restore.metrics import LPIPS, PSNR, SSIM, luma, psnr_per_image, ssim_per_image

METRICS = [PSNR(), PSNR("y"), SSIM("uniform"), SSIM("gaussian"), SSIM(channel="y")]


def images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, 24, 31, generator=random)
    noise = torch.randn(count, 3, 24, 31, generator=random)
    scale = torch.linspace(0.01, 0.3, count)[:, None, None, None]
    return (clean + scale * noise).clamp(0, 1), clean


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_one_batch_and_many_agree(metric):
    restored, clean = images(7)
    whole, parts = metric.clone(), metric.clone()
    whole.update(restored, clean)
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        parts.update(restored[part], clean[part])
    assert parts.compute().item() == pytest.approx(whole.compute().item(), abs=1e-12)
    assert whole.compute().dtype == torch.float64


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_the_mean_is_over_images(metric):
    restored, clean = images(5)
    metric = metric.clone()
    metric.update(restored, clean)
    each = [metric.per_image(restored[i : i + 1], clean[i : i + 1]).item() for i in range(5)]
    assert metric.compute().item() == pytest.approx(sum(each) / 5, abs=1e-12)


def test_identical_images_are_infinite_counted_and_left_out():
    restored, clean = images(3)
    restored[1] = clean[1]
    assert psnr_per_image(restored, clean)[1] == math.inf
    metric = PSNR()
    metric.update(restored, clean)
    rest = psnr_per_image(restored[[0, 2]], clean[[0, 2]]).mean()
    assert metric.compute().item() == pytest.approx(rest.item(), abs=1e-12)
    assert metric.infinite == 1
    assert metric.count == 2
    assert ssim_per_image(restored, clean)[1] == pytest.approx(1.0, abs=1e-12)


def test_only_identical_images_give_inf():
    _, clean = images(2)
    metric = PSNR()
    metric.update(clean, clean)
    assert metric.compute() == math.inf


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_image_is_no_perfect_one(metric, bad):
    restored, clean = images(2)
    restored[1, :, 3, 4] = bad
    metric = metric.clone()
    metric.update(restored, clean)
    assert metric.infinite == 0
    assert not math.isfinite(metric.compute())
    assert metric.compute() != math.inf


def test_float16_and_float64_inputs():
    restored, clean = images(2)
    exact = psnr_per_image(restored.double(), clean.double())
    assert torch.allclose(psnr_per_image(restored, clean), exact, atol=1e-9)
    assert torch.allclose(psnr_per_image(restored.half(), clean.half()), exact, atol=0.05)


def test_data_range_scales():
    restored, clean = images(2)
    scaled = psnr_per_image(restored * 255, clean * 255, data_range=255)
    assert torch.allclose(scaled, psnr_per_image(restored, clean), atol=1e-4)
    scaled = ssim_per_image(restored * 255, clean * 255, data_range=255)
    assert torch.allclose(scaled, ssim_per_image(restored, clean), atol=1e-6)


@pytest.mark.parametrize(
    ("restored", "clean", "message"),
    [
        (torch.rand(1, 3, 9, 9), torch.rand(1, 3, 9, 8), "differ in shape"),
        (torch.rand(3, 9, 9), torch.rand(3, 9, 9), "batches"),
        (torch.rand(0, 3, 9, 9), torch.rand(0, 3, 9, 9), "batches"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8),) * 2 + ("floating point",),
    ],
)
def test_unusable_pairs_are_refused(restored, clean, message):
    for compute in (psnr_per_image, ssim_per_image):
        with pytest.raises(DataError, match=message):
            compute(restored, clean)


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(DataError, match="smaller than SSIM's gaussian window"):
        ssim_per_image(torch.rand(1, 3, 10, 40), torch.rand(1, 3, 10, 40), window="gaussian")


def test_luma_needs_three_channels():
    with pytest.raises(DataError, match="RGB"):
        luma(torch.rand(1, 1, 9, 9))


def test_metrics_survive_pickling():
    restored, clean = images(2)
    metric = SSIM("gaussian")
    metric.update(restored, clean)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_lpips_without_weights_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="ImageNet weights") as caught:
        LPIPS("alex")
    assert "alexnet" in str(caught.value)


def _one_process(rank: int, port: str, file: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    restored, clean = images(5)
    restored[4] = clean[4]
    found = []
    for metric in (PSNR(), SSIM("gaussian")):
        # 1 and 4 images: the shares are uneven on purpose.
        share = slice(0, 1) if rank == 0 else slice(1, 5)
        metric.update(restored[share], clean[share])
        found.append(metric.compute().item())
    if rank == 0:
        torch.save(found, file)
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path, free_port, start_method):
    file = str(tmp_path / "found.pt")
    mp.start_processes(_one_process, (str(free_port), file), nprocs=2, start_method=start_method)
    restored, clean = images(5)
    restored[4] = clean[4]
    expected = []
    for metric in (PSNR(), SSIM("gaussian")):
        metric.update(restored, clean)
        expected.append(metric.compute().item())
    assert torch.load(file) == pytest.approx(expected, abs=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    restored, clean = images(3)
    for metric in METRICS:
        here = metric.per_image(restored, clean)
        there = metric.per_image(restored.cuda(), clean.cuda())
        assert torch.allclose(here, there.cpu(), atol=1e-9)
