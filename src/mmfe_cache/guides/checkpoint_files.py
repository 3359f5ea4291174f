"""Finding a checkpoint on this machine and naming what is in it; imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.registry import GuideInfo, read_config

_TEXT_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_BLOCK = 1 << 24


def find_checkpoint(info: GuideInfo, name_or_dir: str | Path) -> Path:
    """The local directory of a guide's checkpoint.

    Nothing is ever downloaded here: gigabytes come only when the user asks for them.

    Args:
        info: what the registry says of it.
        name_or_dir: what the user named.

    Raises:
        GuideError: its weights are not on this machine, or not all of them.
    """
    directory = checkpoint_folder(info, name_or_dir)
    if directory is None:
        raise GuideError(
            f"the weights of the guide {info.name} are not on this machine",
            got=f"no {info.repository} in the Hugging Face cache",
            expected="a downloaded checkpoint, or its directory in place of the guide's name",
            remedy=f"{info.how_to_get}   (or take the guide scene, which needs no download)",
        )
    read_config(directory)
    missing = [name for name in weight_files(directory) if not (directory / name).is_file()]
    if missing:
        raise GuideError(
            f"the checkpoint of the guide {info.name} is not complete",
            got=f"{directory} without {', '.join(missing[:3])}{' …' if missing[3:] else ''}",
            expected="every file that its index names",
            remedy=info.how_to_get if info.repository else "fetch the missing files",
        )
    return directory


def is_local(info: GuideInfo, name_or_dir: str | Path | None = None) -> bool:
    """Whether all of a guide's weights are on this machine; None: it is named in the registry."""
    name_or_dir = info.name if name_or_dir is None else name_or_dir
    if info.repository is None and not (info.local and Path(name_or_dir).is_dir()):
        return True  # it comes with mmfe, or is one file
    try:
        if info.kind == "timm":
            from mmfe_cache.guides.timm_encoder import find_weights
            from mmfe_cache.guides.timm_models import TimmName, find_encoder

            name = TimmName.parse(str(name_or_dir))
            find_weights(name, find_encoder(name.model))
        else:
            find_checkpoint(info, name_or_dir)
    except GuideError:
        return False
    return True


def checkpoint_folder(info: GuideInfo, name_or_dir: str | Path) -> Path | None:
    """The directory of a guide's checkpoint, whole or not; None where nothing of it is here."""
    if info.repository is None:
        return Path(name_or_dir)
    try:
        return Path(
            snapshot_download(info.repository, revision=info.revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None


def missing_download(info: GuideInfo, directory: Path | None) -> int | None:
    """Bytes of weights that are still to be fetched; None where nothing says how many.

    Raises:
        GuideError: the index of the weights cannot be read.
    """
    total, there = info.download, 0
    if directory is not None:
        index = directory / INDEX
        if index.is_file():
            metadata = _read_index(index).get("metadata")
            size = metadata.get("total_size") if isinstance(metadata, dict) else None
            total = int(size) if isinstance(size, int | float) else total
        files = (directory / name for name in weight_files(directory))
        there = sum(path.stat().st_size for path in files if path.is_file())
    return None if total is None else max(0, total - there)


def weight_files(directory: Path) -> list[str]:
    """The names of the files that hold a checkpoint's weights.

    A single file comes before those of an index, as it does for transformers: a network that was
    trained on may have been saved beside the files that it came from.

    Raises:
        GuideError: the index cannot be read.
    """
    index = directory / INDEX
    if not index.is_file() or (directory / SINGLE).is_file():
        return [SINGLE]
    try:
        return sorted(set(_read_index(index)["weight_map"].values()))
    except (KeyError, AttributeError) as problem:
        raise GuideError("the index of the weights cannot be read", got=index) from problem


def _read_index(index: Path) -> dict[str, Any]:
    try:
        found = json.loads(index.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise GuideError("the index of the weights cannot be read", got=index) from problem
    if not isinstance(found, dict):
        raise GuideError("the index of the weights is no JSON object", got=index)
    return cast("dict[str, Any]", found)


def checkpoint_digests(directory: Path) -> dict[str, str]:
    """What a fingerprint says of everything in a checkpoint that changes its embeddings.

    Returns:
        ``checkpoint``, BLAKE2b-128 over the text files and the SHA-256 of every file of weights,
        the same wherever the checkpoint lies; and where the weights had to be read,
        ``checkpoint_bytes``, over their bytes: what earlier versions called such a checkpoint. The
        Hugging Face cache mostly stores weights under their SHA-256, and they are not read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in _TEXT_FILES:
        if (directory / name).is_file():
            digest.update(f"{name}\0".encode() + (directory / name).read_bytes())
    in_bytes, read = digest.copy(), False
    for name in weight_files(directory):
        path = directory / name
        digest.update(f"{name}\0".encode())
        in_bytes.update(f"{name}\0".encode())
        # The first link's target: the blob itself may be a link into a store of other hashes.
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch("[0-9a-f]{64}", blob):
            digest.update(blob.encode())
            in_bytes.update(blob.encode())
            continue
        own, read = hashlib.sha256(), True
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                own.update(block)
                in_bytes.update(block)
        digest.update(own.hexdigest().encode())
    found = {"checkpoint": digest.hexdigest()}
    return {**found, "checkpoint_bytes": in_bytes.hexdigest()} if read else found
