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
