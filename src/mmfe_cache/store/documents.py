"""The `zarr.json` files of a store: Zarr v3 metadata, each carrying its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmfe_cache.embeddings import NUM_TOKENS, ArrayName
from mmfe_cache.errors import CacheError

NAME = "zarr.json"
"""The file name that the Zarr v3 specification gives to metadata."""

CHECKSUM = "checksum"
"""The attribute that holds the checksum; it is taken over the document without it."""

Json = dict[str, Any]

_CODECS: list[Json] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]


def digest(data: bytes, size: int = 16) -> str:
    """blake2b of ``data`` with ``size`` bytes of output, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def canonical(value: object) -> bytes:
    """The one JSON spelling of ``value`` that digests are taken over."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def serialise(document: Mapping[str, Any]) -> bytes:
    """The bytes of a `zarr.json` file, with the checksum put in."""
    attributes = {k: v for k, v in document["attributes"].items() if k != CHECKSUM}
    bare = {**document, "attributes": attributes}
    whole = {**bare, "attributes": {**attributes, CHECKSUM: digest(canonical(bare))}}
    return json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def parse(data: bytes, where: str) -> Json:
    """Read a `zarr.json` file and refuse one that is not byte for byte as it was written.

    Args:
        data: the file's content.
        where: what an error message calls the file.

    Raises:
        CacheError: the file is no JSON object, or its checksum is wrong.
    """
    if not intact(data):
        raise CacheError(
            f"the metadata file {where} is damaged",
            expected="the bytes that mmfe wrote, with a valid checksum",
            remedy="mmfe cache verify on the store says what else is damaged; "
            "mmfe cache repair rewrites what it can",
        )
    document: Json = json.loads(data)
    return document


def intact(data: bytes) -> bool:
    """Whether ``data`` is a `zarr.json`, byte for byte as it was written."""
    try:
        return serialise(json.loads(data)) == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def group(attributes: Json) -> Json:
    """A Zarr v3 group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def embedding_array(
    name: ArrayName, num_samples: int, dim: int, shard_samples: int, attributes: Json
) -> Json:
    """The sharded array of one kind of embedding: a chunk is a sample, a shard is many."""
    inner = embedding_shape(name, dim)
    zeros = [0] * len(inner)
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, *inner],
            "codecs": _CODECS,
            "index_codecs": _CODECS,
            "index_location": "end",
        },
    }
    document = _array(
        [num_samples, *inner], [shard_samples, *inner], "float16", "NaN", [sharding], attributes
    )
    document["dimension_names"] = (
        ["sample", "token", "feature"]
        if len(zeros) == 2
        else [
            "sample",
            "feature",
        ]
    )
    return document


def plain_array(shape: Sequence[int], chunk: Sequence[int], dtype: str, attributes: Json) -> Json:
    """An unsharded array whose chunks are raw little-endian numbers and a crc32c."""
    codecs = _CODECS if dtype != "uint8" else [{"name": "bytes"}, {"name": "crc32c"}]
    return _array(shape, chunk, dtype, 0, codecs, attributes)


def embedding_shape(name: ArrayName, dim: int) -> tuple[int, ...]:
    """The shape of one sample's embedding: (17, D), or (D,) for ``answer``."""
    return (dim,) if name == "answer" else (NUM_TOKENS, dim)


def _array(
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: str,
    fill: object,
    codecs: Sequence[Json],
    attributes: Json,
) -> Json:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        # A dot between the numbers keeps an array's files in one flat folder.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": list(codecs),
        "attributes": attributes,
        "storage_transformers": [],
    }
