"""What a build would cost, without building."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmfe_cache.datasets.same_pixels import check_same_pixels
from mmfe_cache.embeddings import NUM_TOKENS
from mmfe_cache.guides.base import Guide
from mmfe_cache.io import free_bytes
from mmfe_cache.precompute.build import check_same, missing_bytes, wanted_metadata
from mmfe_cache.precompute.encode import prepare
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View

SIZED_IMAGES = 16
"""Images, spread over the data set, from which the tokens of ``native`` are estimated."""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What `build_cache` would do.

    Attributes:
        path: the store.
        views: the views asked for.
        samples: N, the samples of the split.
        encodings: sample-views still to compute.
        tokens: tokens that the guide's language model still has to read, the question's
            included; 0 for a guide without one. Exact for views of one size; for ``native`` it
            follows from some of the images.
        stored_vectors: embedding vectors still to store, 35 an encoding.
        bytes: to be written.
        free: bytes free on the disk; None where unknown.
        seconds: estimated from a few timed batches; None where none were timed.
    """

    path: Path
    views: tuple[str, ...]
    samples: int
    encodings: int
    tokens: int
    stored_vectors: int
    bytes: int
    free: int | None
    seconds: float | None


def plan_build(
    samples: SampleSet,
    guide: Guide,
    views: Sequence[str],
    path: str | Path,
    *,
    batch_size: int = 32,
    shard_samples: int = 256,
    timed_batches: int = 0,
) -> BuildPlan:
    """Work out what a build would cost; writes nothing.

    Args:
        samples: the split.
        guide: the guide; it is run only where batches are timed. A `GuideOutline` is enough
            elsewhere; whether a store that is there fits its weights then stays open.
        views: the views' names.
        path: the store's folder, which may exist.
        batch_size: samples the guide encodes together.
        shard_samples: samples of one shard, for a store that does not exist yet.
        timed_batches: batches of each view to time, after one that warms up.

    Raises:
        CacheError: the store at ``path`` was built from something else, or is none.
    """
    metadata = wanted_metadata(samples, guide, shard_samples)
    path = Path(path)
    writer = CacheWriter(path, metadata)
    if writer.exists:
        reader = open_cache(path)
        if not metadata.fingerprint:  # a guide without its weights
            metadata = replace(metadata, fingerprint=reader.metadata.fingerprint)
        check_same(reader.metadata, metadata, path, reader.ids, samples.ids)
        check_same_pixels(samples, reader)
        writer = CacheWriter(path, reader.metadata)
    else:
        writer.check_place()
    parsed = tuple(dict.fromkeys(View.parse(name) for name in views))
    left = {
        view: sum(writer.metadata.count(k) for k in writer.missing_shards(view.group, view.name))
        for view in parsed
    }
    seconds = None
    if timed_batches:
        seconds = sum(
            count * _seconds_each(samples, guide, view, batch_size, timed_batches)
            for view, count in left.items()
            if count
        )
    encodings = sum(left.values())
    return BuildPlan(
        path=path,
        views=tuple(view.name for view in parsed),
        samples=len(samples),
        encodings=encodings,
        tokens=sum(
            round(count * _tokens_each(samples, guide, view)) for view, count in left.items()
        ),
        stored_vectors=encodings * (2 * NUM_TOKENS + 1),
        bytes=missing_bytes(writer, parsed, samples.ids),
        free=free_bytes(path),
        seconds=seconds,
    )


def _tokens_each(samples: SampleSet, guide: Guide, view: View) -> float:
    count = getattr(guide, "sequence_tokens", None)  # of a guide whose language model reads tokens
    if count is None:
        return 0.0
    # Images may differ in size; views other than `native` make them equal.
    step = max(1, len(samples) // SIZED_IMAGES) if view.family == "native" else len(samples)
    ready = (prepare(sample, (view,), guide) for sample in samples.samples[::step])
    counts = [count(item.inputs[view.name]) for item in ready if not item.problem]
    return sum(counts) / len(counts) if counts else 0.0


def _seconds_each(
    samples: SampleSet, guide: Guide, view: View, batch_size: int, batches: int
) -> float:
    timed: list[float] = []
    encoded = 0
    for number in range(batches + 1):
        start = number * batch_size % len(samples)
        part = samples.samples[start : start + batch_size]
        began = time.perf_counter()
        ready = [item for item in (prepare(s, (view,), guide) for s in part) if not item.problem]
        if not ready:
            continue
        if guide.reads == "severities":
            guide.encode_samples([item.sample for item in ready])
        else:
            guide.encode_prepared([item.inputs[view.name] for item in ready])
        if number:  # The first batch also loads libraries and fills caches.
            timed.append(time.perf_counter() - began)
            encoded += len(ready)
    return sum(timed) / encoded if encoded else 0.0
