"""Where a figure's pictures come from: a run that restores them, or a folder of outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import IMAGE_SUFFIXES, read_rgb8
from mmfe_cache.samples import ImageArray, Sample, SampleSet
from mmfe_restore.evaluation.checkpoint import load_checkpoint
from mmfe_restore.evaluation.guidance import check_guidance, open_eval_cache
from mmfe_restore.evaluation.scores import to_tensor


@dataclass(frozen=True)
class Method:
    """A named way to get a sample's restored picture."""

    name: str
    restore: Callable[[Sample], ImageArray]


def named_path(text: str) -> tuple[str, Path]:
    """Read ``NAME=PATH`` or ``PATH``; the name is empty where none is given.

    What lies on the disk is a path, whatever its name holds.
    """
    path = Path(text)
    if "=" not in text or path.exists():
        return "", path
    name, _, given = text.partition("=")
    return name, Path(given)


def method_of(text: str, samples: SampleSet, cache: Path | None) -> Method:
    """Read ``NAME=PATH`` or ``PATH``: a run, a checkpoint, or a folder of another method's files.

    Raises:
        UsageError: there is nothing at PATH.
    """
    name, path = named_path(text)
    if not path.is_dir():
        raise UsageError(
            f"there is no method at {path}",
            got=repr(text),
            expected="NAME=RUN or NAME=FOLDER, a folder of restored images",
        )
    if (path / "config.json").is_file() or (path / "model" / "config.json").is_file():
        return _run(name or path.name, path, samples, cache)
    return Method(name or path.name, lambda sample: _from_folder(path, sample))


def _run(name: str, path: Path, samples: SampleSet, cache: Path | None) -> Method:
    opened = load_checkpoint(path)
    view = opened.recipe.eval.view
    store = open_eval_cache(opened.recipe, samples, view, cache)
    guidance = check_guidance(opened.restorer, opened.recipe, samples, store, view)
    place = {sample.id: index for index, sample in enumerate(samples)}

    def restore(sample: Sample) -> ImageArray:
        embeddings = None if guidance is None else guidance.read([place[sample.id]], view)
        with torch.inference_mode():
            image = opened.restorer(to_tensor(sample.degraded.read()), embeddings)
        rounded = (image[0].clamp(0, 1) * 255).round().byte()
        return np.ascontiguousarray(rounded.permute(1, 2, 0).numpy())

    return Method(name, restore)


def _from_folder(folder: Path, sample: Sample) -> ImageArray:
    stem = sample.id.rsplit("/", 1)[-1]
    wanted = [f"{sample.label}/{stem}", f"{sample.label}_{stem}", stem]
    for name in wanted:
        for suffix in IMAGE_SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return read_rgb8(path)
    raise DataError(
        f"{folder} holds no output for {sample.id}",
        expected=" or ".join(f"{name}.png" for name in wanted),
    )
