"""Embeddings copied from a GPU while it goes on with the next batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings


class AsyncCopy:
    """A batch's embeddings on their way to the CPU.

    From a GPU they are copied into pinned memory behind the work that makes them, so the CPU
    queues the next batch meanwhile instead of waiting; from a CPU there is nothing to wait for.

    Args:
        found: the embeddings, on the device that computes them.
    """

    def __init__(self, found: Embeddings) -> None:
        devices = {tensor.device for tensor in found.present().values() if tensor.is_cuda}
        if devices:
            found = found.map(_to_pinned)
        # The copies run on the tensors' own devices, which need not be the current one.
        self._copied = [torch.cuda.Event() for _ in devices]
        for event, device in zip(self._copied, devices, strict=True):
            event.record(torch.cuda.current_stream(device))
        self._found = found.to("cpu")

    def result(self) -> Embeddings:
        """Wait for the copy; CPU tensors."""
        while self._copied:
            self._copied.pop().synchronize()
        return self._found


def _to_pinned(tensor: Tensor) -> Tensor:
    # The allocator keeps pinned blocks and gives one out again only after its last copy is done.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
