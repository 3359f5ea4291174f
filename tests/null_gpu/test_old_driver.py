"""A GPU with too old a driver is not left out in silence: PyTorch answers as if there were none."""

import numpy as np
import pytest

from mmfe_cache.images import write_png

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing


def test_a_driver_that_is_too_old_is_told_with_what_to_do(on_null_gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("NULLGPU_OLD", "1")
    write_png(tmp_path / "a.png", np.full((32, 32, 3), 99, np.uint8))
    found = on_null_gpu("old_driver.py", tmp_path / "a.png", tmp_path)
    codes = {name: code for name, (code, _) in found.items()}
    assert codes == {"doctor": 1, "restore": 0, "inspect": 0, "cpu": 0, "cuda": 2}
    _, chosen = found.pop("cpu")
    assert "no GPU is used" not in chosen  # as was asked for
    for name, (_, told) in found.items():
        assert "driver on your system is too old (found version 11040)" in told, name
        assert "update NVIDIA's driver" in told, name
    for name in ("restore", "inspect"):
        assert "no GPU is used" in found[name][1]
