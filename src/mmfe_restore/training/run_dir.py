"""A run's folder: what stands in it and how it is written."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mmfe_cache.errors import CacheError, DataError, UsageError
from mmfe_cache.guides.lineage import differing_keys, guide_fingerprint
from mmfe_cache.io import draft_folder, remove_drafts, write_file, write_json
from mmfe_cache.lock import locked
from mmfe_cache.machine import has_gpu
from mmfe_cache.parsing import DuplicateKeyError, flatten, parse_json, parse_yaml
from mmfe_cache.places import RUNS
from mmfe_restore.model.folders import GUIDE_FINGERPRINT
from mmfe_restore.recipes import recipe_from_dict, recipe_settings, recipe_to_dict
from mmfe_restore.recipes.checks import UnknownKeyError
from mmfe_restore.recipes.loading import EXECUTION_KEYS, defining_overrides
from mmfe_restore.recipes.schema import Recipe

if TYPE_CHECKING:
    from mmfe_restore.model import Restorer

RECIPE = "recipe.yaml"
VERSIONS = "versions.json"
METRICS = "metrics.csv"
CHECKPOINTS = "checkpoints"
MODEL = "model"
BEST = "best"
LOCK = "train.lock"
WANDB_ID = "wandb.id"
"""Names the run at Weights & Biases, wherever its folder lies."""
PIXELS = "samples.pixels"
"""What a run's record calls the pixels that it saw: its cache's, or a few of the data set's."""

_PACKAGES = ("mmfe", "torch", "lightning", "numpy", "zarr", "pytorch-wavelets", "torchmetrics")


def default_folder(name: str, overrides: Sequence[str]) -> Path:
    """The recipe's name among the runs, with a short hash where there are overrides.

    Of a YAML file it is the file's name without its folders. `EXECUTION_KEYS` do not count, so that
    a run goes on with others. Where either was otherwise once, and a run lies there, that is the
    folder.
    """
    before = name.removesuffix(".yaml").replace("/", "-")
    now = Path(name).stem if name.endswith(".yaml") else before
    folders = [
        _hashed(place, sets)
        for place in (before, now)
        for sets in (overrides, defining_overrides(overrides))
    ]
    return next((folder for folder in folders if (folder / RECIPE).exists()), folders[-1])


def _hashed(folder: str, overrides: Sequence[str]) -> Path:
    if overrides:
        digest = hashlib.blake2b("\n".join(sorted(overrides)).encode(), digest_size=4)
        folder = f"{folder}-{digest.hexdigest()}"
    return RUNS.folder / folder


def locked_run(out: Path) -> AbstractContextManager[str | None]:
    """The only right to train in ``out``; see `mmfe_cache.lock.locked`.

    Raises:
        UsageError: another training is writing there.
    """
    return locked(out, file=out / LOCK, work="training", error=UsageError)


def claim(out: Path, recipe: Recipe) -> str:
    """Make ``out`` the folder of a run of ``recipe``; a folder of the same run is taken up.

    Returns:
        which `EXECUTION_KEYS` an unfinished run goes on with instead of those before; empty where
        they are the same.

    Raises:
        UsageError: as `check_claim`.
    """
    changed = check_claim(out, recipe)
    if changed is None:
        (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_file(out / WANDB_ID, secrets.token_hex(8))
    if changed != "":
        _write_recipe(out / RECIPE, recipe)
    return changed or ""


def check_claim(out: Path, recipe: Recipe) -> str | None:
    """What `claim` returns or refuses; nothing is written. None where no run is there yet.

    Raises:
        UsageError: the folder holds another recipe's run, or a folder of somebody else's that
            the run would replace.
    """
    file = out / RECIPE
    if file.exists():
        try:
            there = recipe_from_dict(parse_yaml(file.read_text(encoding="utf-8"), file))
        except DuplicateKeyError:
            raise
        except UnknownKeyError as problem:
            raise UsageError(
                f"{file} has a key that this version of mmfe does not know",
                got=f"{problem.got}, written by mmfe {_written_by(out)}",
                expected=f"keys of mmfe {metadata.version('mmfe')}",
                remedy="choose another --out, or go on with the version that began the run",
            ) from None
        except (UsageError, yaml.YAMLError, TypeError, ValueError):
            there = None
        # Keys that the file lacks, since a later version added them, have taken their defaults.
        if there is None or recipe_settings(there) != recipe_settings(recipe):
            raise UsageError(
                f"{out} holds a run of another recipe",
                got=f"an unreadable {RECIPE}"
                if there is None
                else _difference(recipe_settings(there), recipe_settings(recipe)),
                remedy="choose another --out, or remove the folder",
            )
        if (out / MODEL).exists():
            return ""  # trained already, with what the file says
        return _difference(_execution(there), _execution(recipe))
    strange = [name for name in (MODEL, BEST) if (out / name).exists()]
    if strange:
        raise UsageError(
            f"{out} is not the folder of a run, and training would replace what is in it",
            got=", ".join(str(out / name) for name in strange),
            expected=f"a new folder, or a run's with its {RECIPE}",
            remedy="choose another --out",
        )
    return None


def check_one_start(
    out: Path, resume: Literal["auto"] | Path | None, init_from: Path | None
) -> None:
    """Refuse a checkpoint and first weights at once, but for a run that recorded both; as `train`.

    Raises:
        UsageError: both are given, and nothing in ``out`` says that its run began so.
    """
    if isinstance(resume, Path) and init_from is not None and not (out / VERSIONS).exists():
        raise UsageError(
            "a run begins with a checkpoint's weights or with those of --init-from",
            got=f"--resume {resume} and --init-from {init_from}, and no run in {out} yet",
            expected="one of them",
            remedy="leave one of them out",
        )


def _write_recipe(file: Path, recipe: Recipe) -> None:
    text = yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False, allow_unicode=True)
    write_file(file, text)


