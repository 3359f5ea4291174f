"""Where published pictures come from: page, size and terms, as far as they are known."""

from __future__ import annotations

from dataclasses import dataclass


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


_CDD11 = Origin(
    "CDD-11",
    "https://github.com/gy65896/OneRestore",
    "archives of 22.4 GB (train) and 3.8 GB (test)",
    "the repository states no licence",
)
_BSD400 = Origin("BSD400", "https://github.com/BIDS/BSDS500", "400 photographs of 481×321")
_WED = Origin("WED", "https://ece.uwaterloo.ca/~k29ma/exploration/", "4,744 photographs")
_CBSD68 = Origin(
    "CBSD68", "https://github.com/clausmichele/CBSD68-dataset", "68 photographs of 481×321"
)
_RAIN100L = Origin(
    "Rain100L",
    "https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html",
    "200 and 100 pairs of 481×321",
)
_RESIDE = Origin(
    "RESIDE",
    "https://sites.google.com/view/reside-dehaze-datasets",
    "OTS: 72,135 hazy pictures of 2,061 clear ones; SOTS outdoor: 500",
)
_GOPRO = Origin(
    "GoPro",
    "https://seungjunnah.github.io/Datasets/gopro.html",
    "2,103 and 1,111 pairs of 1280×720",
)
_LOL = Origin(
    "LOL-v1",
    "https://daooshee.github.io/BMVC2018website/",
    "485 and 15 pairs of 600×400",
)
_RAIN13K = Origin("Rain13K", "https://github.com/swz30/Restormer", "13,712 and 4,298 pairs")

_AIO3 = (_BSD400, _WED, _CBSD68, _RAIN100L, _RESIDE)
ORIGINS: dict[str, tuple[Origin, ...]] = {
    "cdd11": (_CDD11,),
    "aio3": _AIO3,
    "aio5": (*_AIO3, _GOPRO, _LOL),
    "aio5-rain13k": (*_AIO3, _GOPRO, _LOL, _RAIN13K),
    "rain13k": (_RAIN13K,),
    "denoise": (_BSD400, _WED, _CBSD68),
    "rain100l": (_RAIN100L,),
    "reside": (_RESIDE,),
    "gopro": (_GOPRO,),
    "lol-v1": (_LOL,),
}
"""By data set; those that are made of the user's own files have none."""
