"""What `write_synth` takes for photographs, and what it refuses before anything is written."""

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from benchmarks.cache_support import tree
from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.degradations import DegradationConfig
from mmfe_cache.errors import DataError
from mmfe_cache.images import write_png
from mmfe_cache.progress import Progress


class Warned(Progress):
    """Keeps what it is warned of."""

    def __init__(self):
        self.lines = []

    def warn(self, text):
        self.lines.append(text)


def refused(photos, out, **options):
    """The message, once it is made sure that nothing was written."""
    with pytest.raises(DataError, match="nothing was written") as caught:
        write_synth(photos, out, compositions=["low"], **options)
    assert not out.exists()
    return str(caught.value)


def test_a_set_inside_the_photographs_goes_on_and_is_no_photograph(photos, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    write_synth(photos, whole, compositions=["low"])
    out = photos / "sets" / "first"
    written = []

    def stopped(path, image):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_png(path, image)

    monkeypatch.setattr("mmfe_cache.datasets.synth.write_png", stopped)
    told = Warned()
    with pytest.raises(KeyboardInterrupt):
        write_synth(photos, out, compositions=["low"], workers=1, progress=told)
    monkeypatch.undo()
    assert told.lines == []
    told = Warned()
    write_synth(photos, out, compositions=["low"], progress=told)
    assert tree(out) == tree(whole)
    assert len(told.lines) == 1
    assert str(out) in told.lines[0]
    # Neither a later set nor the data set `synth` takes hazed pictures for clean ones.
    again = tmp_path / "again"
    told = Warned()
    write_synth(photos, again, compositions=["low"], progress=told)
    assert tree(again) == tree(whole)
    live = load_dataset("synth", "train", photos)
    for lines in (told.lines, live.warnings):
        assert len(lines) == 1
        assert f"{out}: a set that `mmfe data synth` made" in lines[0]
    assert {sample.id.split("/")[1] for sample in live} == {
        path.stem for path in (whole / "train" / "clear").iterdir()
    }


def test_a_set_is_no_folder_of_photographs(photos, tmp_path):
    write_synth(photos, tmp_path / "set", compositions=["low"])
    for unwanted in (
        lambda: write_synth(tmp_path / "set", tmp_path / "out"),
        lambda: load_dataset("synth", "train", tmp_path / "set"),
    ):
        with pytest.raises(DataError, match="no clean photographs") as caught:
            unwanted()
        assert "synth.json" in str(caught.value)
    # Its clear pictures are.
    clear = tmp_path / "set" / "train" / "clear"
    assert write_synth(clear, tmp_path / "out", compositions=["low"], test_share=0).written


def test_a_name_that_becomes_too_long_is_refused_beforehand(tmp_path, make):
    stem = "ü" * 100  # two bytes each
    for folder in ("a", "b" * 60):
        make(tmp_path / "p" / folder / f"{stem}.png", name=folder)
    message = refused(tmp_path / "p", tmp_path / "out", test_share=0)
    assert "1 photographs cannot be used" in message
    assert f"whose name has {60 + 1 + 200 + 4} bytes, more than the 255" in message
    assert "rename" in message


def test_a_low_light_photograph_of_another_shape_is_refused_beforehand(photos, tmp_path, make):
    make(tmp_path / "dark" / "one.png", height=56, width=40)
    make(tmp_path / "dark" / "two.png", height=20, width=28)  # shrunk, of the same proportions
    config = DegradationConfig.from_folders(dark=tmp_path / "dark")
    message = refused(photos, tmp_path / "out", config=config)
    assert "1 photographs cannot be used" in message
    dark = tmp_path / "dark" / "one.png"
    assert f"is 56x40 pixels, and its low-light photograph {dark} 40x56" in message
    write_synth(photos, tmp_path / "haze", compositions=["haze"], config=config)


def test_a_panorama_is_named_with_its_own_size_and_the_option(photos, tmp_path, make):
    make(photos / "wide.png", height=20, width=400)
    make(photos / "dot.png", height=4, width=40)
    message = refused(photos, tmp_path / "out", max_side=64)
    assert "wide.png is 400x20 pixels, and 64x3 with --max-side 64" in message
    assert "dot.png is 40x4 pixels\n" in message
    assert "take a larger --max-side, or move these files away" in message


@pytest.mark.parametrize("name", ["synth.json", "synth.unfinished.json"])
def test_a_record_that_is_no_text_is_another_set(photos, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="other photographs or settings"):
        write_synth(photos, tmp_path / "out")


def test_pages_that_are_not_read_are_told_once(photos, tmp_path):
    pages = [Image.fromarray(np.full((40, 56, 3), value, np.uint8)) for value in (60, 90)]
    pages[0].save(photos / "pages.tif", save_all=True, append_images=pages[1:])
    told = Warned()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_synth(photos, tmp_path / "out", compositions=["low"], progress=told)
    path = photos / "pages.tif"
    assert told.lines == [f"{path}: it holds 2 pages, of which the first is read"]


def save_pages(path, *values):
    """A TIFF of grey pages."""
    path.parent.mkdir(exist_ok=True)
    pages = [Image.fromarray(np.full((40, 56), value, np.uint8)) for value in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def test_pages_of_masks_and_maps_are_told_once_by_name(photos, tmp_path):
    """As those of photographs: by `data synth`, and by the data set `synth` of the same files."""
    for path in photos.glob("*.png"):
        for kind in ("depth", "light"):
            save_pages(tmp_path / kind / f"{path.stem}.tif", 90)
    save_pages(tmp_path / "depth" / "one.tif", 60, 90)
    save_pages(tmp_path / "light" / "one.tif", 70, 90)
    save_pages(tmp_path / "rain" / "a.tif", 20, 90, 120)
    save_pages(tmp_path / "snow" / "a.tif", 20, 90)
    save_pages(tmp_path / "dark" / "two.tif", 5, 90)
    folders = {"rain_masks": "rain", "snow_masks": "snow", "depth": "depth", "light_maps": "light"}
    root = tmp_path / "root"
    shutil.copytree(photos, root)
    for name in (*folders.values(), "dark"):
        shutil.copytree(tmp_path / name, root / name)
    settings = "".join(f"{key}: {name}\n" for key, name in folders.items())
    (root / "degradations.yaml").write_text(settings + "dark_photos: dark\n")
    told = Warned()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = DegradationConfig.from_folders(
            **{key: tmp_path / name for key, name in folders.items()}, dark=tmp_path / "dark"
        )
        write_synth(photos, tmp_path / "out", compositions=["low", "snow"], config=config)
        write_synth(photos, tmp_path / "all", config=config, progress=told)
        live = [load_dataset("synth", split, root) for split in ("train", "test")]
        for sample in (*live[0], *live[1]):
            sample.degraded.read()
    found = [
        f"{name}.tif: it holds {count} pages, of which the first is read"
        for name, count in (
            ("rain/a", 3), ("snow/a", 2), ("depth/one", 2), ("light/one", 2), ("dark/two", 2)
        )
    ]  # fmt: skip
    assert sorted(told.lines) == sorted(f"{tmp_path}/{line}" for line in found)
    said = {line for samples in live for line in samples.warnings}
    assert said == {f"{root}/{line}" for line in found}


def test_maps_below_the_photographs_are_no_photographs(photos, tmp_path):
    """As for the data set `synth`, whose masks and maps lie below its root."""
    beside = tmp_path / "beside"
    folder = photos / "depth"
    for where in (beside, folder):
        where.mkdir()
        for path in photos.glob("*.png"):
            Image.fromarray(np.full((40, 40), 120, np.uint8)).save(where / path.name)
    inside = DegradationConfig.from_folders(depth=folder)
    write_synth(photos, tmp_path / "inside", compositions=["haze"], config=inside)
    outside = DegradationConfig.from_folders(depth=beside)
    clean = tmp_path / "clean"
    clean.mkdir()
    for path in photos.glob("*.png"):
        (clean / path.name).symlink_to(path)
    write_synth(clean, tmp_path / "outside", compositions=["haze"], config=outside)
    assert tree(tmp_path / "inside") == tree(tmp_path / "outside")
