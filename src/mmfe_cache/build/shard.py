"""The samples of one shard while the guide works through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.build.encode import Encoder, Started
from mmfe_cache.build.prefetch import Batch, Prepared
from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName
from mmfe_cache.errors import CacheError
from mmfe_cache.store.documents import embedding_shape
from mmfe_cache.store.table import DIGEST_BYTES
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View

OnError = Literal["fail", "skip"]
"""Whether a sample that cannot be read ends the build or is left out."""


@dataclass(frozen=True, slots=True)
class Running:
    """Samples of a shard that the guide works on.

    Attributes:
        shard: the shard.
        places: where in it their rows go.
        started: what the guide was given.
    """

    shard: ShardBuffer
    places: list[int]
    started: Started


class ShardBuffer:
    """Collects one shard's rows at every view that lacks it, then writes them.

    Args:
        writer: the store.
        number: K, which shard.
        views: the views to compute.
        on_error: what a sample that cannot be read does.
        sizes: how many samples the guide may encode together, by the view's name.

    Attributes:
        number: K.
        spoilt: views whose batches had to become smaller midway, and how many samples were
            encoded by then: they are not written, and must be computed again.
    """

    def __init__(
        self,
        writer: CacheWriter,
        number: int,
        views: Sequence[View],
        on_error: OnError,
        sizes: Mapping[str, int],
    ) -> None:
        self.number = number
        self.spoilt: dict[View, int] = {}
        self._sizes, self._used = sizes, dict[str, int]()
        self._encoded = {view.name: 0 for view in views}
        self._writer, self._views, self._on_error = writer, views, on_error
        count = writer.metadata.count(number)
        self._digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self._known = writer.read_digests(number)
        self._rows: dict[str, dict[ArrayName, NDArray[np.float16]]] = {
            view.name: {
                name: np.zeros((count, *embedding_shape(name, writer.metadata.dim)), np.float16)
                for name in ARRAY_NAMES
            }
            for view in views
        }
        self._added = 0
        self._running = 0

    @property
    def full(self) -> bool:
        """Whether every sample of the shard has been added and is finished."""
        return self._added == len(self._digests) and not self._running

    def start(
        self, batch: Batch, prepared: Sequence[Prepared | None], encoder: Encoder
    ) -> list[Running]:
        """Add one batch and give it to the guide; every part of it must be finished later.

        Returns:
            What the guide was given, view by view.

        Raises:
            DataError: a sample could not be read, and that ends the build.
            CacheError: a sample's pixels are not those that the store was begun with.
        """
        there: list[tuple[int, Prepared]] = []
        for place, item in enumerate(prepared, start=batch.start):
            if item is None:
                continue
            if item.problem is not None:
                # Once a view holds the sample, the other views cannot leave it out.
                if self._on_error == "fail" or self._known is not None:
                    raise item.problem
                continue
            self._digests[place] = np.frombuffer(bytes.fromhex(item.digest or ""), np.uint8)
            self._compare(place, item)
            there.append((place, item))
        places = [place for place, _ in there]
        running: list[Running] = []
        for view in batch.views:
            if there and view not in self.spoilt:
                most = self._sizes[view.name]
                started = encoder.start(view.name, [item for _, item in there], most)
                running.append(Running(self, places, started))
                size = encoder.size(view.name, most)
                if self._used.setdefault(view.name, size) != size:
                    self.spoilt[view] = self._encoded[view.name] + len(there)
                self._encoded[view.name] += len(there)
        self._added += len(prepared)
        self._running += len(running)
        return running

    def finish(self, running: Running, encoder: Encoder) -> int:
        """Take in what `start` gave to the guide; returns how many samples that were."""
        rows = encoder.finish(running.started)
        for name, values in rows.items():
            self._rows[running.started.view][name][running.places] = values
        self._running -= 1
        return len(running.places)

    def write(self) -> None:
        """Write the pixel digests and every view's shard."""
        if self._known is None:
            self._writer.write_digests(self.number, self._digests)
        for view in self._views:
            if view in self.spoilt:
                continue
            self._writer.write_shard(
                view.group,
                view.name,
                self.number,
                self._rows[view.name],
                self._digests,
                self._used.get(view.name, self._sizes[view.name]),
            )
        self._rows.clear()

    def _compare(self, place: int, item: Prepared) -> None:
        if self._known is None or np.array_equal(self._known[place], self._digests[place]):
            return
        raise CacheError(
            f"the pixels of {item.sample.id!r} have changed since {self._writer.path} was built",
            got=f"{item.sample.degraded.name} with digest {item.digest}",
            expected=f"digest {self._known[place].tobytes().hex()}",
            remedy="put the image back as it was, or build a new cache in another place (--out)",
        )
