"""The table of metrics: a row is all that an evaluation needs to measure another one."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch

from mmfe_cache.errors import UsageError
from mmfe_restore.evaluation import published, statistics
from mmfe_restore.metrics import METRICS, registry
from mmfe_restore.metrics.registry import MetricInfo, Settings, chosen_metrics, metric_of


def test_optional_metrics_are_measured_when_asked_for():
    assert [m.name for m in chosen_metrics()] == ["psnr", "ssim_uniform", "ssim_gaussian"]
    assert [m.name for m in chosen_metrics(("lpips",))][-1] == "lpips"
    with pytest.raises(UsageError, match="unknown metric"):
        chosen_metrics(("vmaf",))


def test_both_figures_of_a_metric_lead_to_it():
    for name, metric in METRICS.items():
        assert metric_of(name) is metric_of(f"input_{name}") is metric


def test_values_as_printed():
    psnr = METRICS["psnr"]
    assert psnr.format(27.126) == "27.13"
    assert psnr.format(float("inf")) == "∞"
    assert METRICS["ssim_uniform"].format(float("nan")) is None


def test_a_new_metric_is_one_row(monkeypatch):
    error = MetricInfo(
        "mae",
        "MAE",
        "Mean absolute error.",
        lambda settings: lambda image, clean: (image - clean).abs().mean(dim=(1, 2, 3)),
        higher_is_better=False,
        smallest=4,
    )
    table = MappingProxyType({**METRICS, "mae": error})
    monkeypatch.setattr(registry, "METRICS", table)
    monkeypatch.setattr(statistics, "METRICS", table)
    loaded = {m.name: m.load(Settings(torch.device("cpu"))) for m in chosen_metrics()}
    protocol = published.protocol_named("mmfe")
    image, clean = torch.full((2, 3, 16, 16), 0.25), torch.full((2, 3, 16, 16), 0.75)
    found = statistics.quality(image, clean, protocol, "rgb", loaded)
    assert [values["mae"] for values in found] == [0.5, 0.5]
    small = statistics.quality(image[..., :3], clean[..., :3], protocol, "rgb", loaded)
    assert all(values["mae"] != values["mae"] for values in small)


def test_the_smallest_sides_are_those_of_the_metrics_themselves():
    from mmfe_restore.metrics.lpips import SMALLEST
    from mmfe_restore.metrics.psnr_ssim import WINDOW_SIZES

    # The table repeats them, so that it is read without torch.
    for window, side in WINDOW_SIZES.items():
        assert METRICS[f"ssim_{window}"].smallest == side
    assert METRICS["lpips"].smallest == SMALLEST