def _written_by(out: Path) -> str:
    try:
        return str(parse_json((out / VERSIONS).read_bytes())["packages"]["mmfe"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another version"


def _execution(recipe: Recipe) -> dict[str, Any]:
    settings = flatten(recipe_to_dict(recipe))
    return {key: settings[key] for key in EXECUTION_KEYS}


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    theirs, ours = flatten(there), flatten(here)
    keys = [key for key in ours if theirs.get(key) != ours[key]]
    return ", ".join(f"{key}={theirs.get(key)!r} (now {ours[key]!r})" for key in keys[:5])


def wandb_id(out: Path) -> str:
    """What Weights & Biases calls the run in ``out``; of earlier versions, its path's hash."""
    try:
        return (out / WANDB_ID).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return hashlib.blake2b(str(out.resolve()).encode(), digest_size=8).hexdigest()


def holds_model(out: Path) -> bool:
    """Whether the run in ``out`` has ended and left its model."""
    return (out / MODEL / "config.json").exists()


def clear(out: Path) -> list[str]:
    """Remove what an earlier run left in ``out``; files of other makers stay.

    Returns:
        the reports that judged its model, which go with it: they would be taken for the new one's.
    """
    if not (out / RECIPE).exists():
        return []  # no run of ours: a folder "model" in it is somebody else's
    reports = _remove_reports(out)
    for name in (CHECKPOINTS, MODEL, BEST, "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (RECIPE, VERSIONS, METRICS, WANDB_ID, "router.csv", "validation.csv"):
        (out / name).unlink(missing_ok=True)
    return reports


def give_up_model(out: Path) -> list[str]:
    """Remove the model of the run in ``out``, which is to train on, and the reports that judged it.

    Returns:
        the folders that went; none where there is no model.
    """
    if not (out / MODEL).exists():
        return []
    # The model last: a process that is killed in between finds it there, and removes the rest.
    gone = [*_remove_reports(out), str(out / MODEL)]
    shutil.rmtree(out / MODEL, ignore_errors=True)
    return gone


def _remove_reports(out: Path) -> list[str]:
    # Where `mmfe eval` and `mmfe ablate` put them.
    reports = [file.parent for file in sorted(out.glob("eval*/*/metrics.json"))]
    for report in reports:
        shutil.rmtree(report, ignore_errors=True)
    return [str(report) for report in reports]


def record_versions(
    out: Path,
    recipe: Recipe,
    cache: Mapping[str, Any] | None,
    world_size: int,
    *,
    data: Mapping[str, str] | None,
    init_from: Path | None,
    resumed: bool,
) -> None:
    """Write what the run's result depends on; `versions` says what that is.

    ``cache`` is `Inputs.identity`, ``data`` `Inputs.data_identity`; one of them is None.

    Raises:
        MmfeError: as `check_resumed`, where the run is ``resumed``.
    """
    file = out / VERSIONS
    now = json.loads(json.dumps(versions(recipe, cache, data, world_size, init_from), default=str))
    if resumed and file.exists():
        now["init_from"] = check_resumed(out, cache, data, init_from)
    write_json(file, now)


def check_resumed(
    out: Path,
    cache: Mapping[str, Any] | None,
    data: Mapping[str, str] | None,
    init_from: Path | None,
) -> dict[str, Any] | None:
    """Hold a run that goes on to its record; the arguments are those of `record_versions`.

    Returns:
        the weights that the run began with; None for random ones, or where nothing is recorded.

    Raises:
        CacheError: it would read other embeddings than it began with.
        DataError: without a guide, it would see other pictures than it began with.
        UsageError: it began with other weights than ``init_from``, or its record is damaged.
    """
    before = check_record(out, cache, data)
    first = before.get("init_from")
    # The weights are in the checkpoint by now: their file need not be there any more.
    given = {} if not before or init_from is None else _identity(init_from)
    if given.get("sha256") not in (None, (first or {}).get("sha256")):
        raise UsageError(
            "the run did not begin with the weights of --init-from",
            got=given,
            expected="random weights" if first is None else first,
            remedy="leave --init-from out, choose another --out, or begin anew with --resume none",
        )
    return first


def check_record(
    out: Path, cache: Mapping[str, Any] | None, data: Mapping[str, str] | None
) -> dict[str, Any]:
    """Compare what the run in ``out`` recorded of its cache or data set with these.

    Returns:
        the record; nothing in it where an earlier version left none.

    Raises:
        CacheError: the run read other embeddings.
        DataError: without a guide, it saw other pictures.
        UsageError: its record is damaged.
    """
    file = out / VERSIONS
    if not file.exists():
        return {}
    before = _read_versions(file)
    began: dict[str, Any] = before.get("cache") or {}
    reads: dict[str, Any] = json.loads(json.dumps(cache or {}, default=str))
    if PIXELS not in began:  # a run that an earlier version began
        reads.pop(PIXELS, None)
    other = differing_keys(began, reads)
    if other:
        raise CacheError(
            "the cache is not the one that this run began with",
            got=", ".join(f"{key}={reads.get(key)!r}" for key in other[:4]),
            expected=", ".join(f"{key}={began.get(key)!r}" for key in other[:4]),
            remedy="give the run its cache back, or begin anew with --resume none",
        )
    # A run that an earlier version began recorded nothing of this.
    seen, sees = before.get("data") or {}, data or {}
    other = sorted(k for k in seen.keys() & sees.keys() if seen[k] != sees[k])
    if other:
        raise DataError(
            "the data set is not the one that this run began with",
            got=", ".join(f"{key}={sees[key]!r}" for key in other),
            expected=", ".join(f"{key}={seen[key]!r}" for key in other),
            remedy="give the run its data set back (--root), choose another --out, or begin "
            "anew with --resume none",
        )
    return before


def recorded_threads(out: Path) -> int | None:
    """The number of threads that the run in ``out`` computes on; None where nothing says it."""
    try:
        found = parse_json((out / VERSIONS).read_bytes())["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def _read_versions(file: Path) -> dict[str, Any]:
    try:
        values = parse_json(file.read_bytes(), file)
        _ = values.get("cache"), values.get("init_from"), (values.get("data") or {}).keys()
    except (ValueError, AttributeError) as problem:
        raise UsageError(
            f"{file} cannot be read, so nobody can tell whether cache and data are the run's",
            got=f"{type(problem).__name__}: {problem}",
            remedy=f"remove {file} to go on without that check",
        ) from None
    return values


def versions(
    recipe: Recipe,
    cache: Mapping[str, Any] | None,
    data: Mapping[str, str] | None,
    world_size: int,
    init_from: Path | None,
) -> dict[str, Any]:
    """What a result depends on besides the recipe: versions, seed, machine, data, weights."""
    import torch

    installed: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return {
        "packages": installed,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if has_gpu() else "cpu",
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "seed": recipe.train.seed,
        "cache": None if cache is None else dict(cache),
        "data": None if data is None else dict(data),
        "init_from": None if init_from is None else _identity(init_from),
    }


def _identity(weights: Path) -> dict[str, str | None]:
    if not weights.is_file():
        return {"file": str(weights), "sha256": None}
    with weights.open("rb") as stream:
        return {"file": str(weights), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def write_model(
    final: Path, restorer: Restorer, recipe: Recipe, cache: Mapping[str, Any] | None
) -> None:
    """Write a model's folder aside and rename it, so that it is there whole or not at all.

    Its config.json also says whose embeddings the network learnt to read
    (``guide_fingerprint``), so that evaluation can refuse others.

    Args:
        final: the folder; one that is there is replaced.
        restorer: the network.
        recipe: that it was trained by.
        cache: the training store's fingerprint; None for an unguided network.
    """
    remove_drafts(final.parent)  # a training that was killed while it wrote leaves one
    with draft_folder(final) as draft:
        restorer.save_pretrained(draft, recipe=recipe)
        if cache is not None:
            config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
            config[GUIDE_FINGERPRINT] = guide_fingerprint(cache)
            write_json(draft / "config.json", config)
