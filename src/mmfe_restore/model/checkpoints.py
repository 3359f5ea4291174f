"""Restorers on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save as to_bytes

from mmfe_cache.errors import MmfeError, ModelError, UsageError
from mmfe_cache.io import write_file
from mmfe_cache.parsing import DuplicateKeyError, parse_json
from mmfe_restore.model.card import model_card
from mmfe_restore.model.folders import (
    CARD,
    CONFIG,
    GUIDE_FINGERPRINT,
    GUIDE_PATH,
    WEIGHTS,
    find_recorded_guide,
    guide_record,
    hub_folder,
    is_repository,
    name_of_guide,
    recorded_guide,
    shipped_folder,
)
from mmfe_restore.recipes.schema import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.recipes.schema import Recipe


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name to tensor, from .safetensors, or from a pickle that is read with ``weights_only=True``.

    Args:
        path: the state dict itself, or one under ``params`` or ``state_dict``; a step of a run that
            is not finished (``checkpoints/step-….ckpt``) gives its network's.

    Raises:
        ModelError: there is no such file, it is damaged, or it holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(
            f"there are no weights at {path}", expected="a .safetensors or .pth file"
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as problem:
        raise ModelError(
            f"{path} is damaged or not a file of weights",
            got=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
            remedy="copy or download the file again",
        ) from problem
    except Exception as problem:  # pickle.UnpicklingError and whatever a hostile pickle raises
        raise ModelError(
            f"{path} holds more than tensors and is refused",
            got=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
            expected="tensors only, as torch.load(weights_only=True) reads them",
            remedy="save its state dict alone, best as .safetensors",
        ) from problem
    for key in ("params", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise ModelError(
            f"{path} holds no state dict", got=type(loaded).__name__, expected="name to tensor"
        )
    state = cast("dict[str, Tensor]", loaded)
    if state and all(name.startswith(_OF_A_RUN) for name in state):
        return {name.removeprefix(_OF_A_RUN): tensor for name, tensor in state.items()}
    return state


_OF_A_RUN = "restorer."
"""What a run's Lightning module calls its network."""


