"""Where trained networks and their guides lie; apart from what opens them: it needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import UsageError
from mmfe_cache.guides.registry import GUIDES
from mmfe_cache.guides.timm_models import RANDOM, TIMM
from mmfe_cache.places import RUNS
from mmfe_restore.model.shipped import shipped_folder

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import Recipe

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GUIDE_PATH = "guide_path"
"""The key of config.json that says where a guide of the user's own lay in training."""


def newest_checkpoint(runs: Path | None = None) -> Path:
    """The ``model/`` folder of the run that finished last.

    Args:
        runs: where the runs lie; None for their default place.

    Raises:
        UsageError: no run under ``runs`` is finished.
    """
    runs = RUNS.folder if runs is None else runs
    finished = finished_runs(runs)
    if not finished:
        raise UsageError(
            f"there is no finished run under {runs}",
            expected=f"{runs}/NAME/model/{CONFIG}",
            remedy="mmfe train --recipe NAME, or name one with --checkpoint PATH",
        )
    return max((run / "model" / CONFIG for run in finished), key=lambda p: p.stat().st_mtime).parent


def finished_runs(runs: Path | None = None) -> list[Path]:
    """The folders of finished runs under ``runs``, one or two levels deep, sorted.

    Args:
        runs: where the runs lie; None for their default place.
    """
    runs = RUNS.folder if runs is None else runs
    configs = [*runs.glob(f"*/model/{CONFIG}"), *runs.glob(f"*/*/model/{CONFIG}")]
    return sorted(path.parent.parent for path in configs)


def model_folder(path: Path) -> Path:
    """The ``save_pretrained`` folder that ``path`` means.

    Args:
        path: itself such a folder; a run's folder, whose ``model/`` is meant; or the name of a
            network that comes with the package, such as ``mmfe-small``.

    Raises:
        UsageError: it is none of these.
        ModelError: a shipped network is damaged.
    """
    shipped = shipped_folder(str(path))
    if shipped is not None:
        return shipped
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
        expected=f"a run's folder, one that holds {CONFIG} and {WEIGHTS}, or a name of "
        "`mmfe model list`",
        remedy="mmfe train --recipe NAME --out RUN, then mmfe eval --checkpoint RUN",
    )


def guide_record(name: str, folder: Path) -> dict[str, str] | None:
    """Where the guide ``name`` lies, for the config.json in ``folder``.

    Returns:
        Its absolute path, and the one from ``folder``, which holds where both have moved
        together; None for a guide of the registry, and where there is none.
    """
    _, path = split_guide(name)
    if path is None or not path.exists():
        return None
    absolute = path.resolve()
    return {"absolute": str(absolute), "relative": os.path.relpath(absolute, folder.resolve())}


def split_guide(name: str) -> tuple[str, Path | None]:
    """A guide's name as what stands before a path in it, and that path.

    The path is None for a guide that is none of the user's own: one of the registry, or an
    encoder of timm with its published weights.
    """
    if name.startswith(TIMM):
        encoder, equals, weights = name.partition(",weights=")
        return encoder + equals, Path(weights) if weights and weights != RANDOM else None
    return "", None if name in GUIDES else Path(name)


def find_recorded_guide(recipe: Recipe, config: Mapping[str, Any], folder: Path) -> Recipe:
    """``recipe`` with its guide's name as it is to be found from here.

    A recipe keeps the path that it was given, which may hold in its own working directory only.

    Args:
        recipe: of the checkpoint.
        config: its config.json; what `guide_record` says stands under `GUIDE_PATH`.
        folder: where that lies.

    Returns:
        The recipe as it is where its guide lies where it says, or nothing else is recorded. Where
        the guide is nowhere, the recipe names the absolute path at which it lay in training.
    """
    recorded = config.get(GUIDE_PATH)
    before, named = split_guide(recipe.guide.name)
    if not isinstance(recorded, dict) or named is None:
        return recipe
    places = [Path(str(recorded.get("absolute"))), folder / str(recorded.get("relative"))]
    found = next((place for place in places if place.exists()), places[0])
    if named.exists() and (not found.exists() or named.samefile(found)):
        return recipe
    return replace(recipe, guide=replace(recipe.guide, name=f"{before}{found.resolve()}"))


def find_model(name: str) -> Path | str:
    """What `Restorer.from_pretrained` takes for a network that a user named.

    Args:
        name: a network of the package, a run's folder, its ``model/``, or ``OWNER/NAME`` on the
            Hugging Face Hub.

    Returns:
        A folder, or the name of a network that is shipped or lies on the Hub.

    Raises:
        UsageError: it is none of these.
        ModelError: a shipped network is damaged.
    """
    if shipped_folder(name) is not None:
        return name
    # Only what is no path at all may be a repository's name.
    if name.count("/") == 1 and not Path(name).parent.exists():
        return name
    return model_folder(Path(name))
