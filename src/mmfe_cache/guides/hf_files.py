"""Finding a checkpoint on this machine and naming what is in it; imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

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
    if info.repository is None:
        directory = Path(name_or_dir)
    else:
        try:
            found = snapshot_download(
                info.repository, revision=info.revision, local_files_only=True
            )
        except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError) as problem:
            raise GuideError(
                f"the weights of the guide {info.name} are not on this machine",
                got=f"no {info.repository} in the Hugging Face cache",
                expected="a downloaded checkpoint, or a directory given with --guide DIR",
                remedy=f"{info.how_to_get}   (or use --guide scene, which needs no download)",
            ) from problem
        directory = Path(found)
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


def is_local(info: GuideInfo) -> bool:
    """Whether a guide's weights are on this machine."""
    if info.repository is None:
        return True
    try:
        find_checkpoint(info, info.name)
    except GuideError:
        return False
    return True


def weight_files(directory: Path) -> list[str]:
    """The names of the files that hold a checkpoint's weights; those of the index if there is one.

    Raises:
        GuideError: the index cannot be read.
    """
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as problem:
        raise GuideError("the index of the weights cannot be read", got=index) from problem


def checkpoint_digest(directory: Path) -> str:
    """BLAKE2b-128 over everything in a checkpoint that changes its embeddings.

    A directory of the Hugging Face cache is named by its commit and its weights are stored under
    their SHA-256, so their names are hashed; elsewhere every byte is.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in _TEXT_FILES:
        if (directory / name).is_file():
            digest.update(f"{name}\0".encode() + (directory / name).read_bytes())
    for name in weight_files(directory):
        path = directory / name
        digest.update(f"{name}\0".encode())
        blob = path.resolve().name
        if path.is_symlink() and len(blob) == 64:
            digest.update(blob.encode())
            continue
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
