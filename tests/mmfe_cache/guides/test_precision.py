"""How precisely a guide multiplies is decided by it, and said in its fingerprint."""

import pytest
import torch

from mmfe_cache.errors import UsageError
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.base import pick_dtype


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("name", ["scene", "tiny_qwen", "tiny_fastvlm"])
def test_float32_is_true_float32_unless_tf32_was_asked_for(name, request, pictures):
    guide = load_guide(name if name == "scene" else request.getfixturevalue(name), device="cpu")
    part = next(m for m in guide._network.modules() if isinstance(m, torch.nn.Linear))
    seen = []
    part.register_forward_hook(lambda *_: seen.append(tf32()))
    before = tf32()
    guide.encode(pictures[-1:])
    assert guide.fingerprint()["dtype"] == "float32"  # as in every store that there is
    guide.tf32 = True
    guide.encode(pictures[-1:])
    assert set(seen[: len(seen) // 2]) == {(False, False)}
    assert set(seen[len(seen) // 2 :]) == {(True, True)}
    assert tf32() == before


def test_embeddings_made_in_tf32_say_so(tiny_qwen):
    guide = load_guide(tiny_qwen, device="cpu", precision="float32")
    guide.tf32 = True
    assert guide.fingerprint()["dtype"] == guide.describe()["dtype"] == "tf32"


def test_tf32_is_float32_on_a_gpu_and_refused_on_a_cpu(tiny_qwen):
    assert pick_dtype("tf32", torch.device("cuda")) == torch.float32
    with pytest.raises(UsageError, match="--precision tf32 on cpu"):
        load_guide(tiny_qwen, device="cpu", precision="tf32")
