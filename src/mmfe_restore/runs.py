"""Where trained networks lie; apart from what opens them, so that it needs no torch."""

from __future__ import annotations

from pathlib import Path

from mmfe_cache.errors import UsageError
from mmfe_restore.model.shipped import shipped_folder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
RUNS = Path("runs")


def newest_checkpoint(runs: Path = RUNS) -> Path:
    """The ``model/`` folder of the run that finished last.

    Raises:
        UsageError: no run under ``runs`` is finished.
    """
    configs = [*runs.glob(f"*/model/{CONFIG}"), *runs.glob(f"*/*/model/{CONFIG}")]
    if not configs:
        raise UsageError(
            f"there is no finished run under {runs}",
            expected=f"{runs}/NAME/model/{CONFIG}",
            remedy="mmfe train --recipe NAME, or name one with --checkpoint PATH",
        )
    return max(configs, key=lambda path: path.stat().st_mtime).parent


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
