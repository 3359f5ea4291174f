"""Figures 3, 4, S1 and S2: methods side by side, with error maps below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import IMAGE_SUFFIXES, read_rgb8
from mmfe_cache.samples import ImageArray, Sample, SampleSet
from mmfe_restore.evaluation.inputs import (
    centre_crop,
    check_guidance,
    load_checkpoint,
    open_eval_cache,
)
from mmfe_restore.evaluation.report.pictures import ERROR_SCALE, mean_error
from mmfe_restore.evaluation.statistics import to_tensor, to_uint8
from mmfe_restore.figures.canvas import (
    WIDTH,
    Drawing,
    Table,
    bare,
    check_targets,
    in_our_style,
    new_figure,
    save,
    spelled_out,
)
from mmfe_restore.model.folders import recorded_guide, shipped_folder

# Inches: the classes at the left, between two pictures, the PSNR below a pair of rows.
_MARGIN, _GAP, _LABEL = 0.16, 0.02, 0.2


@dataclass(frozen=True)
class Method:
    """A named way to get a sample's restored picture, given what is judged of its input."""

    name: str
    restore: Callable[[Sample, ImageArray], ImageArray]


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

    A network of `mmfe model list` is a PATH too.

    Raises:
        UsageError: there is nothing at PATH.
    """
    name, path = named_path(text)
    shipped = shipped_folder(str(path))
    if shipped is not None:
        return _run(name or path.name, shipped, samples, cache)
    if not path.is_dir():
        raise UsageError(
            f"there is no method at {path}",
            got=repr(text),
            expected="NAME=RUN or NAME=FOLDER, a folder of restored images",
        )
    if (path / "config.json").is_file() or (path / "model" / "config.json").is_file():
        return _run(name or path.name, path, samples, cache)
    return Method(name or path.name, lambda sample, _: _from_folder(path, sample))


def _run(name: str, path: Path, samples: SampleSet, cache: Path | None) -> Method:
    import torch

    opened = load_checkpoint(path)
    view = opened.recipe.eval.view
    store = open_eval_cache(opened.recipe, samples, view, cache)
    guidance = check_guidance(
        opened.restorer, opened.recipe, samples, store, view, recorded_guide(opened.path)
    )
    place = {sample.id: index for index, sample in enumerate(samples)}

    def restore(sample: Sample, degraded: ImageArray) -> ImageArray:
        embeddings = None if guidance is None else guidance.read([place[sample.id]], view)
        with torch.inference_mode():
            image = opened.restorer(to_tensor(degraded), embeddings)
        return to_uint8(image[0].clamp(0, 1))

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


@in_our_style
def plot_errors(
    samples: Sequence[Sample],
    methods: Sequence[Method],
    out: Path,
    *,
    crop: int = 1,
    force: bool = False,
) -> Drawing:
    """Draw input, every method and the ground truth of each sample, error maps below.

    Darker is better, as in the paper. All maps share one scale. The PSNR is over RGB, of pictures
    of 8 bits, as those of other methods lie in files.

    Args:
        samples: each with a ground truth; two rows of the figure per sample.
        methods: in order, ours first or last.
        out: folder for errors.png, .svg and .csv.
        crop: pictures are centre-cropped to a multiple of this, as `evaluate` does; 1 keeps them
            whole. A method's files may be of either size.
        force: write over figures that are there.

    Raises:
        DataError: a sample has no ground truth, or a method no picture of it or one of another
            size.
        UsageError: the figure exists.
    """
    from mmfe_restore.metrics.psnr_ssim import psnr_per_image

    check_targets(out, ["errors"], force=force)
    columns = ["input", *(method.name for method in methods), "ground truth"]
    first = samples[0].degraded.size()
    cell = (WIDTH - _MARGIN) / len(columns) - _GAP
    figure = new_figure(len(samples) * (2 * cell * first[0] / first[1] + _LABEL + _GAP) + 0.2)
    grid = figure.subplots(2 * len(samples), len(columns), squeeze=False)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.01, h_pad=0.01, hspace=0, wspace=0)  # pyright: ignore[reportCallIssue]
    rows: list[tuple[str, str, float]] = []
    drawn: Any = None
    for index, sample in enumerate(samples):
        whole = _truth(sample)
        clean = centre_crop(whole, crop)
        given = sample.degraded.read()
        _check_size("input", sample, given, [whole])
        degraded = centre_crop(given, crop)
        pictures = [degraded, *(method.restore(sample, degraded) for method in methods)]
        above, below = grid[2 * index], grid[2 * index + 1]
        for column, (name, picture) in enumerate(zip(columns[:-1], pictures, strict=True)):
            _check_size(name, sample, picture, [whole, clean])
            if picture.shape == whole.shape:
                picture = centre_crop(picture, crop)
            psnr = float(psnr_per_image(to_tensor(picture), to_tensor(clean)))
            rows.append((sample.id, name, psnr))
            above[column].imshow(picture)
            drawn = below[column].imshow(
                mean_error(picture, clean), cmap="inferno", vmin=0, vmax=ERROR_SCALE
            )
            said = f"PSNR {psnr:.2f} dB" if math.isfinite(psnr) else "identical"
            below[column].set_xlabel(said, fontsize=7, labelpad=1)
        above[-1].imshow(clean)
        below[-1].set_axis_off()
        above[0].set_ylabel(spelled_out(sample.label), fontsize=7)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=8, pad=3)
    for axes in grid.flat:
        bare(axes)
    if drawn is not None:
        place = grid[1, -1].inset_axes((0.08, 0.62, 0.84, 0.08))
        bar = figure.colorbar(drawn, cax=place, orientation="horizontal", extend="max")
        bar.set_label("mean absolute error\nof values from 0 to 1", fontsize=6, labelpad=1)
        bar.set_ticks([0, 0.1, 0.2])
        bar.ax.tick_params(labelsize=6)
    files = save(figure, Table(("id", "method", "psnr"), tuple(rows)), out, "errors")
    return Drawing(
        files, {"psnr": [dict(zip(("id", "method", "psnr"), r, strict=True)) for r in rows]}
    )


def _truth(sample: Sample) -> ImageArray:
    if sample.clean is None:
        raise DataError(f"{sample.id} has no ground truth", expected="a clean image beside it")
    return sample.clean.read()


def _check_size(
    name: str, sample: Sample, picture: ImageArray, allowed: Sequence[ImageArray]
) -> None:
    if picture.shape not in [clean.shape for clean in allowed]:
        sizes = dict.fromkeys(f"{clean.shape[1]}×{clean.shape[0]}" for clean in allowed)
        raise DataError(
            f"{name}'s picture of {sample.id} has another size than the ground truth",
            got=f"{picture.shape[1]}×{picture.shape[0]} pixels",
            expected=" or, cropped as the protocol does, ".join(sizes),
        )
