"""The `zarr.json` files: Zarr v3 metadata with a checksum, and what store and views say there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mmfe_cache.embeddings import ARRAY_NAMES, NUM_TOKENS, ArrayName, embedding_shape
from mmfe_cache.errors import CacheError
from mmfe_cache.parsing import flatten
from mmfe_cache.store.shards import ShardPlace, ShardShape
from mmfe_cache.views import group_name

METADATA_FILE = "zarr.json"
"""The file name that the Zarr v3 specification gives to metadata."""

CHECKSUM = "checksum"
"""The attribute that holds the checksum; it is taken over the document without it."""

Json = dict[str, Any]

_CODECS: list[Json] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]


def hex_digest(data: bytes) -> str:
    """blake2b of ``data`` with 16 bytes of output, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of ``value`` that digests are taken over."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def serialise(document: Mapping[str, Any]) -> bytes:
    """The bytes of a `zarr.json` file, with the checksum put in."""
    attributes = {k: v for k, v in document["attributes"].items() if k != CHECKSUM}
    bare = {**document, "attributes": attributes}
    whole = {**bare, "attributes": {**attributes, CHECKSUM: hex_digest(canonical_json(bare))}}
    return json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def parse_document(data: bytes, where: str) -> Json:
    """Read a `zarr.json` file and refuse one that is not byte for byte as it was written.

    Args:
        data: the file's content.
        where: what an error message calls the file.

    Raises:
        CacheError: the file is no JSON object, or its checksum is wrong.
    """
    if not is_intact(data):
        raise CacheError(
            f"the metadata file {where} is damaged",
            expected="the bytes that mmfe wrote, with a valid checksum",
            remedy="mmfe cache verify on the store says what else is damaged; "
            "mmfe cache repair rewrites what it can",
        )
    document: Json = json.loads(data)
    return document


def is_intact(data: bytes) -> bool:
    """Whether ``data`` is a `zarr.json`, byte for byte as it was written."""
    try:
        return serialise(json.loads(data)) == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def missing_file(where: str) -> CacheError:
    """The error for a file of a finished view, or of the sample table, that is not there."""
    return CacheError(f"{where} is missing", remedy="mmfe cache repair writes it again")


def group_document(attributes: Json) -> Json:
    """A Zarr v3 group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def embedding_array(
    name: ArrayName, num_samples: int, dim: int, shard_samples: int, attributes: Json
) -> Json:
    """The sharded array of one kind of embedding: a chunk is a sample, a shard is many."""
    inner = embedding_shape(name, dim)
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
    document["dimension_names"] = ["sample", *["token"] * (len(inner) - 1), "feature"]
    return document


def plain_array(shape: Sequence[int], chunk: Sequence[int], dtype: str, attributes: Json) -> Json:
    """An unsharded array whose chunks are raw little-endian numbers and a crc32c."""
    codecs = _CODECS if dtype != "uint8" else [{"name": "bytes"}, {"name": "crc32c"}]
    return _array(shape, chunk, dtype, 0, codecs, attributes)


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


FORMAT = "mmfe-cache"
SCHEMA = 1
"""The version of the format that this code writes and reads."""

SAMPLES = "samples"
"""The group that holds the sample table; no view is called so."""


class OtherVersionError(CacheError):
    """An undamaged cache of another schema version."""


class OtherOriginError(CacheError):
    """A cache whose root is damaged, and whose other files were not built from what was given."""


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """The root's attributes; written once, never changed.

    Attributes:
        dataset: the dataset's name.
        split: ``"train"`` or ``"test"``.
        guide: the guide's name.
        dim: D, the width of the embeddings.
        num_samples: N.
        samples: digest of all sample ids in order.
        shard_samples: samples in one shard.
        fingerprint: the guide's own fingerprint.
    """

    dataset: str
    split: str
    guide: str
    dim: int
    num_samples: int
    samples: str
    shard_samples: int
    fingerprint: Mapping[str, Any]

    @property
    def num_shards(self) -> int:
        """How many shards each array has."""
        return -(-self.num_samples // self.shard_samples)

    def count(self, number: int) -> int:
        """How many samples shard ``number`` holds."""
        return min(self.shard_samples, self.num_samples - number * self.shard_samples)

    def place(self, view: str, array: ArrayName, number: int) -> ShardPlace:
        """One shard of one array."""
        return ShardPlace(self.id, view, array, number, self.count(number))

    def shape(self, array: ArrayName) -> ShardShape:
        """How the shard files of one array are laid out."""
        return ShardShape(array, self.dim, self.shard_samples)

    def bytes_of(self, numbers: Iterable[int]) -> int:
        """Bytes of the three files of one view's shards ``numbers``."""
        counts = [self.count(number) for number in numbers]
        return sum(self.shape(name).file_bytes(count) for name in ARRAY_NAMES for count in counts)

    @property
    def id(self) -> str:
        """A digest of everything above: every file of the store is bound to it."""
        return hex_digest(canonical_json(self._attributes()))

    def document(self) -> Json:
        """The root's `zarr.json`."""
        return group_document({FORMAT: self._attributes()})

    def identity(self) -> dict[str, Any]:
        """What must be equal for two builds to share a store, as flat dotted names."""
        return flatten(
            {
                "dataset": self.dataset,
                "split": self.split,
                "dim": self.dim,
                "samples": {"count": self.num_samples, "ids": self.samples},
                "guide": {"name": self.guide, **self.fingerprint},
            }
        )

    def _attributes(self) -> Json:
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "split": self.split,
            "guide": self.guide,
            "dim": self.dim,
            "num_tokens": NUM_TOKENS,
            "num_samples": self.num_samples,
            "samples": self.samples,
            "shard_samples": self.shard_samples,
            "fingerprint": dict(self.fingerprint),
        }

    @classmethod
    def read(cls, data: bytes, where: str) -> StoreMetadata:
        """Read the root's `zarr.json`.

        Raises:
            CacheError: it is no cache's, or damaged.
            OtherVersionError: it is of another schema version.
        """
        _check_schema(data, where)
        document = parse_document(data, f"{where}/{METADATA_FILE}")
        found = document["attributes"][FORMAT]
        return cls(**{item.name: found[item.name] for item in fields(cls)})


