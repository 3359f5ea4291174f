"""Attention by windows, beside a reading of one pixel after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import ModelError
from mmfe_restore import Restorer
from mmfe_restore.model import streaming
from mmfe_restore.model.local_attention import cell_at, segments
from mmfe_restore.model.restormer import (
    MDTA,
    CrossMDTA,
    TransformerBlock,
    transposed_attention,
)
from mmfe_restore.model.streaming import bands_within
from mmfe_restore.recipes import load_recipe
from mmfe_restore.recipes.schema import ModelConfig

Make = Callable[..., Restorer]
Guide = Callable[..., Embeddings]


def one_after_the_other(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, output: Tensor, cell: int
) -> Tensor:
    """Softmax(Q̂ᵀK̂) of every window, and each pixel's mixture of the four nearest."""
    height, width, channels = q.shape
    heads = len(temperature)
    d = channels // heads

    def matrix(top: int, left: int) -> Tensor:
        seen = slice(top * cell, (top + 3) * cell), slice(left * cell, (left + 3) * cell)
        rows = []
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            asked, known = (x[seen][..., own].reshape(-1, d) for x in (q, k))
            asked, known = asked / asked.norm(dim=0), known / known.norm(dim=0)
            rows.append(((asked.T @ known) * temperature[head]).softmax(dim=1))
        return output @ torch.block_diag(*rows)

    counts = [max(-(-length // cell), 3) - 2 for length in (height, width)]
    matrices = [[matrix(i, j) for j in range(counts[1])] for i in range(counts[0])]

    def mixture(place: int, count: int) -> list[tuple[int, float]]:
        position = min(max((place + 0.5) / cell - 1.5, 0.0), count - 1.0)
        before = min(int(position), count - 1)
        after = position - before
        return [(before, 1 - after), (min(before + 1, count - 1), after)]

    out = torch.zeros_like(v)
    for y in range(height):
        for x in range(width):
            for i, down in mixture(y, counts[0]):
                for j, across in mixture(x, counts[1]):
                    out[y, x] += down * across * (matrices[i][j] @ v[y, x])
    return out


@pytest.mark.parametrize("size", [(23, 41), (18, 40), (19, 12), (48, 19)])
@pytest.mark.parametrize("heads", [1, 2])
def test_windows_are_what_one_pixel_after_the_other_gives(size: tuple[int, int], heads: int):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, *size, 8).double()
    temperature, output = 3 * torch.rand(heads, 1, 1).double(), torch.randn(8, 8).double()
    found = transposed_attention(q, k, v, temperature, output, cell=6)
    for index in range(2):
        one = one_after_the_other(q[index], k[index], v[index], temperature, output, 6)
        torch.testing.assert_close(found[index], one, atol=1e-12, rtol=1e-12)
    whole = transposed_attention(q, k, v, temperature, output)
    assert (found - whole).abs().max() > 1e-2


def test_a_map_of_one_window_is_attended_whole():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 18, 17, 8)
    temperature, output = torch.ones(2, 1, 1), torch.randn(8, 8)
    whole = transposed_attention(q, k, v, temperature, output)
    assert torch.equal(transposed_attention(q, k, v, temperature, output, cell=6), whole)


def test_gradients_pass_through_windows():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 7, 9, 4).double().requires_grad_() for _ in range(3))
    temperature = torch.ones(2, 1, 1).double().requires_grad_()
    output = torch.randn(4, 4).double().requires_grad_()

    def attend(*given: Tensor) -> Tensor:
        return transposed_attention(*given, cell=2)

    assert torch.autograd.gradcheck(attend, (q, k, v, temperature, output))


def test_a_window_without_light_has_gradients():
    """Q and K are zero in one window of nine: its norms are, and a root has no slope there."""
    q = torch.randn(1, 20, 20, 4).double()
    q[:, :6, :6] = 0
    q.requires_grad_()
    transposed_attention(
        q, q, q, torch.ones(1, 1, 1).double(), torch.eye(4).double(), 2
    ).sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def lit(tiny: Make, window: int | None, dtype: torch.dtype = torch.float64) -> Restorer:
    """One network, every weight of which matters; level 1 can be streamed."""
    torch.manual_seed(0)
    shape = {"num_blocks": (1, 1, 0, 1), "num_refinement_blocks": 0}
    restorer = tiny(dtype, **shape, attention_window=window)
    for parameter in restorer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return restorer


