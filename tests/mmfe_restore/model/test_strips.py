"""Strips, where their arithmetic differs from the whole map's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from benchmarks import eager_nchw
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.machine import to_float64
from mmfe_restore import Restorer
from mmfe_restore.model import streaming, strip_attention
from mmfe_restore.model.parts import rolling_rows
from mmfe_restore.model.restormer import LayerNorm, TransformerBlock
from mmfe_restore.model.runners import WholeMaps
from mmfe_restore.model.streaming import bands_within
from mmfe_restore.model.strips import Strips
from mmfe_restore.recipes import load_recipe


@pytest.mark.parametrize("under_autocast", [True, False])
def test_sums_over_many_pixels_do_not_overflow_float16(
    tiny: Callable[..., Restorer], guidance: Callable[..., Embeddings], under_autocast: bool
) -> None:
    # A strip of a whole photograph on a GPU sums over millions of pixels; here a few, each large.
    restorer = tiny(torch.float32)
    for name, parameter in restorer.named_parameters():
        if name.endswith(("qkv_dwconv.weight", "query_dwconv.weight", "key_value_dwconv.weight")):
            parameter.data *= 60
    restorer.strip_bytes = 1 << 30
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        exact = restorer(image, guidance())
        if under_autocast:
            with torch.autocast("cpu", dtype=torch.float16):
                half = restorer(image, guidance()).float()
        else:
            half = restorer.half()(image.half(), guidance()).float()
    assert half.isfinite().all()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_standardised_and_folded_is_layer_norm_and_a_product() -> None:
    torch.manual_seed(0)
    norm = LayerNorm(16)
    norm.body.weight.data.normal_()
    norm.body.bias.data.normal_()
    # A large common value must not eat the differences between channels.
    x, matrix = torch.randn(5, 7, 16) + 100, torch.randn(24, 16)
    with torch.no_grad():
        expected = norm(x.double()) @ matrix.double().t()
        for kind, bound in ((torch.float32, 3e-4), (torch.float64, 1e-12)):
            scaled, shift = norm.to(kind).folded(matrix.to(kind))
            found = norm.standardise(x.to(kind)) @ scaled.t() + shift
            assert (found - expected).abs().max() < bound


def test_whole_maps_where_they_fit_the_budget_and_strips_where_not(
    tiny: Callable[..., Restorer], guidance: Callable[..., Embeddings]
) -> None:
    restorer, image = tiny(), torch.rand(1, 3, 32, 32).double()
    with torch.no_grad():
        in_strips = restorer(image, guidance())
        assert isinstance(restorer._runner(image), Strips)  # a CPU, by itself
        # Level 1 of the decoder: 16 channels, 42 hidden ones (γ = 2.66), 8 bytes a number.
        needed = 32 * 32 * (3 * 16 + 5 * 42) * 8
        restorer.whole_bytes = needed - 1
        assert isinstance(restorer._runner(image), Strips)
        restorer.whole_bytes = needed
        assert isinstance(restorer._runner(image), WholeMaps)
        torch.testing.assert_close(restorer(image, guidance()), in_strips, atol=1e-9, rtol=1e-9)
        restorer.float()
        restorer.whole_bytes = needed // 4
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert isinstance(restorer._runner(image.float()), WholeMaps)
        assert isinstance(restorer._runner(image.float()), Strips)


@pytest.mark.parametrize(("rows", "columns"), [(2, 32), (4, 48), (4, 80), (1000, 80)])
@pytest.mark.parametrize("reads", ["both", "none"])
def test_streamed_level_1_is_the_same_network(
    rows: int, columns: int, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LEAST_ROWS", rows)
    monkeypatch.setattr(streaming, "LEAST_COLUMNS", 2 * streaming.MARGIN)
    overrides = ["guide=oracle", "model.width=8", "model.guidance_dim=64"]
    if reads == "none":
        overrides += ["model.encoder_guidance=none", "model.decoder_guidance=none"]
    restorer = Restorer.from_recipe(load_recipe("demo", overrides)).eval().double()
    assert restorer.config.num_refinement_blocks == 0
    torch.manual_seed(0)
    for parameter in restorer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    image = torch.rand(1, 3, 49, 70).double()  # 64 x 80 when padded
    tokens = torch.randn(1, 5, 64).double()
    embeddings = Embeddings(tokens, tokens.flip(1), tokens[:, 0])
    block = _block(restorer.decoder_level1)
    restorer.strip_bytes = rows * columns * len(block.ffn.dwconv.weight) * 4
    assert len(bands_within(restorer.strip_bytes, 80, block)) == -(-80 // columns)
    told: list[float] = []
    with torch.no_grad():
        expected = restorer(image, embeddings)
        restorer.stream_bytes = 0
        found = restorer(image, embeddings, watch=told.append)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        photograph = (255 * image).byte()
        as_bytes = restorer.restore_bytes(photograph, embeddings)
        as_numbers = restorer(photograph.double() / 255, embeddings)
        torch.testing.assert_close(as_bytes, as_numbers, atol=1e-9, rtol=1e-9)
        # In float32 the encoder's map is put away in float16, eleven bits of each number.
        single = restorer.float()(image.float(), embeddings.to("cpu", torch.float32))
    assert 0 < (single - expected).abs().max() < 2e-3 * expected.abs().max()
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1, abs=1e-12)
    assert told[-2] < 1


def test_a_level_1_beyond_half_precision_is_streamed_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "LEAST_COLUMNS", 2 * streaming.MARGIN)
    restorer = Restorer.from_recipe(load_recipe("demo", ["guide=oracle", "model.width=8"])).eval()
    torch.manual_seed(0)
    for parameter in restorer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    restorer.patch_embed.proj.weight.data.mul_(3e5)
    image = torch.rand(1, 3, 64, 80)
    restorer.strip_bytes = 1  # two bands and more, eight rows at a time
    with torch.no_grad():
        expected = restorer(image)
        restorer.stream_bytes = 0
        found = restorer(image)
    assert bool(found.isfinite().all())
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()


def test_streaming_under_autocast_keeps_the_photographs_own_digits() -> None:
    """A bfloat16 between 1/2 and 1 is a multiple of 1/256: less than an 8-bit image holds."""
    restorer = Restorer.from_recipe(load_recipe("demo", ["guide=oracle", "model.width=8"])).eval()
    # Only the image passes: the demo's network starts as the identity.
    image = torch.linspace(0.5, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        restorer.stream_bytes = 0
        assert torch.equal(restorer(image), image)
        photograph = (255 * image).byte()
        assert torch.equal(restorer.restore_bytes(photograph), photograph.float() / 255)


def _block(stage: torch.nn.Sequential) -> TransformerBlock:
    (block,) = stage
    assert isinstance(block, TransformerBlock)
    return block


@pytest.mark.parametrize(("width", "shared"), [(16, True), (2, False)])
def test_what_is_restored_takes_the_place_of_the_map_that_was_kept(
    width: int, shared: bool
) -> None:
    kept = torch.empty(16, 24, width, dtype=torch.float16)
    restored = streaming._in_place_of(kept, torch.float32)
    assert restored.shape == (16, 24, 3)
    assert (restored.data_ptr() == kept.data_ptr()) is shared
    # Writing a pixel may touch that pixel of what was kept, and no other.
    if shared:
        kept.zero_()
        restored[5, 7] = 1
        assert kept[5, 7].any()
        kept[5, 7] = 0
        assert not kept.any()


def test_a_strip_is_never_larger_than_its_image() -> None:
    def fill(first: int, last: int, out: torch.Tensor) -> None:
        out.fill_(1)

    like = torch.zeros(1)
    for window, buffer in rolling_rows((6, 5), 4, fill, rows=1000, like=like):
        assert window == slice(0, 6)
        assert buffer.shape == (8, 5, 4)
        assert buffer.untyped_storage().nbytes() == 8 * 5 * 4 * 4
        assert torch.equal(buffer[1:7], torch.ones(6, 5, 4))
        assert not buffer[[0, 7]].any()


def test_what_the_benchmark_runs_beside_it_is_the_same_network(
    tiny: Callable[..., Restorer], guidance: Callable[..., Embeddings]
) -> None:
    restorer, image = tiny(), torch.rand(2, 3, 17, 30).double()
    with torch.no_grad():
        expected = restorer(image, guidance(2))
        found = eager_nchw.restore(restorer, image, guidance(2))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


class WithoutFloat64(TorchDispatchMode):
    """A device that knows no float64, as MPS: nothing of 32 bits or fewer becomes 64 bits."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        made = [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
        if any(one.dtype == torch.float64 for one in made):
            assert all(one.dtype == torch.float64 for one in given), function
        return found


