"""What `mmfe cache info` tells: what a store holds, and how large and alike its embeddings are.

The latter is what a router will make of them. An MLLM's hidden states can be of any scale: a
sigmoid of embeddings of RMS 20 is 0 or 1 for every sample and hardly learns; embeddings whose
cosines are all near 1 tell it little to begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName
from mmfe_cache.io import counted, format_bytes
from mmfe_cache.store.reader import CacheReader
from mmfe_cache.store.sample_table import absent_rows

MOST_SAMPLES = 1024
"""Samples, spread evenly over the split, that are measured: a view of any size takes seconds."""

CHUNK = 64
"""Samples that are in memory with all their tokens at once."""

DIGITS = 4
"""Significant digits that are kept: the last bits of sums differ from machine to machine."""


def describe(reader: CacheReader, *, compute: bool = False) -> dict[str, Any]:
    """Everything `mmfe cache info` tells, as JSON values.

    Args:
        reader: the open cache.
        compute: measure views whose statistics an earlier version did not record, which reads up
            to `MOST_SAMPLES` samples of each; they are None otherwise.
    """
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
        "statistics": {name: _statistics(reader, name, compute) for name in reader.views},
        "id": meta.id,
        "fingerprint": reader.fingerprint,
    }


def describe_text(about: Mapping[str, Any]) -> list[str]:
    """The same for people, a line each."""
    finished = [name for name, view in about["views"].items() if view["complete"]]
    unfinished = [name for name, view in about["views"].items() if not view["complete"]]
    lines = [
        f"{about['path']}: what {about['guide']} sees in the {about['split']} split of "
        f"{about['dataset']}",
        f"  {about['samples']:,} samples, embeddings of width {about['dim']}, "
        f"{format_bytes(about['bytes'])} in {counted(about['shards'], 'shard')} of "
        f"{about['shard_samples']}",
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
                f"  {name}: memory ran out in {counted(len(view['halved']), 'shard')}, encoded "
                f"in batches of {' or '.join(map(str, sizes))} instead of {view['batch_size']}"
            )
    for name, found in about["statistics"].items():
        said = "not recorded: --statistics computes it"
        lines.append(f"  {name}: {said if found is None else describe_statistics(found)}")
    lines.append("  fingerprint:")
    lines += [f"    {name}: {value}" for name, value in about["fingerprint"].items()]
    return lines


def _statistics(reader: CacheReader, view: str, compute: bool) -> dict[str, Any] | None:
    recorded = reader.view_metadata[view].statistics
    if recorded is None:
        return measure(reader, view) if compute else None
    return dict(recorded)


def _halved(reader: CacheReader, view: str, batch_size: int) -> dict[str, int] | None:
    # A request a shard would be slow where the store is behind an address.
    if "://" in str(reader.path):
        return None
    batches = reader.shard_batches(view)
    return {str(number): size for number, size in batches.items() if size < batch_size}


def measure(reader: CacheReader, view: str) -> dict[str, Any]:
    """Measure one view.

    Args:
        reader: the open cache.
        view: a finished view's name.

    Returns:
        JSON values: ``samples``, how many were measured, and for each array

        - ``rms``: root mean square of all its numbers, over all 17 tokens of ``image`` and
          ``joint``;
        - ``mean_cosine``: mean cosine similarity of two different samples, of token 0, the mean
          over the guide's tokens, for ``image`` and ``joint``; None for fewer than two samples, or
          where a vector is zero;
        - ``first_component``: the first principal component's share of the variance between
          samples, of the same vectors; None where they do not vary.

    Raises:
        CacheError: the view is not finished, or damaged.
    """
    present = np.flatnonzero(~absent_rows(reader.pixel_digests))
    count = min(len(present), MOST_SAMPLES)
    chosen = present[np.arange(count) * len(present) // max(1, count)]
    squares = dict.fromkeys(ARRAY_NAMES, 0.0)
    numbers = dict.fromkeys(ARRAY_NAMES, 0)
    vectors: dict[ArrayName, list[NDArray[np.float32]]] = {name: [] for name in ARRAY_NAMES}
    for start in range(0, count, CHUNK):
        part = reader.gather(chosen[start : start + CHUNK], view, tokens="all")
        for name, tensor in part.present().items():
            values = tensor.float().numpy()
            squares[name] += float(np.square(values, dtype=np.float64).sum())
            numbers[name] += values.size
            vectors[name].append(values if name == "answer" else values[:, 0].copy())
    found: dict[str, Any] = {"samples": count}
    for name in ARRAY_NAMES:
        whole = np.concatenate(vectors[name]).astype(np.float64) if count else np.zeros((0, 1))
        found[name] = {
            "rms": _rounded((squares[name] / numbers[name]) ** 0.5 if numbers[name] else None),
            "mean_cosine": _rounded(mean_cosine(whole)),
            "first_component": _rounded(first_component(whole)),
        }
    return found


def mean_cosine(rows_ND: NDArray[np.float64]) -> float | None:
    """Mean cosine similarity over all pairs of two different rows.

    By the sum of unit vectors: |Σ u|² is N and twice the sum over pairs.
    """
    lengths = np.linalg.norm(rows_ND, axis=1)
    count = len(rows_ND)
    if count < 2 or not lengths.all():
        return None
    total = (rows_ND / lengths[:, None]).sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def first_component(rows_ND: NDArray[np.float64]) -> float | None:
    """The largest eigenvalue of the covariance of the rows, as a share of their sum."""
    if len(rows_ND) < 2:
        return None
    centred = rows_ND - rows_ND.mean(axis=0)
    count, dim = centred.shape
    # The smaller of two matrices with the same eigenvalues, zeros aside.
    product = centred @ centred.T if count < dim else centred.T @ centred
    whole = float(np.trace(product))
    noise = len(rows_ND) * dim * np.finfo(np.float64).eps * float(np.square(rows_ND).sum())
    return None if whole <= noise else float(np.linalg.eigvalsh(product)[-1]) / whole


def describe_statistics(statistics: Mapping[str, Any]) -> str:
    """One view's figures for people, on one line."""
    arrays = (
        f"{name} RMS {_shown(found['rms'])}, cosine {_shown(found['mean_cosine'])}, first "
        f"component {_shown(found['first_component'])}"
        for name, found in statistics.items()
        if name != "samples"
    )
    return f"{'; '.join(arrays)} (of {statistics['samples']:,} samples)"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
