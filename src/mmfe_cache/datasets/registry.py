"""Which data sets there are, and how each is loaded: from its folders, or from its packs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.packing.reader import (
    FOLDER as PACKED,
    PackReader,
    is_foreign,
    open_pack,
    pack_places,
)
from mmfe_cache.places import DATA
from mmfe_cache.samples import Sample, SampleSet

from . import tasks
from .cdd11 import (
    SCENES,
    UNFINISHED_FILE,
    cdd11_parts,
    made_splits,
    read_severities,
    read_spec,
)
from .folder import PAIRS_OF_FOLDERS, load_folder
from .layouts import FolderCache, FoundPart, Part, find_part, missing_part, sample_set, samples_of
from .photographs import Split, scenes_of
from .same_pixels import check_made_pack, compare_files
from .synth_live import load_synthetic

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A data set of the registry.

    Attributes:
        name: as `load_dataset` and recipes call it.
        description: one line.
        pairs: published number of samples of each split, all noise levels counted; None where it
            depends on the user's files.
        parts: the parts of a split under a root; None for sets that are not a list of parts.
        load: loads sets that are not a list of parts. `check_dataset` compares the number of their
            samples only; what is missing stands in the set's warnings.
        synthetic: whether `data synth` writes sets of this layout, with their severities and a
            note of the splits that were made.
        whole_images: no published protocol crops its test images, and all its classes are judged
            in RGB.
        origins: where the published pictures come from; none for sets of the user's own files.
        own_root: whether its root serves no other data set: its packs need not be named after it.
        folders: where the files of a set without parts lie, in words.
        crop_multiple: its peers judge the centre crop to a multiple of this, whatever trained the
            checkpoint; 1 leaves it to protocol and recipe.
    """

    name: str
    description: str
    pairs: Mapping[str, int] | None = None
    parts: Callable[[str, Path], tuple[Part, ...]] | None = None
    load: Callable[[Split, Path], SampleSet] | None = None
    synthetic: bool = False
    whole_images: bool = False
    origins: tuple[tasks.Origin, ...] = ()
    own_root: bool = False
    folders: str = ""
    crop_multiple: int = 1


def _fixed(
    train: tuple[Part, ...], test: tuple[Part, ...]
) -> Callable[[str, Path], tuple[Part, ...]]:
    def parts(split: str, root: Path) -> tuple[Part, ...]:
        del root
        return train if split == "train" else test

    return parts


_NOISE_ORIGINS = (tasks.BSD400_ORIGIN, tasks.WED_ORIGIN, tasks.CBSD68_ORIGIN)
_AIO3_ORIGINS = (*_NOISE_ORIGINS, tasks.RAIN100L_ORIGIN, tasks.RESIDE_ORIGIN)
_AIO5_ORIGINS = (*_AIO3_ORIGINS, tasks.GOPRO_ORIGIN, tasks.LOL_ORIGIN)
_AIO3_TRAIN = (tasks.NOISE_TRAIN, tasks.RAIN_TRAIN, tasks.HAZE_TRAIN)
_AIO5_TRAIN = (*_AIO3_TRAIN, tasks.BLUR_TRAIN, tasks.LOW_TRAIN)
_AIO3_TEST = (tasks.noise_test(), tasks.RAIN_TEST, tasks.HAZE_TEST)
_AIO5_TEST = (
    tasks.noise_test((25,)),
    tasks.RAIN_TEST,
    tasks.HAZE_TEST,
    tasks.BLUR_TEST,
    tasks.LOW_TEST,
)

