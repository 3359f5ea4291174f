"""Embeddings that leave a GPU while it goes on with the next batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings


class Leaving:
    """A batch's embeddings on their way to the CPU.

    From a GPU they are copied into pinned memory behind the work that makes them, so the CPU
    queues the next batch meanwhile instead of waiting; from a CPU there is nothing to wait for.

    Args:
        found: the embeddings, on the device that computes them.
    """

    def __init__(self, found: Embeddings) -> None:
        self._copied: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in found.present().values()):
            found = found.map(_to_pinned)
            self._copied = torch.cuda.Event()
            self._copied.record()
        self._found = found.to("cpu")

    def result(self) -> Embeddings:
        """Wait for the copy; CPU tensors."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        return self._found


def _to_pinned(tensor: Tensor) -> Tensor:
    # The allocator keeps pinned blocks and gives one out again only after its last copy is done.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
