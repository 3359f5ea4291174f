import numpy as np
import pytest
from PIL import Image

from mmfe_cache.images import write_png
from mmfe_cache.seeds import generator


def scene(name, height=40, width=56):
    """A smooth random picture that depends on its name only."""
    small = generator("scene", name).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def make():
    """Writes pictures: make(path, name=..., height=..., width=...)."""

    def write(path, name=None, height=40, width=56):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = scene(name or path.stem, height, width)
        if path.suffix == ".png":
            write_png(path, picture)
        else:
            Image.fromarray(picture).save(path, quality=95)
        return path

    return write


@pytest.fixture
def photos(tmp_path, make):
    """A folder of six photographs of five scenes."""
    folder = tmp_path / "photos"
    for name in ("one", "two", "three", "four", "bike_left", "bike_right"):
        make(folder / f"{name}.png")
    return folder
