"""The models of timm: how a guide names one, and what timm says of it before it is loaded.

Importing this imports neither torch nor timm.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from mmfe_cache.errors import GuideError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

TIMM = "timm:"
"""What the name of a timm encoder begins with."""

RANDOM = "random"
"""What ``weights=`` says for an untrained encoder."""

Pool = Literal["stages", "last"]

_POOLS: dict[str, Pool] = {"": "stages", "stages": "stages", "last": "last"}


@dataclass(frozen=True, slots=True)
class TimmName:
    """The parts of a guide's name ``timm:MODEL[,pool=last][,weights=FILE]``.

    Attributes:
        model: the model's name in timm, with or without the tag of its weights.
        pool: ``"stages"`` (mean and spread of all) or ``"last"`` (the last stage's mean).
        weights: a file, or `RANDOM`; None for the published ones.
    """

    model: str
    pool: Pool = "stages"
    weights: str | None = None

    @classmethod
    def parse(cls, text: str) -> TimmName:
        """Read a name.

        Raises:
            UsageError: it is no such name.
        """
        # A file's name may hold commas, so it comes last.
        rest, _, weights = text.removeprefix(TIMM).partition(",weights=")
        model, _, pool = rest.partition(",pool=")
        if not model or "," in model or pool not in _POOLS:
            raise UsageError(
                "this is no name of a timm encoder",
                got=repr(text),
                expected="timm:MODEL, timm:MODEL,pool=last or timm:MODEL,weights=FILE",
            )
        return cls(model, _POOLS[pool], weights or None)

    @property
    def plain(self) -> str:
        """The guide's name: the same whichever file its weights lie in."""
        pool = "" if self.pool == "stages" else f",pool={self.pool}"
        return f"{TIMM}{self.model}{pool}{',weights=random' if self.weights == RANDOM else ''}"


@dataclass(frozen=True, slots=True)
class Encoder:
    """What timm says of a model before its weights are loaded.

    Attributes:
        model: its name in timm, with the tag of its weights.
        channels: of every stage.
        channels_last: whether its maps are (B, h, w, C), as Swin's are, instead of (B, C, h, w).
        stride: pixels of the picture to a cell of the coarsest stage.
        size: (height, width) that it takes; None where it takes any.
        mean: of R, G, B in [0, 1] that are taken off.
        spread: by which they are divided.
        interpolation: how pictures are brought to ``size``.
        repository: where its weights are published; None where timm names no place.
        file: their name there; None for the usual ones.
        licence: of its weights.
    """

    model: str
    channels: tuple[int, ...]
    channels_last: bool
    stride: int
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    interpolation: str
    repository: str | None
    file: str | None
    licence: str

    def dim(self, pool: str) -> int:
        """D: mean and spread of every stage, or the last stage's channels."""
        return 2 * sum(self.channels) if pool == "stages" else self.channels[-1]


def import_timm() -> ModuleType:
    """The package timm.

    Raises:
        GuideError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as problem:
        if problem.name != "timm":
            raise
        raise GuideError(
            "vision encoders come from timm, which is an extra and not installed",
            remedy="in mmfe's checkout: pip install -c constraints.txt -e '.[timm]'",
        ) from None
    return timm


@cache
def find_encoder(model: str) -> Encoder:
    """Ask timm what ``model`` is, without its weights.

    Raises:
        UsageError: timm has no such model.
        GuideError: timm is not installed, or the model gives no feature maps.
    """
    timm = import_timm()
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), 3)
        raise UsageError(
            "timm has no such model",
            got=repr(model),
            expected=f"such as {', '.join(near or ['tf_efficientnet_lite0', 'resnet50'])}",
            remedy='python -c "import timm; print(timm.list_models())" lists them',
        )
    architecture, _, tag = model.partition(".")
    tags = [name for name in timm.list_pretrained() if name.split(".")[0] == architecture]
    if tag and model not in tags:
        raise UsageError(
            "timm has no weights of that tag",
            got=repr(model),
            expected=", ".join([architecture, *tags][:4]),
        )
    config = timm.get_pretrained_cfg(model)
    import torch

    with torch.device("meta"):
        network = make_features(model)
    about = network.feature_info
    size = tuple(config.input_size)[-2:] if config.fixed_input_size else None
    tag = f".{config.tag}" if config.tag else ""
    return Encoder(
        model=f"{config.architecture}{tag}",
        channels=tuple(int(c) for c in about.channels()),
        # The networks that timm wraps in classes of their own, such as EfficientNet, do not say.
        channels_last=getattr(network, "output_fmt", "NCHW") == "NHWC",
        stride=int(max(about.reduction())),
        size=None if size is None else (int(size[0]), int(size[1])),
        mean=tuple(map(float, config.mean)),
        spread=tuple(map(float, config.std)),
        interpolation=str(config.interpolation),
        repository=config.hf_hub_id,
        file=config.hf_hub_filename,
        licence=str(config.license or "its own"),
    )


@contextmanager
def _quiet_timm() -> Generator[None, None, None]:
    """Keep timm from warning of the layers behind the features, which are meant to be left out."""
    logger = logging.getLogger("timm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def make_features(model: str, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """The network of a model's stages, with these weights or as timm makes it."""
    timm = import_timm()
    try:
        given = {} if tensors is None else without_fetching(tensors)
        with _quiet_timm():
            return timm.create_model(model, features_only=True, **given)
    except (RuntimeError, AttributeError, AssertionError) as problem:
        raise GuideError(
            f"timm's {model} gives no feature maps",
            got=" ".join(str(problem).split())[:200],
            expected="a model that timm makes with features_only=True, such as resnet50",
        ) from problem


def without_fetching(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What timm's ``create_model`` needs to take these tensors instead of fetching any."""
    overlay = {"state_dict": dict(tensors), "custom_load": False, "source": "", "label_offset": 0}
    return {"pretrained": True, "pretrained_cfg_overlay": overlay}
