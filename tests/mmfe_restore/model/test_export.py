"""The network as `torch.export` holds it, with the embeddings as inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer

Make = Callable[..., Restorer]


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


def test_an_exported_program_equals_eager(tiny: Make) -> None:
    """Experts in the frequency domain; those in the image are in export/test_program.py."""
    # Blocks are alike at every level; guidance and experts stand at all of their six sites each.
    blocks = {"num_blocks": (1, 0, 0, 1), "num_refinement_blocks": 0}
    network = Exported(tiny(torch.float32, **blocks, low_band=True, guidance_dropout=0.1))
    given = inputs()
    with torch.no_grad():
        expected = network(*given)
        program = torch.export.export(network, given)
        torch.testing.assert_close(program.module()(*given), expected, atol=1e-4, rtol=0)
