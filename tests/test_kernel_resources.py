"""What `benchmarks.kernel_resources` counts: beside what is worked out by hand, and as compiled."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="no Triton here")

from triton.runtime.driver import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from benchmarks.count_traffic import FUSED_MAPS, fused_maps, hidden_width, kernel_maps  # noqa: E402
from benchmarks.kernel_resources import SHARED_LIMIT, compiled_only, launches  # noqa: E402
from mmfe_restore.kernels.norm_product import norm_product  # noqa: E402
from mmfe_restore.recipes.schema import ModelConfig  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """One block of the full network's first level, 64 crops of 128²; nothing compiled."""
    return launches(96, 1, 128, 64, compiling=False)


def test_the_kernels_move_the_maps_that_count_traffic_says(rows):
    one, hidden = 2 * 64 * 96 * 128**2, hidden_width(ModelConfig())
    assert hidden == 256 / 96
    for row, (kernel, read, written) in zip(rows, FUSED_MAPS, strict=True):
        assert row["kernel"] == kernel
        # Beside the maps there are weights, and sums of a tenth of a map at most.
        rest = row["bytes"] / one - kernel_maps(read, hidden) - kernel_maps(written, hidden)
        assert 0 < rest < 0.1, kernel
    assert fused_maps(hidden) == pytest.approx(66)
    assert sum(row["bytes"] for row in rows) / one == pytest.approx(66.45, abs=0.01)


def can_compile():
    """Whether Triton finds CUDA's assembler and disassembler, which it brings along on Linux."""
    try:
        return bool(triton.knobs.nvidia.ptxas.path and triton.knobs.nvidia.cuobjdump.path)
    except (RuntimeError, OSError):
        return False


@pytest.mark.skipif(not can_compile(), reason="Triton finds no ptxas or cuobjdump here")
def test_a_kernel_is_compiled_and_not_launched(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # compiled now, not found
    found, before = [], (JITFunction.run, driver._active)
    with torch.device("meta"):
        x = torch.empty(1, 16, 20, 96, dtype=torch.bfloat16)
        scale, shift = torch.empty(2, 96)
        matrix = torch.empty(288, 96, dtype=torch.bfloat16)
    with compiled_only(found):
        norm_product(x, scale, shift, matrix)
    assert (JITFunction.run, driver._active) == before
    (row,) = found
    assert row["kernel"] == "norm_product"
    assert row["programs"] == 3  # of 128 pixels each
    assert row["bytes"] == 2 * (320 * 96 + 320 * 288 + 288 * 96) + 2 * 4 * 96
    # What `tiles.options` asks for, and what a card has.
    assert 16 < row["registers"] <= 128
    assert row["stack"] == 0
    assert 0 < row["shared"] <= SHARED_LIMIT
    assert row["load_bytes"]["16"] > 0
