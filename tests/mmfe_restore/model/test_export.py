"""The network as `torch.export` and ONNX hold it, with the embeddings as inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer

Make = Callable[..., Restorer]
VARIANTS = ({"low_band": True, "guidance_dropout": 0.1}, {"experts": "spatial"})


class Exported(torch.nn.Module):
    """Takes tensors, which is what an exported program can take."""

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.restorer = restorer
        self.eval()

    def forward(self, image: Tensor, e_image: Tensor, e_joint: Tensor, e_answer: Tensor) -> Tensor:
        return self.restorer(image, Embeddings(e_image, e_joint, e_answer))


def inputs() -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    tokens = torch.randn(2, 2, 16, 12)
    return torch.rand(2, 3, 33, 47), tokens[0], tokens[1], torch.randn(2, 12)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_an_exported_program_equals_eager(tiny: Make, changes: dict[str, object]) -> None:
    network, given = Exported(tiny(torch.float32, **changes)), inputs()
    with torch.no_grad():
        expected = network(*given)
        program = torch.export.export(network, given)
        torch.testing.assert_close(program.module()(*given), expected, atol=1e-4, rtol=0)


def test_onnx_equals_eager(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, given = Exported(tiny(torch.float32)), inputs()
    with torch.no_grad():
        expected = network(*given)
    names = ["image", "e_image", "e_joint", "e_answer"]
    torch.onnx.export(network, given, tmp_path / "r.onnx", dynamo=True, input_names=names)
    session = onnxruntime.InferenceSession(tmp_path / "r.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == names
    (found,) = session.run(None, dict(zip(names, (t.numpy() for t in given), strict=True)))
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