@pytest.mark.parametrize("size", [(97, 150), (40, 131), (130, 33)])
def test_strips_and_streamed_rows_are_the_same_network(
    tiny: Make, guidance: Guide, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer, image = lit(tiny, 48), torch.rand(2, 3, *size).double()
    expected = restorer(image, guidance(2)).detach()  # with gradients: whole maps
    close = {"atol": 1e-9, "rtol": 1e-9}
    with torch.no_grad():
        assert (lit(tiny, None)(image, guidance(2)) - expected).abs().max() > 1e-2
        torch.testing.assert_close(restorer(image, guidance(2)), expected, **close)
        restorer.strip_bytes = 3000  # two or three rows: cells lie in several strips
        torch.testing.assert_close(restorer(image, guidance(2)), expected, **close)
        restorer.stream_bytes = 0
        monkeypatch.setattr(streaming, "LEAST_ROWS", 4)
        monkeypatch.setattr(streaming, "LEAST_COLUMNS", 2 * streaming.MARGIN)
        (block,) = restorer.decoder_level1
        assert len(bands_within(3000, size[1], block)) > 1
        first, seen = image[:1], guidance(2)
        alone = Embeddings(seen.image[:1], seen.joint[:1], seen.answer[:1])
        torch.testing.assert_close(restorer(first, alone), expected[:1], **close)


def test_an_image_of_a_window_is_as_without(tiny: Make, guidance: Guide) -> None:
    image = torch.rand(1, 3, 48, 41).double()
    with torch.no_grad():
        local, whole = lit(tiny, 48)(image, guidance()), lit(tiny, None)(image, guidance())
    assert torch.equal(local, whole)


@pytest.mark.parametrize("whole_bytes", [0, 1 << 30])
def test_half_precision_does_not_overflow(tiny: Make, guidance: Guide, whole_bytes: int) -> None:
    restorer, image = lit(tiny, 96, torch.float32), torch.rand(1, 3, 128, 128)
    for name, parameter in restorer.named_parameters():
        if name.endswith(("qkv_dwconv.weight", "query_dwconv.weight", "key_value_dwconv.weight")):
            parameter.data *= 60
    restorer.whole_bytes = whole_bytes
    restorer.strip_bytes = 1 << 30
    with torch.no_grad():
        exact = restorer(image, guidance())
        with torch.autocast("cpu", dtype=torch.float16):
            half = restorer(image, guidance()).float()
    assert half.isfinite().all()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_shares_follow_the_pixels_whichever_rows_are_asked_about():
    whole = dense(segments(4, 6, 0, 36), 4)
    assert torch.equal(whole.sum(dim=1), torch.ones(36).double())
    assert whole[0].tolist() == [1, 0, 0, 0]  # beyond the outermost middle, at 9
    assert whole[8].tolist() == [1, 0, 0, 0]
    assert whole[9].tolist() == pytest.approx([1 - 0.5 / 6, 0.5 / 6, 0, 0])
    assert whole[27].tolist() == [0, 0, 0, 1]
    # Neighbours differ by one pixel's share at most: nothing shows where windows meet.
    assert (whole[1:] - whole[:-1]).abs().max() <= 1 / 6 + 1e-12
    for first, length in [(0, 1), (8, 3), (9, 6), (14, 20), (30, 6)]:
        part = dense(segments(4, 6, first, length), 4)
        torch.testing.assert_close(part, whole[first : first + length])


def dense(found: list, windows: int) -> Tensor:
    """(pixels, windows) of `segments`."""
    rows = []
    for pixels, seen, after in found:
        count = pixels.stop - pixels.start
        shares = torch.zeros(count, windows).double()
        if after is None:
            shares[:, seen] = 1
        else:
            shares[:, seen] = torch.cat([1 - after.view(-1, 1), after.view(-1, 1)], dim=1)
        rows.append(shares)
    return torch.cat(rows)


@pytest.mark.parametrize("window", [0, -48, 40, 64, 48.0, "48", True])
def test_a_window_that_no_level_can_divide_is_refused(window: object, tiny: Make) -> None:
    restorer = tiny()
    with pytest.raises(ModelError, match="a multiple of 48"):
        restorer.attend_within(window)
    assert restorer.config.attention_window is None
    with pytest.raises(ModelError, match="a multiple of 48") as caught:
        Restorer(replace(ModelConfig(width=8), attention_window=window))
    assert str(window) in str(caught.value)


def test_windows_may_be_chosen_for_trained_weights(tiny: Make, guidance: Guide) -> None:
    restorer, image = lit(tiny, None), torch.rand(1, 3, 64, 100).double()
    recipe = load_recipe("demo")
    restorer.recipe = replace(recipe, model=restorer.config)
    with torch.no_grad():
        whole, expected = restorer(image, guidance()), lit(tiny, 48)(image, guidance())
        restorer.attend_within(48)
        assert torch.equal(restorer(image, guidance()), expected)
        assert restorer.recipe.model.attention_window == 48  # as it will be saved
        with pytest.raises(ModelError, match="a multiple of 48"):
            restorer.attend_within(50)
        restorer.attend_within(None)
        assert torch.equal(restorer(image, guidance()), whole)


def test_every_attention_has_the_cells_of_its_level(tiny: Make) -> None:
    shape = {"num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
    restorer = tiny(torch.float32, **shape, attention_window=336)
    by_level = {
        112: ["encoder_level1", "decoder_level1", "refinement"],
        56: ["encoder_level2", "decoder_level2", "mofe.encoder2", "mofe.decoder2"],
        28: ["encoder_level3", "decoder_level3", "mofe.encoder3", "mofe.decoder3"],
        14: ["latent", "mofe.latent_in", "mofe.latent_out"],
    }
    expected = {name: cell for cell, names in by_level.items() for name in names}
    found = {
        name.removesuffix(".attn").removesuffix(".0"): module.cell
        for name, module in restorer.named_modules()
        if isinstance(module, MDTA | CrossMDTA)
    }
    assert found == expected


def test_what_is_saved_says_the_windows(tiny: Make, tmp_path: Path) -> None:
    restorer = tiny(torch.float32)
    recipe = replace(load_recipe("table4a/full"), model=restorer.config)
    restorer.attend_within(96)
    for given in (None, recipe):
        restorer.save_pretrained(tmp_path, given)
        assert Restorer.from_pretrained(tmp_path).config.attention_window == 96


def test_a_narrow_map_is_not_filled_up_to_a_window() -> None:
    def multiplications(window: int | None) -> int:
        with torch.device("meta"):
            q, k, v = (torch.empty(1, 16, 1600, 16) for _ in range(3))
            temperature, output = torch.empty(1, 1, 1), torch.empty(16, 16)
        with FlopCounterMode(display=False) as counter:
            transposed_attention(q, k, v, temperature, output, cell_at(window, 0))
        return counter.get_total_flops()

    assert multiplications(384) < 2 * multiplications(None)  # two products of each pixel's V


@pytest.mark.parametrize("local", [True, False])
def test_kernels_leave_windows_to_the_block(monkeypatch: pytest.MonkeyPatch, local: bool) -> None:
    pytest.importorskip("triton")
    from mmfe_restore.kernels import block as kernels

    class UsedError(Exception):
        """The kernels were asked for."""

    def used(*_: object) -> None:
        raise UsedError

    monkeypatch.setattr(kernels._Block, "apply", used)
    block, x = TransformerBlock(8, 1, 2.0), torch.randn(1, 16, 20, 8)
    block.attn.cell = 6 if local else 8
    if local:
        assert torch.equal(kernels.run_block(block, x), block(x))
    else:
        with pytest.raises(UsedError):
            kernels.run_block(block, x)


def test_cells_have_a_middle_on_every_level():
    assert [cell_at(336, level) for level in range(4)] == [112, 56, 28, 14]
    assert [cell_at(48, level) for level in range(4)] == [16, 8, 4, 2]
    assert cell_at(None, 0) is None
