"""Strips, where their arithmetic differs from the whole map's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer


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
