"""What `restore_image` asks of the machine."""

import numpy as np
import pytest
import torch

from mmfe_restore import Restorer
from mmfe_restore.inference import restore_image
from mmfe_restore.recipes import load_recipe


@pytest.mark.parametrize(("precision", "tf32"), [("32", False), ("auto", False), ("tf32", True)])
def test_products_are_in_true_float32_unless_tf32_was_asked_for(monkeypatch, precision, tf32):
    seen, restore = [], Restorer.restore_bytes
    allowed = torch.backends.cuda.matmul, torch.backends.cudnn

    def watched(self, *arguments, **options):
        seen.append([one.allow_tf32 for one in allowed])
        return restore(self, *arguments, **options)

    monkeypatch.setattr(Restorer, "restore_bytes", watched)
    before = [one.allow_tf32 for one in allowed]
    restorer = Restorer.from_recipe(load_recipe("demo")).eval()
    restore_image(restorer, np.zeros((16, 16, 3), np.uint8), None, precision=precision)
    assert seen == [[tf32, tf32]]
    assert [one.allow_tf32 for one in allowed] == before


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16])
def test_a_deep_image_keeps_its_levels_before_a_network_of_half_precision(weights):
    restorer = Restorer.from_recipe(load_recipe("demo")).eval().to(weights)
    deep = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(16, 16, 3) * 85
    deep[0, 0] = 65535  # float16 ends at 65504
    shallow = (deep / np.float32(65535)).astype(np.float32)
    for image in (deep, shallow):
        assert np.array_equal(restore_image(restorer, image, strength=0), image)
        restored = restore_image(restorer, image)  # the identity, but for the digits of its type
        worst = np.abs(restored.astype(float) - image).max() / (65535 if image is deep else 1)
        assert worst <= torch.finfo(weights).eps
