"""A store in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmfe_cache.io import format_bytes
from mmfe_cache.store.reader import CacheReader


def describe(reader: CacheReader) -> dict[str, Any]:
    """Everything `mmfe cache info` tells, as JSON values."""
    meta = reader.metadata
    views = {
        name: {
            "complete": view.complete,
            "batch_size": view.batch_size,
            "halved": _halved(reader, name, view.batch_size),
        }
        for name, view in reader.view_metadata.items()
    }
    return {
        "path": str(reader.path),
        "schema": 1,
        "dataset": meta.dataset,
        "split": meta.split,
        "guide": meta.guide,
        "dim": meta.dim,
        "samples": len(reader),
        "skipped": list(reader.skipped),
        "shard_samples": meta.shard_samples,
        "shards": meta.num_shards,
        "bytes": meta.bytes_of(range(meta.num_shards)) * len(reader.views),
        "views": views,
        "id": meta.id,
        "fingerprint": reader.fingerprint,
    }


def sentences(about: Mapping[str, Any]) -> list[str]:
    """The same for people, a line each."""
    finished = [name for name, view in about["views"].items() if view["complete"]]
    unfinished = [name for name, view in about["views"].items() if not view["complete"]]
    lines = [
        f"{about['path']}: what {about['guide']} sees in the {about['split']} split of "
        f"{about['dataset']}",
        f"  {about['samples']:,} samples, embeddings of width {about['dim']}, "
        f"{format_bytes(about['bytes'])} in {about['shards']:,} shards of {about['shard_samples']}",
        f"  views: {', '.join(finished) or 'none is finished'}",
    ]
    if unfinished:
        lines.append(
            f"  not finished: {', '.join(unfinished)} (mmfe cache build with the same options "
            "goes on)"
        )
    if about["skipped"]:
        lines.append(f"  skipped: {len(about['skipped'])}, such as {about['skipped'][0]!r}")
    for name, view in about["views"].items():
        if view["halved"]:
            sizes = sorted(set(view["halved"].values()))
            lines.append(
                f"  {name}: memory ran out in {len(view['halved'])} shards; they were encoded "
                f"in batches of {' or '.join(map(str, sizes))} instead of {view['batch_size']}"
            )
    lines.append("  fingerprint:")
    lines += [f"    {name}: {value}" for name, value in about["fingerprint"].items()]
    return lines


def _halved(reader: CacheReader, view: str, batch_size: int) -> dict[str, int] | None:
    # A request a shard would be slow where the store is behind an address.
    if "://" in str(reader.path):
        return None
    batches = reader.shard_batches(view)
    return {str(number): size for number, size in batches.items() if size < batch_size}
