"""A `.pt2` file, read as anybody would: `torch.export.load`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer
from mmfe_restore.export import export_model


def test_a_program_gives_what_the_network_gives(tiny: Callable[..., Restorer], tmp_path: Path):
    restorer = tiny(torch.float32, experts="spatial")
    path = tmp_path / "new" / "r.pt2"
    done = export_model(restorer, path, source="runs/mine", static=(33, 47))
    assert done.inputs == ("image", "e_image", "e_joint", "e_answer")
    assert done.note is not None  # nobody chose that the guide stays outside
    assert [one.name for one in path.parent.iterdir()] == ["r.pt2"]

    torch.manual_seed(1)
    image = torch.rand(1, 3, 33, 47)
    given = torch.randn(1, 16, 12), torch.randn(1, 16, 12), torch.randn(1, 12)
    told = {"mmfe.json": ""}
    program = torch.export.load(path, extra_files=told).module()
    assert json.loads(told["mmfe.json"]) == done.facts
    with torch.no_grad():
        expected = restorer(image, Embeddings(*given)).clamp(0, 1)
        found = program(image, *given)
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.3  # the clamp does not hide it
    assert (expected - image).abs().max() > 0.05  # the network did something
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
