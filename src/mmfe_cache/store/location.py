"""Where a store lies when nobody says, and what the store at a path was built from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmfe_cache.embeddings import DEFAULT_PROMPT, JointTokens
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.places import CACHE
from mmfe_cache.store.format import METADATA_FILE, SAMPLES, OtherVersionError, StoreMetadata
from mmfe_cache.store.storage import Storage


def store_path(
    dataset: str,
    split: str,
    guide: str,
    prompt: str | None = None,
    root: str | Path | None = None,
    joint: JointTokens = "all",
) -> Path:
    """The default place of a store: ``$MMFE_CACHE/<dataset>/<split>/<guide>.zarr``, or ``cache/…``.

    Args:
        dataset: the dataset's name.
        split: ``"train"`` or ``"test"``.
        guide: a guide's name, or a checkpoint's directory or file: its name and a short hash of
            what is in it then name the store. So do ``timm:MODEL,weights=FILE`` and the file's.
        prompt: what the guide is asked; None for the default. Any other adds a short hash.
        root: the folder that takes the place of ``$MMFE_CACHE/<dataset>``.
        joint: which of an MLLM's tokens ``joint`` pools; another than ``all`` adds to the hash.
    """
    folder = CACHE.folder / dataset if root is None else Path(root)
    asked = None if prompt is None or prompt == DEFAULT_PROMPT else prompt
    # A timm encoder's name may end in the file of its weights.
    encoder, _, weights = (
        guide.partition(",weights=") if guide.startswith("timm:") else (guide, "", "")
    )
    checkpoint = Path(weights or guide)
    is_directory = checkpoint.is_dir() and (checkpoint / "config.json").is_file()
    is_local = is_directory or checkpoint.is_file()
    name = re.sub("[/:,=]", "-", guide)  # Windows takes no colon
    if is_directory:
        name = checkpoint.resolve().name
    elif is_local:
        name = re.sub("[/:,=]", "-", encoder) if weights else checkpoint.stem
    if is_local or asked is not None or joint != "all":
        about = {"directory": _identity(checkpoint) if is_local else None, "prompt": asked}
        if joint != "all":  # only then: the places of other stores stay as they were
            about["joint"] = joint
        text = json.dumps(about, sort_keys=True).encode()
        name = f"{name}-{hashlib.blake2b(text, digest_size=4).hexdigest()}"
    return folder / split / f"{name}.zarr"


def refuse_address(place: str | Path) -> None:
    """Refuse an address in the place of a folder that is to be written.

    Raises:
        UsageError: it is one.
    """
    # A path has only one of an address's two slashes left.
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(place)):
        raise UsageError(
            "a cache is built in a local folder, and repaired there",
            got=str(place),
            expected="a folder; copied to an address afterwards, the cache can be read there",
        )


def repair_command(path: str | Path) -> str:
    """What to do about a damaged store: only a local one can be repaired where it lies."""
    if "://" in str(path):
        return f"mmfe cache repair on the original, then copy it to {path} again"
    return f"mmfe cache repair {path}"


def true_place(path: str | Path) -> Path:
    """Where a store really lies: two names of one store must share its lock and its file system.

    Only a link that is the store itself is followed, and only a path without a name of its own,
    such as ``.``, is spelled out; any other stays as it was given.

    Raises:
        UsageError: it is an address.
    """
    refuse_address(path)
    given = Path(path)
    return given.resolve() if given.is_symlink() or given.name in ("", "..") else given


_LITTER = re.compile(r"\.DS_Store$|\._|Thumbs\.db$|desktop\.ini$", re.IGNORECASE)
"""Files that a look into a folder leaves there. Other hidden ones count: places must not move."""


def _identity(directory: Path) -> list[list[str | int]]:
    if directory.is_file():  # a `scene` of one's own: two megabytes
        return [["file", hashlib.blake2b(directory.read_bytes(), digest_size=8).hexdigest()]]
    # Names, sizes and the configuration, not the weights: the path must cost nothing. The
    # guide's fingerprint, which does read the weights, decides whether a store fits.
    files = sorted(p for p in directory.iterdir() if p.is_file() and not _LITTER.match(p.name))
    listed: list[list[str | int]] = [[path.name, path.stat().st_size] for path in files]
    config = directory / "config.json"
    return [*listed, ["config", hashlib.blake2b(config.read_bytes(), digest_size=8).hexdigest()]]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a store was built from; None where nothing says so.

    Attributes:
        dataset: the dataset's name.
        split: ``"train"`` or ``"test"``.
        guide: the guide's name.
        prompt: what the guide was asked.
        joint: which of its tokens were pooled to ``joint``.
        dtype: the guide's precision.
        certain: whether an undamaged root says so; otherwise it is a guess to be tried.
    """

    dataset: str | None = None
    split: str | None = None
    guide: str | None = None
    prompt: str | None = None
    joint: str | None = None
    dtype: str | None = None
    certain: bool = False

    @property
    def known(self) -> bool:
        """Whether it names a dataset, a split and a guide."""
        return None not in (self.dataset, self.split, self.guide)


def origins(path: Path) -> Iterator[Origin]:
    """What the root of the store at ``path`` says; where it is damaged, guesses, best first.

    A guess may be wrong: the store's id, which every other file of it bears, decides.

    Raises:
        CacheError: there is no such folder.
        OtherVersionError: another version of mmfe wrote it.
    """
    if not path.is_dir():
        raise no_root(Storage(path), path)
    try:
        data = (path / METADATA_FILE).read_bytes()
    except OSError:
        data = b""
    try:
        root = StoreMetadata.read(data, str(path))
    except OtherVersionError:
        raise
    except CacheError:
        text = _from_text(data.decode(errors="replace"))
        yield text
        # The default place is cache/<dataset>/<split>/<guide>.zarr.
        place = path.resolve()
        if place.parent.name in ("train", "test"):
            named = (place.parent.parent.name, place.parent.name, place.stem)
            if not text.known:
                yield replace(
                    text,
                    dataset=text.dataset or named[0],
                    split=text.split or named[1],
                    guide=text.guide or named[2],
                )
            yield Origin(*named)
        return
    prompt, joint, dtype = (root.fingerprint.get(name) for name in ("prompt", "joint", "dtype"))
    yield Origin(root.dataset, root.split, root.guide, prompt, joint, dtype, certain=True)


def no_root(storage: Storage, path: str | Path) -> CacheError:
    """The error for a store without its root: one that was damaged, or none at all."""
    try:
        damaged = SAMPLES in storage.folders()
    except (FileNotFoundError, CacheError):
        damaged = False
    if damaged:
        return CacheError(
            f"{path} lacks its root, the file {METADATA_FILE}",
            expected=f"what belongs to the folder {SAMPLES} that lies there",
            remedy=repair_command(path),
        )
    return CacheError(
        f"there is no cache at {path}",
        expected=f"a folder that holds a {METADATA_FILE}",
        remedy="mmfe cache build --dataset NAME",
    )


def _from_text(text: str) -> Origin:
    # By their indentation: the guide's own fingerprint may hold equal names one level deeper.
    def value(name: str, depth: int) -> str | None:
        found = re.search(rf'^ {{{depth}}}"{name}": (".*"),?$', text, re.MULTILINE)
        try:
            return None if found is None else str(json.loads(found[1]))
        except ValueError:
            return None

    return Origin(
        value("dataset", 6),
        value("split", 6),
        value("guide", 6),
        value("prompt", 8),
        value("joint", 8),
        value("dtype", 8),
    )