@dataclass(frozen=True, slots=True)
class ViewMetadata:
    """A view group's attributes.

    Attributes:
        store: the id of the store it belongs to.
        view: its name, such as ``"whole@128"``.
        fingerprint: what else changes this view's embeddings.
        batch_size: samples the guide encoded together.
        complete: whether every shard has been written.
        statistics: what `mmfe_cache.store.info.measure` found in the finished view; None
            where an earlier version finished it, or a repair has taken samples in since.
    """

    store: str
    view: str
    batch_size: int
    fingerprint: Mapping[str, Any] = field(default_factory=dict[str, Any])
    complete: bool = False
    statistics: Mapping[str, Any] | None = None

    def check_folder(self, folder: str, where: str) -> None:
        """Refuse a view that lies in another view's folder, or in a copy of its own.

        Raises:
            CacheError: ``folder`` of the store ``where`` is not this view's.
        """
        own = group_name(self.view)
        if folder != own:
            raise CacheError(
                f"{where}/{folder} is not the folder of the view it holds",
                got=self.view,
                expected=f"{self.view} in {own}",
                remedy="give the folder its own name again, or remove it if it is a copy",
            )

    def document(self) -> Json:
        """The view group's `zarr.json`."""
        about = {**self._lasting(), "complete": self.complete}
        if self.statistics is not None:
            about["statistics"] = dict(self.statistics)
        return group_document({f"{FORMAT}-view": about})

    def _lasting(self) -> Json:
        # Repeated in every array, so that a damaged group can be written again from any of them.
        return {
            "store": self.store,
            "view": self.view,
            "batch_size": self.batch_size,
            "fingerprint": dict(self.fingerprint),
        }

    @classmethod
    def read(cls, data: bytes, where: str, store: str) -> ViewMetadata:
        """Read the `zarr.json` of a view group, or of one of its arrays.

        Args:
            data: the file's content.
            where: what an error message calls it.
            store: the id of the store it must belong to.

        Raises:
            CacheError: it is damaged, or another store's.
        """
        document = parse_document(data, where)
        found = document["attributes"].get(f"{FORMAT}-view") or document["attributes"].get(
            f"{FORMAT}-array", {}
        )
        if found.get("store") != store:
            raise CacheError(
                f"{where} belongs to another store",
                got=f"store {found.get('store')}",
                expected=f"store {store}",
                remedy="remove that folder and build the view again",
            )
        return cls(
            store=store,
            view=found["view"],
            batch_size=found["batch_size"],
            fingerprint=found["fingerprint"],
            complete=found.get("complete", False),
            statistics=found.get("statistics"),
        )

    def array_documents(self, store: StoreMetadata) -> dict[ArrayName, Json]:
        """Every array's `zarr.json`, by name."""
        return {
            name: embedding_array(
                name,
                store.num_samples,
                store.dim,
                store.shard_samples,
                {f"{FORMAT}-array": {**self._lasting(), "array": name}},
            )
            for name in ARRAY_NAMES
        }


def _check_schema(data: bytes, where: str) -> None:
    try:
        found = json.loads(data)["attributes"][FORMAT]["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        if FORMAT.encode() in data:
            return  # A damaged cache: the checksum says so.
        raise CacheError(
            f"{where} is not an mmfe cache",
            got="a zarr.json without mmfe's attributes",
            remedy="mmfe cache build --dataset NAME; where it was one, mmfe cache repair PATH",
        ) from None
    if found != SCHEMA:
        age = "newer" if isinstance(found, int) and found > SCHEMA else "older"
        kind = OtherVersionError if is_intact(data) else CacheError
        raise kind(
            f"{where} has an older format" if age == "older" else f"{where} has a newer format",
            got=f"schema {found}",
            expected=f"schema {SCHEMA}",
            remedy="update mmfe" if age == "newer" else "build the cache again with this mmfe",
        )