_ALL = (
    DatasetInfo(
        "cdd11",
        "CDD11: 11 compositions of low light, haze, rain and snow; also what `data synth` makes",
        {split: 11 * scenes for split, scenes in SCENES.items()},
        cdd11_parts,
        synthetic=True,
        whole_images=True,
        origins=(tasks.CDD11_ORIGIN,),
        own_root=True,
    ),
    DatasetInfo(
        "aio3",
        "three tasks: noise (BSD400 + WED), rain (Rain100L), haze (RESIDE-OTS)",
        {"train": 3 * 5144 + 200 + 72135, "test": 3 * 68 + 100 + 500},
        _fixed(_AIO3_TRAIN, _AIO3_TEST),
        crop_multiple=16,
        origins=_AIO3_ORIGINS,
    ),
    DatasetInfo(
        "aio5",
        "five tasks: aio3 plus motion blur (GoPro) and low light (LOL-v1)",
        {
            "train": 3 * 5144 + 200 + 72135 + 16824 + 485,
            "test": 68 + 100 + 500 + 1111 + 15,
        },
        _fixed(_AIO5_TRAIN, _AIO5_TEST),
        crop_multiple=16,
        origins=_AIO5_ORIGINS,
    ),
    DatasetInfo(
        "aio5-rain13k",
        "aio5 with the additional rain of Rain13K",
        {
            "train": 3 * 5144 + 200 + 72135 + 16824 + 485 + 13712,
            "test": 68 + 100 + 500 + 1111 + 15,
        },
        _fixed((*_AIO5_TRAIN, tasks.RAIN13K_TRAIN), _AIO5_TEST),
        crop_multiple=16,
        origins=(*_AIO5_ORIGINS, tasks.RAIN13K_ORIGIN),
    ),
    DatasetInfo(
        "rain13k",
        "rain only: Rain13K and its five test sets",
        {"train": 13712, "test": 98 + 100 + 100 + 2800 + 1200},
        _fixed((tasks.RAIN13K_TRAIN,), tasks.rain13k_tests()),
        origins=(tasks.RAIN13K_ORIGIN,),
    ),
    DatasetInfo(
        "denoise",
        "noise only: BSD400 + WED, tested on CBSD68 at 15, 25 and 50",
        {"train": 3 * 5144, "test": 3 * 68},
        _fixed((tasks.NOISE_TRAIN,), (tasks.noise_test(),)),
        origins=_NOISE_ORIGINS,
    ),
    DatasetInfo(
        "rain100l",
        "rain only: Rain100L",
        {"train": 200, "test": 100},
        _fixed((tasks.RAIN_TRAIN,), (tasks.RAIN_TEST,)),
        origins=(tasks.RAIN100L_ORIGIN,),
    ),
    DatasetInfo(
        "reside",
        "haze only: RESIDE-OTS, tested on SOTS outdoor",
        {"train": 72135, "test": 500},
        _fixed((tasks.HAZE_TRAIN,), (tasks.HAZE_TEST,)),
        origins=(tasks.RESIDE_ORIGIN,),
    ),
    DatasetInfo(
        "gopro",
        "motion blur only: GoPro, trained on windows of 512 pixels",
        {"train": 16824, "test": 1111},
        _fixed((tasks.BLUR_TRAIN,), (tasks.BLUR_TEST,)),
        origins=(tasks.GOPRO_ORIGIN,),
    ),
    DatasetInfo(
        "lol-v1",
        "low light only: LOL-v1",
        {"train": 485, "test": 15},
        _fixed((tasks.LOW_TRAIN,), (tasks.LOW_TEST,)),
        origins=(tasks.LOL_ORIGIN,),
    ),
    DatasetInfo(
        "folder",
        "your own pairs: two folders with equal file names",
        load=load_folder,
        folders="in ROOT, or in ROOT/train and ROOT/test, two folders called "
        + ", ".join(f"{degraded} + {clean}" for degraded, clean in PAIRS_OF_FOLDERS[:-1])
        + " or {} + {}".format(*PAIRS_OF_FOLDERS[-1]),
    ),
    DatasetInfo(
        "synth",
        "your own clean photographs under CDD11's degradations, made while reading",
        load=load_synthetic,
        whole_images=True,
        folders="photographs in ROOT/train and ROOT/test, else in ROOT",
    ),
)

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _ALL}
"""Every data set by name."""


def data_root(name: str, root: Path | None = None) -> Path:
    """Where a data set lies: ``root``, else $MMFE_DATA/<name>, else data/<name>."""
    if root is not None:
        return Path(root)
    return DATA.folder / name


