"""What a store was built from, also where its root is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import CacheError
from mmfe_cache.store import documents
from mmfe_cache.store.metadata import SAMPLES, OtherVersionError, StoreMetadata
from mmfe_cache.store.storage import LocalStorage, Storage


@dataclass(frozen=True, slots=True)
class Origin:
    """What a store was built from; None where nothing says so.

    Attributes:
        dataset: the dataset's name.
        split: ``"train"`` or ``"test"``.
        guide: the guide's name.
        prompt: what the guide was asked.
        dtype: the guide's precision.
        certain: whether an undamaged root says so; otherwise it is a guess to be tried.
    """

    dataset: str | None = None
    split: str | None = None
    guide: str | None = None
    prompt: str | None = None
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
        raise no_root(LocalStorage(path), path)
    try:
        data = (path / documents.NAME).read_bytes()
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
                yield Origin(
                    text.dataset or named[0],
                    text.split or named[1],
                    text.guide or named[2],
                    text.prompt,
                    text.dtype,
                )
            yield Origin(*named)
        return
    prompt, dtype = (root.fingerprint.get(name) for name in ("prompt", "dtype"))
    yield Origin(root.dataset, root.split, root.guide, prompt, dtype, certain=True)


def no_root(storage: Storage, path: str | Path) -> CacheError:
    """The error for a store without its root: one that was damaged, or none at all."""
    try:
        damaged = SAMPLES in storage.folders()
    except (FileNotFoundError, CacheError):
        damaged = False
    if damaged:
        return CacheError(
            f"{path} lacks its root, the file {documents.NAME}",
            expected=f"what belongs to the folder {SAMPLES} that lies there",
            remedy=f"mmfe cache repair {path}",
        )
    return CacheError(
        f"there is no cache at {path}",
        expected=f"a folder that holds a {documents.NAME}",
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
        value("dtype", 8),
    )
