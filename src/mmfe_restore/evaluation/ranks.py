"""Evaluation on several processes: disjoint shares, gathered in the test set's order."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(mine: dict[int, T]) -> dict[int, T]:
    """Join what all processes found, by position; every position must be found once.

    Raises:
        RuntimeError: two processes found the same position (a bug: shares are disjoint).
    """
    _, size = rank_and_size()
    if size == 1:
        return mine
    parts: list[dict[int, T] | None] = [None] * size
    dist.all_gather_object(parts, mine)
    joined: dict[int, T] = {}
    for part in parts:
        assert part is not None
        if joined.keys() & part.keys():
            raise RuntimeError("two processes evaluated the same sample")
        joined |= part
    return dict(sorted(joined.items()))
