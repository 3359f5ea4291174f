"""Folders of trained networks: shipped ones, runs', the Hub's; where guides lie; without torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mmfe_cache.embeddings import DEFAULT_PROMPT
from mmfe_cache.errors import ModelError, UsageError
from mmfe_cache.guides.registry import GUIDES
from mmfe_cache.guides.timm_models import RANDOM, TIMM
from mmfe_cache.parsing import parse_json
from mmfe_cache.places import RUNS

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import Recipe

DEFAULT = "mmfe-small"
"""What `mmfe restore` uses unless a checkpoint is named."""

_FILES = (".safetensors", ".pth", ".pt", ".ckpt")
"""How files of weights end: ``weights/restormer.pth`` names no repository."""
_INDEX = "index.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
GUIDE_PATH = "guide_path"
"""The key of config.json that says where a guide of the user's own lay in training."""
GUIDE_FINGERPRINT = "guide_fingerprint"
"""The key of config.json that says how the guide of training saw."""


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
        path = self.folder / WEIGHTS
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


def shown_name(folder: Path) -> str:
    """How people are told of a network: by the name of a shipped one, else by its folder.

    Raises:
        ModelError: the package's list of shipped networks is damaged.
    """
    for name, model in shipped_models().items():
        if model.folder == folder:
            return name
    return str(folder)


def newest_checkpoint() -> Path:
    """The ``model/`` folder of the run that finished last.

    Raises:
        UsageError: no run under `RUNS` is finished.
    """
    runs, finished = RUNS.folder, finished_runs()
    if not finished:
        raise UsageError(
            f"there is no finished run under {runs}",
            expected=f"{runs}/NAME/model/{CONFIG}",
            remedy="mmfe train --recipe NAME, or name one with --checkpoint PATH",
        )
    return max((run / "model" / CONFIG for run in finished), key=lambda p: p.stat().st_mtime).parent


def finished_runs() -> list[Path]:
    """The folders of finished runs under `RUNS`, one to three levels deep, sorted.

    They are NAME of `mmfe train`, TABLE/ROW of `mmfe ablate`, and set-HASH/TABLE/ROW of
    `mmfe ablate --set`.
    """
    configs = [
        path
        for above in ("*", "*/*", "*/*/*")
        for path in RUNS.folder.glob(f"{above}/model/{CONFIG}")
    ]
    return sorted(path.parent.parent for path in configs)


def is_repository(name: str) -> bool:
    """Whether ``name`` is ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the Hugging Face Hub.

    A run's folder such as ``runs/demo`` looks like one: only what is no path at all is one.
    """
    repository = name.partition("@")[0]
    above = Path(repository).parent
    return (
        repository.count("/") == 1
        and not repository.startswith((".", "/", "~"))
        and not above.exists()
        and above != RUNS.folder
    )


def hub_folder(name: str, **options: Any) -> Path:
    """The folder of a network on the Hugging Face Hub, downloaded where it is not here yet.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, as `is_repository` tells.
        options: of `huggingface_hub.snapshot_download`, such as ``revision``.

    Raises:
        ModelError: there is no such repository or revision, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, at, revision = name.partition("@")
    if at:
        options = {"revision": revision, **options}
    try:
        found = snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, CARD], **options)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as problem:
        said = next(iter(str(problem).splitlines()), "")
        raise ModelError(
            f"{name} is neither a folder nor a repository that could be downloaded",
            got=said.removeprefix("Got: ") or type(problem).__name__,
            expected="a checkpoint folder, or owner/name[@revision] on the Hugging Face Hub",
            remedy="check the name and the connection; a private one needs: hf auth login",
        ) from problem
    return Path(found)


def model_folder(source: str | Path) -> Path:
    """The ``save_pretrained`` folder that ``source`` means.

    Args:
        source: itself such a folder; a run's folder, whose ``model/`` is meant; the name of a
            network that comes with the package, such as ``mmfe-small``; or one on the Hugging
            Face Hub, which is downloaded: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Raises:
        UsageError: it is none of these.
        ModelError: a shipped network is damaged, or the Hub does not give it.
    """
    shipped = shipped_folder(str(source))
    if shipped is not None:
        return shipped
    if is_repository(str(source)):
        return hub_folder(str(source))
    path = Path(source)
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "checkpoints").is_dir():
        raise UsageError(
            f"the run {path} is not finished",
            got=f"no {path / 'model'}",
            remedy=f"mmfe train --recipe '{path}/recipe.yaml' --out '{path}' "
            "with its --root and --cache",
        )
    raise UsageError(
        f"there is no checkpoint at {path}",
        got="a folder without config.json" if path.is_dir() else "no such folder",
        expected=f"a run's folder, one that holds {CONFIG} and {WEIGHTS}, a name of "
        "`mmfe model list`, or OWNER/NAME on the Hugging Face Hub",
        remedy="mmfe model list shows those that come with mmfe; mmfe train makes one",
    )


def guide_record(name: str, folder: Path) -> dict[str, str] | None:
    """Where the guide ``name`` lies, for the config.json in ``folder``.

    Returns:
        Its absolute path, and the one from ``folder``, which holds where both have moved
        together; there is none to another drive of Windows. None for a guide of the registry, and
        where there is none.
    """
    _, path = split_guide(name)
    if path is None or not path.exists():
        return None
    absolute = path.resolve()
    try:
        relative = os.path.relpath(absolute, folder.resolve())
    except ValueError:
        return {"absolute": str(absolute)}
    return {"absolute": str(absolute), "relative": relative}


def split_guide(name: str) -> tuple[str, Path | None]:
    """A guide's name as what stands before a path in it, and that path.

    The path is None for a guide that is none of the user's own: one of the registry, or an
    encoder of timm with its published weights.
    """
    if name.startswith(TIMM):
        encoder, equals, weights = name.partition(",weights=")
        return encoder + equals, Path(weights) if weights and weights != RANDOM else None
    return "", None if name in GUIDES else Path(name)


def name_of_guide(name: str) -> str:
    """A guide's name as others may read it: of a path of this machine its last part alone."""
    before, path = split_guide(name)
    if path is None:
        return name
    # A file of the Hugging Face cache is a link, whose target bears a hash for a name.
    last = path.name if path.name not in ("", "..") else path.resolve().name
    # One of the user's own that is called as one of the registry is not taken for that.
    return before + (f"./{last}" if last in GUIDES else last)