def check_fit(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Refuse weights that are not exactly those of ``network``.

    Args:
        network: to be loaded.
        state: name to tensor.
        path: where they come from, for the message.

    Raises:
        ModelError: names missing or foreign, or tensors of another shape or type.
    """
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} where {tuple(tensor.shape)} belongs"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    shapes += [
        f"{name} of {state[name].dtype}"
        for name in own
        if name in state and not state[name].is_floating_point()
    ]
    if not (missing or foreign or shapes):
        return
    kinds = {"missing": missing, "foreign": foreign, "of another shape or type": shapes}
    found = [f"{len(n)} {what}, such as {n[0]}" for what, n in kinds.items() if n]
    raise ModelError(
        f"the weights in {path} are another network's",
        got="; ".join(found),
        expected=f"the {len(own)} tensors of its configuration",
        remedy="use the config.json or the recipe that these weights were trained with",
    )


GUIDED = ("mgfb.", "mofe.", "null_guidance.")
"""How the names of weights begin that Restormer has none of."""
FORMAT = 1
"""The version of config.json; raised when an older reader could not understand it."""


def save(
    restorer: Restorer,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    says_where: bool = True,
) -> None:
    """Write ``restorer`` to ``folder``; each file appears whole or not at all.

    Args:
        restorer: what to save; its own recipe is taken where ``recipe`` is None.
        folder: made where it does not exist; files of these names are replaced.
        recipe: kept whole in config.json, so that a reader knows guide, views and training.
        says_where: whether config.json says where a guide of the user's own lies on this machine.
    """
    from mmfe_restore.recipes import recipe_to_dict

    recipe = recipe or restorer.recipe
    if recipe is not None:
        recipe = replace(recipe, model=restorer.config)  # whose windows may have been changed
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "format": FORMAT,
        "mmfe": version("mmfe"),
        "model": asdict(restorer.config),
    }
    if recipe is not None:
        config["recipe"] = recipe_to_dict(recipe)
        record = guide_record(recipe.guide.name, folder)
        if record is not None and says_where:
            config[GUIDE_PATH] = record
    if restorer.guide_fingerprint is not None:
        config[GUIDE_FINGERPRINT] = restorer.guide_fingerprint
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in restorer.state_dict().items()
    }
    # Not safetensors' save_file: its error on a full disk is no OSError and names no file.
    write_file(folder / WEIGHTS, to_bytes(state, metadata={"format": "pt"}))
    write_file(folder / CARD, model_card(restorer, recipe))
    # config.json is last: a folder without it is not taken for a checkpoint.
    write_file(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load(
    restorer_class: type[Restorer],
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Restorer:
    """Load a folder that `save` wrote, or a repository of the Hugging Face Hub.

    Args:
        restorer_class: what is made.
        source: a folder, ``"owner/name"`` or ``"owner/name@revision"``, or the name of a network
            that comes with the package, such as ``"mmfe-small"``.
        device: where the weights go.
        revision: of a repository; takes the place of the one after ``@``.
        token: of the Hub, as for `huggingface_hub.snapshot_download`; like the next three of no
            meaning for a network that is here.
        cache_dir: likewise.
        force_download: likewise.
        local_files_only: likewise.

    Returns:
        In evaluation mode; ``.recipe`` is set where config.json holds one.

    Raises:
        ModelError: no such folder, a damaged or foreign one, weights that do not fit.
        UsageError: a revision of what lies in no repository.
    """
    folder, named = shipped_folder(source), str(source)
    if folder is None and is_repository(named):
        options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        folder = hub_folder(
            named, **{name: value for name, value in options.items() if value is not None}
        )
    elif revision is not None:
        raise UsageError(
            f"{named} is no repository of the Hugging Face Hub: it has no revisions",
            got=f"revision={revision!r}",
            expected="OWNER/NAME",
            remedy="leave revision out",
        )
    folder = folder or Path(source)
    config, recipe = read_config(folder)
    with torch.device("meta"):
        restorer = restorer_class(config)
    state = read_weights(folder / WEIGHTS)
    # Shipped weights are float16 to be small; every float16 is exact in float32.
    state = {name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()}
    check_fit(restorer, state, folder / WEIGHTS)
    restorer.load_state_dict(state, assign=True)
    restorer.requires_grad_(True)
    restorer.recipe = recipe
    restorer.guide_fingerprint = recorded_guide(folder)
    return restorer.to(device).eval()


def read_config(folder: Path) -> tuple[ModelConfig, Recipe | None]:
    """The network and, where it is kept, the whole recipe of a checkpoint folder.

    Raises:
        ModelError: config.json is missing, damaged or of another program, or has keys that this
            version does not know. Keys that it lacks take their defaults: a later version that
            adds a setting still reads it.
    """
    from mmfe_restore.recipes import recipe_from_dict
    from mmfe_restore.recipes.checks import UnknownKeyError

    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a checkpoint folder",
            got=f"no {CONFIG} in it" if folder.is_dir() else "no such folder",
            expected=f"a folder with {CONFIG} and {WEIGHTS}, such as runs/NAME/model",
            remedy="mmfe train --recipe demo, or `mmfe demo` for the whole job",
        )
    values: dict[str, Any] = {}
    try:
        values = parse_json(path.read_bytes(), path)
        _check_format(values, path)
        if "recipe" in values:
            recipe = find_recorded_guide(recipe_from_dict(values["recipe"]), values, folder)
            return recipe.model, recipe
        return recipe_from_dict({"model": values["model"]}).model, None
    except (ModelError, DuplicateKeyError):
        raise
    except UnknownKeyError as problem:
        raise ModelError(
            f"{path} has a key that this version of mmfe does not know",
            got=f"{problem.got}, written by mmfe {_written_by(values)}",
            expected=f"keys of mmfe {version('mmfe')}",
            remedy=f"install the mmfe that wrote it: {_written_by(values)}",
        ) from None
    except (MmfeError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ModelError(
            f"{path} cannot be read as a restorer's configuration",
            got=(
                f"{problem.problem}: {problem.got}"
                if isinstance(problem, MmfeError)
                else f"{type(problem).__name__}: {problem}"
            ),
            expected="what Restorer.save_pretrained writes",
            remedy="copy or download its folder again",
        ) from problem


def _check_format(values: Any, path: Path) -> None:
    if values["format"] != FORMAT:
        raise ModelError(
            f"{path} is of another version", got=values["format"], expected=f"format {FORMAT}"
        )


def _written_by(values: Mapping[str, Any]) -> str:
    """The version of mmfe that wrote a config.json; folders before 0.2 do not say."""
    return str(values.get("mmfe", "0.1 or another version that did not say"))


def load_restormer(
    restorer_class: type[Restorer], path: str | Path, config: ModelConfig | None = None
) -> Restorer:
    """A new restorer whose backbone starts from Restormer's published weights.

    Args:
        restorer_class: what is made.
        path: a .pth file (unpickled with ``weights_only=True``, so no code of it runs) or
            .safetensors, holding the state dict itself or under ``params`` or ``state_dict``.
        config: the network; None is the unguided baseline. Its guided parts start as in a new
            network.

    Raises:
        ModelError: not such a file, or another network's weights.
    """
    if config is None:
        config = ModelConfig(encoder_guidance="none", decoder_guidance="none", experts="none")
    restorer = restorer_class(config)
    state = read_weights(Path(path))
    own = restorer.state_dict()
    complete = {**{k: v for k, v in own.items() if k.startswith(GUIDED)}, **state}
    check_fit(restorer, complete, Path(path))
    restorer.load_state_dict(complete)
    return restorer


def push(
    restorer: Restorer,
    repository: str,
    *,
    recipe: Recipe | None = None,
    private: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a restorer",
    create_pr: bool = False,
) -> str:
    """Upload ``restorer`` with its configuration and model card to the Hugging Face Hub.

    Nothing that is uploaded says where a guide of the user's own lies on this machine: of its path
    the last name alone is kept.

    Args:
        restorer: what to upload.
        repository: ``"owner/name"``; made where it does not exist.
        recipe: as for `save`.
        private: whether a repository that is made can be seen by its owner alone.
        token: of the Hub; None takes the one of ``hf auth login``.
        revision: the branch.
        commit_message: its first line.
        create_pr: open a pull request instead of committing to the branch.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    recipe = recipe or restorer.recipe
    if recipe is not None:
        name = name_of_guide(recipe.guide.name)
        recipe = replace(recipe, guide=replace(recipe.guide, name=name))
    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(restorer, folder, recipe, says_where=False)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return str(commit)
