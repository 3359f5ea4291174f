"""The published sets: where they come from, and their tasks in every layout that people have."""

from __future__ import annotations

from dataclasses import dataclass

from .layouts import Layout, Maker, Part
from .pairing import (
    PairingRule,
    by_frame,
    by_haze_id,
    by_name,
    by_order,
    by_rain_number,
    by_sequence,
    clean_only,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """One published collection of pictures.

    Attributes:
        name: as papers call it.
        page: the public page or repository that has it or leads to it.
        size: what it holds.
        terms: what its page or repository says of its use; None where that is not known here.
    """

    name: str
    page: str
    size: str
    terms: str | None = None


CDD11_ORIGIN = Origin(
    "CDD-11",
    "https://github.com/gy65896/OneRestore",
    "archives of 22.4 GB (train) and 3.8 GB (test)",
    "the repository states no licence",
)
BSD400_ORIGIN = Origin("BSD400", "https://github.com/BIDS/BSDS500", "400 photographs of 481×321")
WED_ORIGIN = Origin("WED", "https://ece.uwaterloo.ca/~k29ma/exploration/", "4,744 photographs")
CBSD68_ORIGIN = Origin(
    "CBSD68", "https://github.com/clausmichele/CBSD68-dataset", "68 photographs of 481×321"
)
RAIN100L_ORIGIN = Origin(
    "Rain100L",
    "https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html",
    "200 and 100 pairs of 481×321",
)
RESIDE_ORIGIN = Origin(
    "RESIDE",
    "https://sites.google.com/view/reside-dehaze-datasets",
    "OTS: 72,135 hazy pictures of 2,061 clear ones; SOTS outdoor: 500",
)
GOPRO_ORIGIN = Origin(
    "GoPro",
    "https://seungjunnah.github.io/Datasets/gopro.html",
    "2,103 and 1,111 pairs of 1280×720",
)
LOL_ORIGIN = Origin(
    "LOL-v1",
    "https://daooshee.github.io/BMVC2018website/",
    "485 and 15 pairs of 600×400",
)
RAIN13K_ORIGIN = Origin("Rain13K", "https://github.com/swz30/Restormer", "13,712 and 4,298 pairs")


SIGMAS = (15, 25, 50)
"""Noise levels, on the 0 to 255 scale."""

PROMPTIR = "PromptIR / AdaIR"
MOCEIR = "MoCE-IR"
DFPIR = "DFPIR"
PUBLISHED = "as published"

_LOL = ("", "LOL-v1", "lol-v1", "LOLv1", "LOL", "LOLdataset", "lol_dataset")
_GOPRO = ("", "GoPro", "GOPRO", "GOPRO_Large", "gopro")
_RAIN = ("", "Rain100L", "rain100l", "RainTrainL")
_BSD = ("", "BSDS500", "BSDS500/data", "BSR/BSDS500/data", "BSD400", "bsd400")
_RAIN13K = ("", "Rain13K", "Datasets", "Deraining/Datasets")


def noise_labels(sigmas: tuple[int, ...] = SIGMAS) -> tuple[str, ...]:
    """The labels of the noise levels, such as ``"noise-25"``."""
    return tuple(f"noise-{sigma}" for sigma in sigmas)


def _names(*numbers: int, form: str = "{}") -> tuple[str, ...]:
    return tuple(form.format(number) for number in numbers)


def _pairs(
    name: str,
    degraded: str,
    clean: str,
    published: int,
    pairing: PairingRule = by_name,
    bases: tuple[str, ...] = ("",),
    maker: Maker = "files",
) -> Layout:
    return Layout(name, (degraded,), (clean,), pairing, bases, published, maker)


def _photographs(
    name: str, *folders: str, bases: tuple[str, ...] = ("",), published: int
) -> Layout:
    return Layout(name, (), folders, clean_only, bases, published, "noise")


NOISE_TRAIN = Part(
    "denoising (BSD400 + WED)",
    noise_labels(),
    (
        _photographs(PROMPTIR, "Train/Denoise", published=5144),
        _photographs(MOCEIR, "denoising/WaterlooED", "denoising/BSD400", published=5144),
        _photographs(
            PUBLISHED, "WED", "BSDS500/images/train", "BSDS500/images/test", published=5144
        ),
        _photographs(PUBLISHED, "images/train", "images/test", bases=_BSD, published=5144),
        _photographs(PUBLISHED, "train", "test", bases=_BSD[-2:], published=5144),
    ),
)


def noise_test(sigmas: tuple[int, ...] = SIGMAS) -> Part:
    """CBSD68 at ``sigmas``."""
    return Part(
        "denoising (CBSD68)",
        noise_labels(sigmas),
        (
            _photographs(PROMPTIR, "test/denoise/bsd68", published=68),
            _photographs(MOCEIR, "denoising/cBSD68/original_png", published=68),
            _photographs(DFPIR, "test/denoise", published=68),
            _photographs(PUBLISHED, "CBSD68/original_png", published=68),
            _photographs(PUBLISHED, "CBSD68", published=68),
            _photographs(PUBLISHED, "cbsd68", published=68),
        ),
    )


RAIN_TRAIN = Part(
    "deraining (Rain100L)",
    ("rain",),
    (
        _pairs(PROMPTIR, "Train/Derain/rainy", "Train/Derain/gt", 200, by_rain_number),
        _pairs(MOCEIR, "deraining/RainTrainL/rainy", "deraining/RainTrainL/gt", 200, by_order),
        _pairs(PUBLISHED, "train/rain", "train/norain", 200, by_rain_number, _RAIN),
        _pairs(
            PUBLISHED,
            "rain_data_train_Light/rain",
            "rain_data_train_Light/norain",
            200,
            by_rain_number,
            _RAIN,
        ),
        _pairs(PUBLISHED, "train/input", "train/target", 200, by_rain_number, _RAIN[1:3]),
        _pairs(PUBLISHED, "RainTrainL", "RainTrainL", 200, by_rain_number),
    ),
    names=_names(*range(1, 201), form="rain-{:03d}"),
)

RAIN_TEST = Part(
    "deraining (Rain100L)",
    ("rain",),
    (
        _pairs(
            PROMPTIR,
            "test/derain/Rain100L/input",
            "test/derain/Rain100L/target",
            100,
            by_rain_number,
        ),
        _pairs(MOCEIR, "deraining/Rain100L/rainy", "deraining/Rain100L/gt", 100, by_order),
        _pairs(DFPIR, "test/derain/input", "test/derain/target", 100, by_rain_number),
        _pairs(PUBLISHED, "test/rain", "test/norain", 100, by_rain_number, _RAIN[:3]),
        _pairs(
            PUBLISHED,
            "rain_data_test_Light/rain/X2",
            "rain_data_test_Light/norain",
            100,
            by_rain_number,
            _RAIN,
        ),
        _pairs(PUBLISHED, "Rain100L/input", "Rain100L/target", 100, by_rain_number),
        _pairs(PUBLISHED, "Rain100L/rain", "Rain100L/norain", 100, by_rain_number),
        _pairs(PUBLISHED, "Rain100L", "Rain100L", 100, by_rain_number),
    ),
    names=_names(*range(1, 101), form="rain-{:03d}"),
)

HAZE_TRAIN = Part(
    "dehazing (RESIDE-OTS)",
    ("haze",),
    (
        _pairs(
            PROMPTIR, "Train/Dehaze/synthetic/part*", "Train/Dehaze/original", 72135, by_haze_id
        ),
        _pairs(MOCEIR, "dehazing/RESIDE/part*", "dehazing/RESIDE/clear", 72135, by_haze_id),
        *(
            _pairs(PUBLISHED, hazy, "clear", 72135, by_haze_id, ("OTS_BETA", "OTS", "RESIDE"))
            for hazy in ("haze/part*", "hazy/part*", "part*", "haze", "hazy")
        ),
    ),
    clean_alone_is_fine=True,
)

HAZE_TEST = Part(
    "dehazing (SOTS outdoor)",
    ("haze",),
    (
        _pairs(PROMPTIR, "test/dehaze/input", "test/dehaze/target", 500, by_haze_id),
        _pairs(MOCEIR, "dehazing/SOTS/outdoor/hazy", "dehazing/SOTS/outdoor/gt", 500, by_haze_id),
        _pairs(PUBLISHED, "hazy", "gt", 500, by_haze_id, ("SOTS/outdoor", "outdoor")),
        _pairs(PUBLISHED, "hazy", "clear", 500, by_haze_id, ("SOTS/outdoor", "outdoor")),
    ),
    clean_alone_is_fine=True,
)

BLUR_TRAIN = Part(
    "deblurring (GoPro)",
    ("blur",),
    (
        _pairs(
            MOCEIR,
            "deblurring/GoPro/crop/train/input_crops",
            "deblurring/GoPro/crop/train/target_crops",
            16824,
            by_frame,
        ),
        _pairs(
            PROMPTIR, "Train/Deblur/blur", "Train/Deblur/sharp", 2103, by_frame, maker="windows"
        ),
        _pairs(
            PUBLISHED, "train/*/blur", "train/*/sharp", 2103, by_sequence, _GOPRO, maker="windows"
        ),
        _pairs(DFPIR, "train/blur", "train/sharp", 2103, by_frame, _GOPRO[1:], maker="windows"),
    ),
)

BLUR_TEST = Part(
    "deblurring (GoPro)",
    ("blur",),
    (
        _pairs(PROMPTIR, "test/deblur/gopro/input", "test/deblur/gopro/target", 1111, by_frame),
        _pairs(
            MOCEIR, "deblurring/GoPro/test/input", "deblurring/GoPro/test/target", 1111, by_frame
        ),
        _pairs(PUBLISHED, "test/*/blur", "test/*/sharp", 1111, by_sequence, _GOPRO),
        _pairs(DFPIR, "test/blur", "test/sharp", 1111, by_frame, _GOPRO[1:]),
    ),
)

LOW_TRAIN = Part(
    "low light (LOL-v1)",
    ("low",),
    (
        _pairs(PROMPTIR, "Train/Enhance/low", "Train/Enhance/gt", 485),
        _pairs(MOCEIR, "llie/LOLv1/Train/input", "llie/LOLv1/Train/target", 485),
        _pairs(PUBLISHED, "our485/low", "our485/high", 485, bases=_LOL),
        _pairs(DFPIR, "train485/low", "train485/high", 485, bases=_LOL),
    ),
)

LOW_TEST = Part(
    "low light (LOL-v1)",
    ("low",),
    (
        _pairs(PROMPTIR, "test/enhance/lol/input", "test/enhance/lol/target", 15),
        _pairs(MOCEIR, "llie/LOLv1/Test/input", "llie/LOLv1/Test/target", 15),
        _pairs(PUBLISHED, "eval15/low", "eval15/high", 15, bases=_LOL),
        _pairs(DFPIR, "test15/low", "test15/high", 15, bases=_LOL),
    ),
    names=_names(1, 22, 23, 55, 79, 111, 146, 179, 493, 547, 665, 669, 748, 778, 780),
)

RAIN13K_TRAIN = Part(
    "deraining (Rain13K)",
    ("rain13k",),
    (
        _pairs("Restormer", "train/Rain13K/input", "train/Rain13K/target", 13712, bases=_RAIN13K),
        _pairs(PUBLISHED, "train/input", "train/target", 13712, bases=_RAIN13K[:2]),
    ),
)

_RAIN13K_TESTS = {
    "Test100": 98,
    "Rain100H": 100,
    "Rain100L": 100,
    "Test2800": 2800,
    "Test1200": 1200,
}


def rain13k_tests() -> tuple[Part, ...]:
    """The five test sets that go with Rain13K."""
    return tuple(
        Part(
            f"deraining ({name})",
            (f"rain-{name.lower()}",),
            (
                _pairs(
                    "Restormer", f"test/{name}/input", f"test/{name}/target", count, bases=_RAIN13K
                ),
            ),
        )
        for name, count in _RAIN13K_TESTS.items()
    )
