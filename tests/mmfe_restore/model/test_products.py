"""Both kernels of a product give the same numbers, into views of larger buffers too."""

import pytest
import torch

from mmfe_restore.model import products
from mmfe_restore.model.products import add_product, multiply_rows


@pytest.mark.parametrize("convolves", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (4, 7, 16, 48), (3, 2, 255, 16)])
def test_rows_times_a_matrix(monkeypatch, convolves, shape):
    height, width, inner, outer = shape
    monkeypatch.setattr(products, "_convolves", lambda rows: convolves)
    torch.manual_seed(0)
    rows, matrix = torch.randn(height, width, inner), torch.randn(outer, inner)
    buffer = torch.randn(height + 2, width, outer)
    before = buffer.clone()
    expected = rows @ matrix.t()
    multiply_rows(rows, matrix, buffer[1:-1])
    torch.testing.assert_close(buffer[1:-1], expected, atol=1e-5, rtol=1e-5)
    add_product(buffer[1:-1], rows, matrix)
    torch.testing.assert_close(buffer[1:-1], 2 * expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(buffer[[0, -1]], before[[0, -1]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_only_float32_is_convolved(dtype):
    assert products._convolves(torch.zeros(1, 1, 1)) == torch.backends.mkldnn.is_available()
    assert not products._convolves(torch.zeros(1, 1, 1, dtype=dtype))
    assert not products._convolves(torch.zeros(1, 1, 1, device="meta"))