def not_there(info: DatasetInfo, root: Path) -> DataError:
    """What to say of a data set whose root is missing: its folders, and where to get it."""
    found = [f"{origin.name}: {origin.page}" for origin in info.origins]
    get_it = f"get it ({', '.join(found)}), then " if found else ""
    return DataError(
        f"data set {info.name!r} is not there",
        got=f"no folder {root}",
        expected=_folders(info, root),
        remedy=f"{get_it}name its folder with --root, or set {DATA.variable}",
    )


def _folders(info: DatasetInfo, root: Path) -> str:
    """Those of the first layout of each training part."""
    if info.parts is None:
        return info.folders
    layouts = [part.layouts[0] for part in info.parts("train", root)]
    folders = [
        str(Path(layout.bases[0]) / folder)
        for layout in layouts
        for folder in (*layout.degraded, *layout.clean)
    ]
    return "such as " + ", ".join(dict.fromkeys(folders))


def dataset_info(name: str) -> DatasetInfo:
    """Look a data set up.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in DATASETS:
        raise UsageError(
            f"unknown data set {name!r}",
            got=name,
            expected=", ".join(DATASETS),
            remedy="mmfe data list says what each is; the folder it lies in is --root",
        )
    return DATASETS[name]


def check_split(split: str) -> Split:
    """``split`` as a `Split`.

    Raises:
        UsageError: it is neither ``train`` nor ``test``.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise UsageError(f"unknown split {split!r}", got=split, expected=" or ".join(SPLITS))


def splits_of(name: str, root: Path | None = None) -> tuple[Split, ...]:
    """The splits that a data set under ``root`` has.

    Both, but for a set that was made with one only, and for a folder that holds the pack of one and
    no files of the other.
    """
    where = data_root(name, root)
    made = read_spec(where) if dataset_info(name).synthetic else None
    if made is not None:
        return tuple(check_split(split) for split in made_splits(made))
    return packed_splits(name, where) or SPLITS


def find_packs(
    name: str, root: Path, splits: Sequence[str] | None = None
) -> list[tuple[Split, PackReader]]:
    """The packs of a data set.

    Args:
        name: of the data set.
        root: its folder, or the folder of its packs.
        splits: which; None takes those that are packed.

    Raises:
        UsageError: an unknown data set or split.
        DataError: there is none, one of ``splits`` has none, or one cannot be read.
    """
    dataset_info(name)
    wanted: list[Split] = [check_split(split) for split in splits or SPLITS]
    found: list[tuple[Split, PackReader | None]] = []
    foreign: list[str] = []
    for split in wanted:
        pack, others = find_pack(name, split, root)
        found.append((split, pack))
        foreign += others
    lacking = [split for split, pack in found if pack is None]
    if lacking and (splits or len(lacking) == len(wanted)):
        first = pack_places(root, name, lacking[0])
        raise DataError(
            f"there is no pack of {name!r}, split {' or '.join(lacking)}, under {root}",
            got="; ".join(foreign)
            or "none of " + ", ".join(str(place.relative_to(root)) for place in first),
            expected="what `mmfe data pack` writes, in ROOT/packed or in the folder of its --out",
            remedy=f"mmfe data pack --dataset {name}, or name the folder of its --out as --root",
        )
    return [(split, pack) for split, pack in found if pack is not None]


def find_parts(name: str, split: str, root: Path) -> list[tuple[Part, FoundPart | None]]:
    """Every part of a split and where it was recognised, None where it was not."""
    info = dataset_info(name)
    if info.parts is None:
        return []
    cache = FolderCache()
    return [(part, find_part(root, part, cache)) for part in info.parts(split, root)]


