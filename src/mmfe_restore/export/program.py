"""A restorer as a program of `torch.export`, for one size of image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmfe_cache.embeddings import NUM_TOKENS, TOKEN_SLICES, Embeddings
from mmfe_cache.errors import UsageError
from mmfe_cache.io import draft_file

if TYPE_CHECKING:
    from mmfe_restore.export.files import Parts
    from mmfe_restore.model import Restorer


class _Program(nn.Module):
    """Takes tensors, which is what a program can take."""

    def __init__(self, restorer: Restorer, names: tuple[str, ...]) -> None:
        super().__init__()
        self.restorer = restorer
        self._names = names

    def forward(self, image: Tensor, *embeddings: Tensor) -> Tensor:
        given = Embeddings.of(dict(zip(self._names, embeddings, strict=True)))
        return self.restorer(image, given if self._names else None).clamp(0, 1)


def write_program(
    path: Path, parts: Parts, facts: Mapping[str, str], static: tuple[int, int]
) -> tuple[str, ...]:
    """Write the network as `torch.export.load` reads it.

    Args:
        path: where to.
        parts: the network; its guide cannot be inside, since Pillow shrinks what it sees.
        facts: kept in the file, under ``mmfe.json``.
        static: (H, W) of the images that it takes, one at a time.

    Returns:
        The names of its inputs, in the order in which it takes them: ``image`` (1, 3, H, W) in
        [0, 1], then the embeddings that the network reads, (1, T, D) or, for ``e_answer``, (1, D).
        It gives (1, 3, H, W), clamped to [0, 1].

    Raises:
        UsageError: the guide is to be inside.
    """
    if parts.guide is not None:
        raise UsageError(
            "a .pt2 file cannot hold the guide scene",
            expected="--guide inputs or none",
            remedy="export to .onnx, which holds both",
        )
    restorer, names = parts.restorer, parts.asks_for
    tokens = restorer.recipe.guide.tokens if restorer.recipe is not None else "grid"
    count, dim = len(range(NUM_TOKENS)[TOKEN_SLICES[tokens]]), restorer.config.guidance_dim
    shapes = {"image": (1, count, dim), "joint": (1, count, dim), "answer": (1, dim)}
    given = torch.zeros(1, 3, *static), *(torch.zeros(shapes[name]) for name in names)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        program = torch.export.export(_Program(restorer, names), given)
        with draft_file(path) as draft:
            # Its writer insists on the ending.
            inner = draft.with_suffix(".pt2")
            try:
                torch.export.save(
                    program, inner, extra_files={"mmfe.json": json.dumps(dict(facts))}
                )
                inner.replace(draft)
            finally:
                inner.unlink(missing_ok=True)
    return ("image", *(f"e_{name}" for name in names))
