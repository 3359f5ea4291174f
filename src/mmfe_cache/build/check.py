"""What a build refuses before it begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmfe_cache.errors import CacheError, MmfeError
from mmfe_cache.guides.protocol import Guide
from mmfe_cache.io import format_bytes, free_bytes
from mmfe_cache.samples import SampleSet
from mmfe_cache.store import table
from mmfe_cache.store.metadata import StoreMetadata, ViewMetadata
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View

RENDERING = 1
"""Raised whenever `View.render` makes other pixels, so that caches of both kinds never mix."""


def wanted_metadata(samples: SampleSet, guide: Guide, shard_samples: int) -> StoreMetadata:
    """What the root of a cache of ``samples`` seen by ``guide`` says.

    Raises:
        DataError: there are no samples, or their ids cannot be stored.
    """
    table.check_ids(samples.ids)
    return StoreMetadata(
        dataset=samples.dataset,
        split=samples.split,
        guide=guide.name,
        dim=guide.dim,
        num_samples=len(samples),
        samples=table.ids_digest(samples.ids),
        shard_samples=shard_samples,
        # Through JSON, as it will be read back: a tuple there becomes a list.
        fingerprint=json.loads(json.dumps(dict(guide.fingerprint()))),
    )


def rendering(view: View) -> dict[str, Any]:
    """A view's own fingerprint: what changes the pixels that the guide sees."""
    return {"view": view.name, "rendering": RENDERING}


def check_rendering(known: ViewMetadata, view: View, path: Path) -> None:
    """Refuse to go on with a view that another version of the code rendered.

    Raises:
        CacheError: names what differs.
    """
    new = rendering(view)
    if known.fingerprint != new:
        raise CacheError(
            f"{view.name} in {path} was rendered in another way",
            got=known.fingerprint,
            expected=new,
            remedy="build the cache again in another place (--out)",
        )


def check_same(
    known: StoreMetadata,
    wanted: StoreMetadata,
    path: Path,
    old_ids: Sequence[str] | None,
    new_ids: Sequence[str],
) -> None:
    """Refuse to add to a store that was built from something else.

    Args:
        known: what the store's root says.
        wanted: what the build would write.
        path: the store.
        old_ids: the store's sample ids; None where they cannot be read.
        new_ids: the ids of the samples now.

    Raises:
        CacheError: names every field that differs, old and new.
    """
    old, new = known.identity(), wanted.identity()
    differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    if not differing:
        return
    lines = [
        f"{name}: {old.get(name, 'not there')} in the cache, {new.get(name, 'not there')} now"
        for name in differing
    ]
    if "samples.ids" in differing and old_ids is not None:
        pairs = zip_longest(old_ids, new_ids)
        place, (was, now) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        lines.append(f"first difference at sample {place}: {was!r} in the cache, {now!r} now")
    raise CacheError(
        f"{path} was built from something else",
        got="\n            ".join(lines),
        expected="the same data, guide, prompt and settings",
        remedy="choose another place with --out, or remove the old cache",
    )


def missing_bytes(writer: CacheWriter, views: Sequence[View], ids: Sequence[str]) -> int:
    """Bytes that are still to be written: shards, and the sample table of a new store."""
    shards = sum(
        writer.metadata.bytes_of(writer.missing_shards(view.group, view.name)) for view in views
    )
    if writer.exists:
        return shards
    digests = writer.metadata.num_shards * writer.metadata.shard_samples * table.DIGEST_BYTES
    return shards + digests + sum(len(data) for data in table.id_files(ids).values())


def check_space(writer: CacheWriter, views: Sequence[View], ids: Sequence[str]) -> None:
    """Refuse a build that cannot fit, before anything is computed.

    Raises:
        MmfeError: says what it needs and what is free.
    """
    needed, free = missing_bytes(writer, views, ids), free_bytes(writer.path)
    if free is not None and needed > free:
        raise MmfeError(
            f"the cache does not fit on the disk of {writer.path}",
            got=f"{format_bytes(free)} free",
            expected=f"{format_bytes(needed)} for {', '.join(view.name for view in views)}",
            remedy="free some space, choose another place with --out, or fewer --views",
        )
