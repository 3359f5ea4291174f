"""Networks that come with the package: found by name, checked by hash, never downloaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mmfe_cache.errors import ModelError

DEFAULT = "mmfe-small"
"""What `mmfe restore` uses unless a checkpoint is named."""

_INDEX = "index.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A network inside the package.

    Attributes:
        name: as in ``Restorer.from_pretrained(name)``.
        description: one sentence.
        licence: of the weights.
        training_data: what it was trained on.
        sha256: of its weights, in hexadecimal.
        folder: a checkpoint folder, as ``save_pretrained`` writes it; its weights are float16.
    """

    name: str
    description: str
    licence: str
    training_data: str
    sha256: str
    folder: Path

    def check(self) -> None:
        """Make sure that the weights are the ones that were shipped.

        Raises:
            ModelError: the file is missing, damaged or of another version.
        """
        path = self.folder / _WEIGHTS
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as problem:
            raise ModelError(
                f"the weights of {self.name} are missing from the installed package",
                got=f"{path}: {problem.strerror or problem}",
                expected=f"a file with the SHA-256 {self.sha256}",
                remedy="install mmfe again",
            ) from problem
        if found != self.sha256:
            raise ModelError(
                f"the weights of {self.name} are not the ones that were shipped",
                got=f"{path} with the SHA-256 {found}",
                expected=f"SHA-256 {self.sha256}: the file is damaged or of another version",
                remedy="install mmfe again",
            )


def shipped_models() -> dict[str, ShippedModel]:
    """The networks inside the package, by name.

    Raises:
        ModelError: the package's list of them is damaged.
    """
    root = Path(str(resources.files("mmfe_restore"))) / "weights"
    try:
        listed = json.loads((root / _INDEX).read_text("utf-8"))
        return {
            name: ShippedModel(name=name, folder=root / name, **about)
            for name, about in listed.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise ModelError(
            "the list of networks in the installed package cannot be read",
            got=f"{root / _INDEX}: {problem}",
            remedy="install mmfe again",
        ) from problem


def shipped_folder(source: str | Path) -> Path | None:
    """The checkpoint folder that a shipped network's name means, its weights checked.

    Args:
        source: a name, or anything else.

    Returns:
        None where ``source`` is no such name; a folder of that name in the working directory
        does not take its place, which ``./NAME`` names.

    Raises:
        ModelError: the file is missing, damaged or of another version.
    """
    if not isinstance(source, str) or "/" in source:
        return None
    found = shipped_models().get(source)
    if found is None:
        return None
    found.check()
    return found.folder