def load_dataset(
    name: str, split: str, root: Path | None = None, *, packed: bool = True
) -> SampleSet:
    """List the samples of a split; no image is decoded.

    Args:
        name: see `DATASETS`.
        split: ``"train"`` or ``"test"``.
        root: the folder it lies in; None looks at $MMFE_DATA/<name>, then data/<name>.
        packed: read a pack that lies under ``root``; False reads the files themselves.

    Returns:
        The samples sorted by id, with what was found missing in ``warnings``.

    Raises:
        UsageError: unknown name or split.
        DataError: the folder is missing, a part lies in no known layout, or no pair was found.
    """
    info, wanted = dataset_info(name), check_split(split)
    where = data_root(name, root)
    if not where.is_dir():
        raise not_there(info, where)
    pack, foreign = find_pack(name, wanted, where) if packed else (None, ())
    if pack is not None:
        samples = _load_packed(pack, where)
    elif info.load is not None:
        samples = info.load(wanted, where)
    else:
        samples = _load_parts(name, wanted, where)
    return replace(samples, warnings=(*samples.warnings, *foreign))


def _load_parts(name: str, split: Split, root: Path) -> SampleSet:
    samples: list[Sample] = []
    warnings: list[str] = []
    layouts: list[str] = []
    for part, found in find_parts(name, split, root):
        if found is None:
            raise missing_part(root, part, f"mmfe data check --dataset {name} --root '{root}'")
        severities = None
        if dataset_info(name).synthetic:
            severities = read_severities((found.base / found.layout.clean[0]).parent)
        samples += samples_of(found, severities)
        warnings += found.warnings()
        layouts.append(found.layout.name)
    if dataset_info(name).synthetic and read_spec(root) is not None:
        # The made pictures' names are those of photographs, several of which may show one scene.
        scenes = scenes_of(sample.scene for sample in samples)
        samples = [replace(sample, scene=scenes[sample.scene]) for sample in samples]
    return sample_set(name, split, root, ", ".join(dict.fromkeys(layouts)), samples, warnings)


def _load_packed(pack: PackReader, root: Path) -> SampleSet:
    """The samples of a pack under ``root``.

    Raises:
        DataError: the pack is damaged, or the files beside it have changed since, or pictures that
            are made while reading would be made otherwise.
    """
    newer = compare_files(pack, root)
    check_made_pack(pack, root)
    samples = pack.samples(root)
    return replace(samples, warnings=(*samples.warnings, *newer))


def find_pack(name: str, split: Split, root: Path) -> tuple[PackReader | None, tuple[str, ...]]:
    """The pack of a split, and a line for each file in its place that is none of this split.

    Raises:
        DataError: what lies there is damaged or cannot be opened, or what lies in ``packed`` is no
            pack.
    """
    foreign: list[str] = []
    if (root / UNFINISHED_FILE).exists():
        return None, ()
    for path in pack_places(root, name, split):
        if not path.exists():
            continue
        # The root itself may hold anybody's ``train.h5``.
        if path.parent == root and is_foreign(path):
            foreign.append(f"{path} is no pack of mmfe and is left out")
            continue
        pack = open_pack(path)
        described = pack.about
        if (described["dataset"], described["split"]) == (name, split):
            return pack, tuple(foreign)
        foreign.append(f"{path} holds {described['dataset']}, {described['split']}")
    return None, tuple(foreign)


def packed_splits(name: str, folder: Path) -> tuple[Split, ...]:
    """The splits whose packs lie in ``folder`` itself, as `mmfe data pack --out` writes them.

    None where the other split lies there as well: such a folder is more than one of packs.
    """
    packed: list[Split] = [
        split
        for split in SPLITS
        if any(
            place.parent == folder and place.exists() and not is_foreign(place)
            for place in pack_places(folder, name, split)
        )
    ]
    if packed and any(_lies_below(name, split, folder) for split in set(SPLITS) - set(packed)):
        return ()
    return tuple(packed)


def _lies_below(name: str, split: Split, root: Path) -> bool:
    """Whether a split has files under ``root``, or a pack in ``root/packed``."""
    if any(place.parent != root and place.exists() for place in pack_places(root, name, split)):
        return True
    load = dataset_info(name).load
    if load is None:
        return any(found is not None for _, found in find_parts(name, split, root))
    folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if all(path.name == PACKED for path in folders):
        return False  # pictures beside a pack make no split
    try:
        load(split, root)
    except DataError:
        return (root / split).is_dir()  # what is wrong with it is said where it is loaded
    return True