def find_recorded_guide(recipe: Recipe, config: Mapping[str, Any], folder: Path) -> Recipe:
    """``recipe`` with its guide's name as it is to be found from here, and asked as in training.

    A recipe keeps the path that it was given, which may hold in its own working directory only. Nor
    need it name a prompt, where training was given its one store: the guide's recorded fingerprint
    does.

    Args:
        recipe: of the checkpoint.
        config: its config.json; what `guide_record` says stands under `GUIDE_PATH`.
        folder: where that lies.

    Returns:
        The recipe as it is where its guide lies where it says, or nothing else is recorded. Where
        the guide is nowhere, the recipe names the absolute path at which it lay in training.
    """
    recipe = with_trained_prompt(recipe, config.get(GUIDE_FINGERPRINT))
    recorded = config.get(GUIDE_PATH)
    before, named = split_guide(recipe.guide.name)
    if not isinstance(recorded, dict) or named is None:
        return recipe
    places = [Path(str(recorded.get("absolute")))]
    if "relative" in recorded:
        places.append(folder / str(recorded["relative"]))
    found = next((place for place in places if place.exists()), places[0])
    if named.exists() and (not found.exists() or named.samefile(found)):
        return recipe
    return replace(recipe, guide=replace(recipe.guide, name=f"{before}{found.resolve()}"))


def recorded_guide(folder: Path) -> dict[str, Any] | None:
    """How the guide saw that the network in ``folder`` was trained with.

    Returns:
        ``guide.*`` keys, as a store's fingerprint has them; None where config.json does not say,
        or cannot be read.
    """
    try:
        found = parse_json((folder / CONFIG).read_bytes()).get(GUIDE_FINGERPRINT)
    except (OSError, ValueError, AttributeError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def with_trained_prompt(recipe: Recipe, fingerprint: object) -> Recipe:
    """``recipe`` with the prompt of the guide's recorded ``fingerprint``, where it names none."""
    if not isinstance(fingerprint, dict):
        return recipe
    prompt = cast("dict[str, Any]", fingerprint).get("guide.prompt")
    if recipe.guide.prompt is not None or not isinstance(prompt, str) or prompt == DEFAULT_PROMPT:
        return recipe
    return replace(recipe, guide=replace(recipe.guide, prompt=prompt))


def find_model(name: str) -> Path | str:
    """What `Restorer.from_pretrained` takes for a network that a user named.

    Args:
        name: a network of the package, a run's folder, its ``model/``, or ``OWNER/NAME`` or
            ``OWNER/NAME@REVISION`` on the Hugging Face Hub.

    Returns:
        A folder, or the name of a network that is shipped or lies on the Hub.

    Raises:
        UsageError: it is none of these.
        ModelError: a shipped network is damaged.
    """
    if shipped_folder(name) is not None or is_repository(name):
        return name
    return model_folder(name)


def recipe_of(folder: Path, recipe: Recipe | None = None) -> Recipe:
    """The recipe that the network in a ``save_pretrained`` folder was trained by.

    Args:
        folder: see `model_folder`.
        recipe: takes the place of the recorded one.

    Raises:
        ModelError: its config.json is unreadable or holds no recipe.
    """
    from mmfe_restore.recipes import recipe_from_dict

    if recipe is not None:
        return with_trained_prompt(recipe, recorded_guide(folder))
    path = folder / CONFIG
    try:
        config = parse_json(path.read_bytes(), path)
    except (OSError, ValueError) as problem:
        raise ModelError(
            f"{path} cannot be read", got=problem, remedy="copy or download its folder again"
        ) from None
    recorded = config.get("recipe") if isinstance(config, dict) else None
    if not isinstance(recorded, dict):
        raise ModelError(
            f"{path} does not say which recipe trained the model",
            expected="a key 'recipe', as mmfe train writes it",
            remedy="give it with --recipe NAME",
        )
    return find_recorded_guide(recipe_from_dict(recorded), config, folder)


def find_weights(init_from: str | Path, *, needed: bool = True) -> Path:
    """The file that ``--init-from`` means.

    Args:
        init_from: a file; a run's folder or its ``model/``; the name of a network that comes with
            the package; or one on the Hugging Face Hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``,
            which is downloaded.
        needed: whether they will be read; a run that goes on does not need them, and downloads
            none.

    Returns:
        The file of its weights; ``init_from`` itself where it is none of these.

    Raises:
        ModelError: a shipped network is damaged, or the Hub does not give it.
    """
    name, path = str(init_from), Path(init_from)
    shipped = shipped_folder(name)
    folders = (shipped,) if shipped is not None else (path, path / "model")
    for folder in folders:
        if (folder / WEIGHTS).is_file():
            return folder / WEIGHTS
    if path.suffix not in _FILES and is_repository(name):
        try:
            return hub_folder(name, local_files_only=not needed) / WEIGHTS
        except ModelError:
            if needed:
                raise
    return path
