"""Both kernels of a product give the same numbers, into views of larger buffers too."""

import pytest
import torch

from mmfe_restore.model.parts import _convolves, add_product, product, write_product


@pytest.mark.parametrize("convolves", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (4, 7, 16, 48), (3, 2, 255, 16)])
def test_rows_times_a_matrix(monkeypatch, convolves, biased, shape):
    height, width, inner, outer = shape
    monkeypatch.setattr("mmfe_restore.model.parts._convolves", lambda rows: convolves)
    torch.manual_seed(0)
    rows, matrix = torch.randn(height, width, inner), torch.randn(outer, inner)
    bias = torch.randn(outer) if biased else None
    buffer = torch.randn(height + 2, width, outer)
    before = buffer.clone()
    plain = rows @ matrix.t()
    expected = plain if bias is None else plain + bias
    torch.testing.assert_close(product(rows, matrix, bias), expected, atol=1e-5, rtol=1e-5)
    write_product(buffer[1:-1], rows, matrix, bias)
    torch.testing.assert_close(buffer[1:-1], expected, atol=1e-5, rtol=1e-5)
    add_product(buffer[1:-1], rows, matrix)
    torch.testing.assert_close(buffer[1:-1], expected + plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(buffer[[0, -1]], before[[0, -1]])
    half = torch.zeros(height, width, 2 * outer)
    write_product(half[..., :outer], rows, matrix, bias)
    torch.testing.assert_close(half[..., :outer], expected, atol=1e-5, rtol=1e-5)
    assert not half[..., outer:].any()


def test_one_thread_does_not_fall_back_to_the_slow_kernel():
    rows, matrix = torch.randn(8, 64, 16), torch.randn(32, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.profiler.profile() as seen, torch.no_grad():
            product(rows, matrix)
    finally:
        torch.set_num_threads(threads)
    assert "aten::_slow_conv2d_forward" not in {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_only_float32_is_convolved(dtype):
    assert _convolves(torch.zeros(1, 1, 1)) == torch.backends.mkldnn.is_available()
    assert not _convolves(torch.zeros(1, 1, 1, dtype=dtype))
    assert not _convolves(torch.zeros(1, 1, 1, device="meta"))
