"""A process of a run that died: the others say which, and end."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.distributed.distributed_c10d import (
    Store,
    _get_default_store,  # pyright: ignore[reportPrivateUsage]
)

from mmfe_cache.errors import MmfeError

ANSWER_WITHIN = 3.0
"""Seconds within which a living process notices that the others have stopped, and answers."""

_LOST = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|remote process exited|"
    r"by peer|socket timeout|timed out|ncclRemoteError",
    re.IGNORECASE,
)
"""What gloo and NCCL say when the other end of a connection is gone."""


class RankFailureError(MmfeError):
    """Another process of the same run has died."""


class RankFailure(Callback):
    """Turns a broken connection between processes into an error that names the dead."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave this process's host and number where the others find them."""
        store = _store()
        if store is not None:
            who = f"{socket.gethostname()}, process {os.getpid()}"
            store.set(f"mmfe/who/{dist.get_rank()}", who)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Find out which processes are gone, before Lightning ends the run and its signals go.

        torchrun sends SIGTERM to the survivors at once: it must not end them before they spoke.

        Raises:
            RankFailureError: a collective failed, and these ranks did not answer.
        """
        store = _store()
        if store is None or not is_connection_lost(exception):
            return
        rank, world = dist.get_rank(), dist.get_world_size()
        dead = find_dead_ranks(store, rank, world)
        if dead:
            raise RankFailureError(
                f"rank {rank} of {world} stops, because {dead} no longer answers",
                got=str(exception).strip().splitlines()[0],
                remedy="look for that process's own message (killed for memory? a failed node?); "
                "then give the same command again with --resume auto",
            ) from exception


def is_connection_lost(problem: BaseException) -> bool:
    """Say whether an error tells of a connection whose other end is gone."""
    return isinstance(problem, RuntimeError) and _LOST.search(str(problem)) is not None


def find_dead_ranks(store: Store, rank: int, world: int, within: float = ANSWER_WITHIN) -> str:
    """Say which of ``world`` processes are gone; every living one calls it at about one time.

    Args:
        store: that all of them share.
        rank: of this process.
        world: how many there were.
        within: seconds to wait for the others.

    Returns:
        Such as ``"rank 1 (node-7, process 4711)"``; empty if all answered.
    """
    missing = set(range(world)) - {rank}
    try:
        store.set(f"mmfe/here/{rank}", "yes")
        until = time.monotonic() + within
        while missing and time.monotonic() < until:
            missing = {other for other in missing if not store.check([f"mmfe/here/{other}"])}
            time.sleep(0.05)
        names = [f"rank {other}{_who(store, other)}" for other in sorted(missing)]
    except RuntimeError:
        # The store lives in rank 0 unless torchrun holds it.
        return "rank 0, which held what the processes share,"
    return ", ".join(names)


def _who(store: Store, rank: int) -> str:
    with suppress(RuntimeError):
        store.set_timeout(timedelta(seconds=1))
        return f" ({store.get(f'mmfe/who/{rank}').decode()})"
    return ""


def _store() -> Store | None:
    """What all processes share; None where there is but one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return _get_default_store()
