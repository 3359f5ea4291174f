"""The photographs of `mmfe demo`: those that scikit-image carries, or a folder of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import DataError

from .photographs import Photograph, find_photographs, scene_of, split_photographs

_TRAIN = (
    "astronaut.png",
    "camera.png",
    "grass.png",
    # Two views of one scene: they must stay in one split.
    "motorcycle_left.png",
    "motorcycle_right.png",
)
_TEST = ("chelsea.png", "coffee.png")
_OWN = ("rocket.jpg",)
_FEWEST = 3


@dataclass(frozen=True)
class Photographs:
    """Photographs by the part they play; no scene stands in two parts.

    Attributes:
        train: what training sets are made from.
        test: what test sets are made from.
        own: what stands for a user's own photograph, in neither set.
    """

    train: tuple[Photograph, ...]
    test: tuple[Photograph, ...]
    own: tuple[Photograph, ...]


def bundled_photographs() -> Photographs:
    """The colour and grey photographs that lie in scikit-image's installed wheel.

    Raises:
        DataError: this scikit-image carries fewer photographs than are named here.
    """
    import skimage.data

    # Only files: scikit-image would download the others, and nothing here needs a network.
    folder = Path(skimage.data.__file__).parent
    parts = [tuple(folder / name for name in part) for part in (_TRAIN, _TEST, _OWN)]
    missing = [path.name for part in parts for path in part if not path.is_file()]
    if missing:
        raise DataError(
            "this scikit-image does not carry all the photographs that the demo uses",
            got=f"no {', '.join(missing)} in {folder}",
            expected="the photographs of scikit-image 0.24 or newer",
            remedy="use photographs of your own: mmfe demo --photos DIR",
        )
    return Photographs(
        *(tuple(Photograph(p.stem, p, scene_of(p.stem)) for p in part) for part in parts)
    )


def split_into_parts(folder: Path) -> Photographs:
    """Split the photographs of ``folder`` into the three parts, scene by scene.

    The last scene by name stands for the user's own photograph, a quarter of the others is for
    testing.

    Raises:
        DataError: the folder is missing or holds fewer than three scenes.
    """
    found = find_photographs(folder)
    scenes = sorted({photograph.scene for photograph in found})
    if len(scenes) < _FEWEST:
        raise DataError(
            f"{folder} does not hold enough photographs",
            got=f"{len(found)} photographs of {len(scenes)} scenes",
            expected=f"at least {_FEWEST} scenes: to train on, to test on, and one of neither",
            remedy="name a folder with more photographs",
        )
    own = tuple(p for p in found if p.scene == scenes[-1])
    split = split_photographs([p for p in found if p not in own], test_share=0.25)
    return Photographs(split["train"], split["test"], own[:1])