@pytest.mark.parametrize("whole_bytes", [0, 1 << 40], ids=["strips", "whole maps"])
def test_a_device_without_float64_is_asked_for_none(
    tiny: Callable[..., Restorer],
    guidance: Callable[..., Embeddings],
    monkeypatch: pytest.MonkeyPatch,
    whole_bytes: int,
) -> None:
    restorer, image = tiny(torch.float32), torch.rand(1, 3, 40, 50)
    seen = guidance().to(dtype=torch.float32)
    restorer.whole_bytes = whole_bytes
    with torch.no_grad():
        expected = restorer(image, seen)

    def to_the_cpu(tensor: torch.Tensor) -> torch.Tensor:
        with _disable_current_modes():  # what leaves such a device may have 64 bits
            return to_float64(tensor)

    monkeypatch.setattr(strip_attention, "to_float64", to_the_cpu)
    with torch.no_grad(), WithoutFloat64():
        assert torch.equal(restorer(image, seen), expected)
        with pytest.raises(AssertionError):
            image.double()


@pytest.mark.parametrize(("width", "columns"), [(4000, 1024), (80, 32), (16, 16), (4016, 1000)])
def test_bands_cover_an_image_once_and_see_their_margins(width: int, columns: int) -> None:
    bands = streaming.bands_of(width, columns)
    assert [at for band in bands for at in range(width)[band.own]] == list(range(width))
    for band in bands:
        assert 0 < band.last - band.first <= columns
        assert not any(edge % 2 for edge in band)
        assert band.left == max(0, band.first - streaming.MARGIN)
        assert band.right == min(width, band.last + streaming.MARGIN)
        assert range(width)[band.seen][band.inner] == range(width)[band.own]
