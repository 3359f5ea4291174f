"""A vision encoder of timm as a guide: what a picture's features say without any language.

Shape suffixes: B batch, C channels of one stage, h and w its rows and columns, D.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import PixelGuide, Precision, check_image, pick_dtype
from mmfe_cache.guides.pooling import GRID, pool_grid
from mmfe_cache.guides.registry import GuideInfo
from mmfe_cache.guides.timm_models import (
    RANDOM,
    Encoder,
    TimmName,
    find_encoder,
    import_timm,
    make_features,
    without_fetching,
)
from mmfe_cache.machine import pick_device
from mmfe_cache.samples import ImageArray
from mmfe_cache.views import mirror_to

MAX_PIXELS = 512 * 512
"""The pixel budget under the view ``native``; larger pictures are shrunk to it."""

_CPU_PIXELS = 4 * 224 * 224
"""Pixels that a CPU runs at once: about what its caches hold of the first stages' maps."""

_INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


class TimmGuide(PixelGuide):
    """A frozen encoder whose stages are pooled over a 4×4 grid and over the whole picture.

    ``image`` are the features of the grid's cells: with ``pool="stages"`` mean and spread of every
    stage's map over the cell, each stage's part divided by its root mean square over the whole
    picture, so that no stage drowns another; with ``pool="last"`` the last stage's map. ``answer``
    is the same of the whole picture and token 0 of ``image``; ``joint`` is ``image`` with every
    token brought to mean 0 and variance 1, as the last norm of a transformer does.

    Args:
        name: the parts of its name.
        device: where to run.
        precision: of weights and arithmetic; pooling is float32 always.

    Raises:
        UsageError: timm has no such model, or the precision is unknown.
        GuideError: its weights are not on this machine, damaged, or of another model.
    """

    def __init__(
        self, name: TimmName, *, device: torch.device, precision: Precision = "auto"
    ) -> None:
        if device.type == "mps":  # it knows no float64, which pooling takes
            device = torch.device("cpu")
        self._encoder = find_encoder(name.model)
        self.dtype, self.tf32 = pick_dtype(precision, device), precision == "tf32"
        network, self._digest, self._weights = load_encoder(name, self._encoder)
        self._pool: Literal["stages", "last"] = name.pool
        if device.type == "cpu" and self.dtype == torch.float32:
            network = fold_norms(network, self._encoder)
        network = network.to(device, self.dtype).to(memory_format=torch.channels_last)
        super().__init__(name.plain, self._encoder.dim(name.pool), network, device)

    @classmethod
    def load(
        cls,
        info: GuideInfo,
        name_or_dir: str | Path,
        *,
        device: str,
        precision: Precision,
        prompt: str | None,
    ) -> TimmGuide:
        """Load the encoder that ``name_or_dir`` names; see `load_guide`."""
        chosen = pick_device(device)
        return cls(TimmName.parse(str(name_or_dir)), device=chosen, precision=precision)

    def prepare(self, image: ImageArray) -> ImageArray:
        """Bring one image to a size that the encoder takes, (H, W, 3) uint8.

        An encoder of a fixed size gets the whole picture at that size. Any other sees the
        picture's own pixels: above the pixel budget it shrinks, and it is mirrored to a multiple
        of the coarsest stage's cells, of which there are two at least.
        """
        height, width = check_image(image).shape[:2]
        size = self._encoder.size
        if size is None and height * width > MAX_PIXELS:
            scale = (MAX_PIXELS / (height * width)) ** 0.5
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
        if size is not None and size != (height, width):
            resized = Image.fromarray(image).resize((size[1], size[0]), self._kernel)
            image = np.asarray(resized)
        if self._encoder.size is not None:
            return image
        cell = self._encoder.stride
        rows, columns = (max(2, -(-side // cell)) * cell for side in image.shape[:2])
        return mirror_to(image, rows, columns)

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        encoder = self._encoder
        # Models that differ in their tag alone may differ in this.
        usual = self._kernel == Image.Resampling.BICUBIC
        shrunk = {} if usual else {"interpolation": encoder.interpolation}
        return {
            "guide": "timm",
            "model": encoder.model.split(".")[0],
            "weights": self._digest,
            "pooling": {
                "stages": "mean and spread of all stages, each at RMS 1: picture + 4x4 grid",
                "last": "last stage: mean + 4x4 grid",
            }[self._pool],
            "size": f"at most {MAX_PIXELS} pixels" if encoder.size is None else list(encoder.size),
            "mean": list(encoder.mean),
            "spread": list(encoder.spread),
            "dtype": self.precision,
            **shrunk,
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        more = {"model": self._encoder.model, "dtype": self.precision}
        return self._about("timm", self._encoder.licence, self._weights, **more)

    @property
    def _kernel(self) -> Image.Resampling:
        return _INTERPOLATIONS.get(self._encoder.interpolation, Image.Resampling.BICUBIC)

    def _shape(self, prepared: ImageArray) -> Hashable:
        return prepared.shape

    def _encode_batch(self, prepared: Sequence[ImageArray]) -> Embeddings:
        height, width = prepared[0].shape[:2]
        step = len(prepared)
        if self.device.type == "cpu":
            step = max(1, _CPU_PIXELS // (height * width))
        tokens = torch.cat(
            [self._tokens(prepared[at : at + step]) for at in range(0, len(prepared), step)]
        )
        return Embeddings(tokens, F.layer_norm(tokens, tokens.shape[-1:]), tokens[:, 0])

    def _tokens(self, prepared: Sequence[ImageArray]) -> Tensor:
        """(B, 17, D): the whole picture, then its cells."""
        batch = self._to_device(prepared).permute(0, 3, 1, 2)
        maps = self._maps(((batch.float() - self._mean) / self._spread).to(self.dtype))
        if self._pool == "last":
            return pool_grid(maps[-1].permute(0, 2, 3, 1))
        return torch.cat([describe_stage(stage) for stage in maps], dim=2)

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        """(B, C, h, w) of every stage."""
        found = cast("list[Tensor]", self._network(pictures))
        if self._encoder.channels_last:  # the sizes cannot tell: there may be C rows
            found = [stage.permute(0, 3, 1, 2) for stage in found]
        assert tuple(stage.shape[1] for stage in found) == self._encoder.channels
        return found

    @cached_property
    def _mean(self) -> Tensor:
        return 255 * torch.tensor(self._encoder.mean, device=self.device)[:, None, None]

    @cached_property
    def _spread(self) -> Tensor:
        return 255 * torch.tensor(self._encoder.spread, device=self.device)[:, None, None]


def describe_stage(stage_BChw: Tensor) -> Tensor:
    """Mean and spread of one stage's map, over the picture and over the cells of a 4×4 grid.

    Args:
        stage_BChw: any floating type, h and w at least 1.

    Returns:
        (B, 17, 2C) float32, token 0 the whole picture's; divided by token 0's root mean square.
    """
    stage = stage_BChw.permute(0, 2, 3, 1)
    height, width = stage.shape[1:3]
    # A spread is a small difference of squares, and a map's cells may have none at all: either in
    # two passes, or in float64, which is slower.
    if height % GRID == 0 and width % GRID == 0:
        cells = stage.float().unflatten(2, (GRID, -1)).unflatten(1, (GRID, -1))
        middle = cells.mean(dim=(2, 4), keepdim=True)
        variance = (cells - middle).square().mean(dim=(2, 4)).flatten(1, 2)
        middle = middle.flatten(1, 4)
        mean = middle.mean(dim=1, keepdim=True)
        whole = variance.mean(dim=1, keepdim=True) + middle.var(dim=1, correction=0, keepdim=True)
        mean, variance = torch.cat([mean, middle], dim=1), torch.cat([whole, variance], dim=1)
    else:
        mean = pool_grid(stage.double())
        variance = (pool_grid(stage.double().square()) - mean.square()).clamp_min(0)
    both = torch.cat([mean.float(), variance.sqrt().float()], dim=2)
    return both * torch.rsqrt(both[:, :1].square().mean(dim=2, keepdim=True) + 1e-12)


def load_encoder(name: TimmName, encoder: Encoder) -> tuple[nn.Module, str, str]:
    """Make the network that gives the stages' maps, in evaluation mode.

    Returns:
        The network; BLAKE2b-128 of its tensors, the same wherever they were read from; and where
        that was, for people.

    Raises:
        GuideError: the weights are not on this machine, damaged, or of another model.
    """
    timm = import_timm()
    if name.weights == RANDOM:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network, place = make_features(name.model), "random, seed 0"
    else:
        path = find_weights(name, encoder)
        try:
            tensors = _in_order(name.model, _read(path))
            # Strictly into the whole model first: a model that gives features forgives what lacks.
            whole = timm.create_model(name.model, **without_fetching(tensors))
            network, place = make_features(name.model, whole.state_dict()), str(path)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise GuideError(
                f"these are no weights of timm's {name.model}",
                got=f"{path}: {' '.join(str(problem).split())[:300]}",
                expected="a file of its tensors, by name or in its order",
            ) from problem
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in network.state_dict().items():
        digest.update(f"{key}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return network.eval().requires_grad_(False), digest.hexdigest(), place


def find_weights(name: TimmName, encoder: Encoder) -> Path:
    """The file of weights that is meant; nothing is downloaded here.

    Raises:
        GuideError: it is not on this machine.
    """
    if name.weights is not None:
        path = Path(name.weights)
        if not path.is_file():
            raise GuideError(
                f"the weights of the guide {name.plain} are not there",
                got=path,
                expected="a .safetensors, .pth or .bin file",
            )
        return path
    remedy = "--weights FILE; an untrained encoder: --weights random"
    if encoder.repository is not None:
        from huggingface_hub import try_to_load_from_cache

        for file in (encoder.file,) if encoder.file else ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(encoder.repository, file)
            if isinstance(cached, str):
                return Path(cached)
        remedy = f"hf download {encoder.repository}   (or {remedy})"
    raise GuideError(
        f"the weights of the guide {name.plain} are not on this machine",
        got=f"no {encoder.repository or 'published weights'} in the Hugging Face cache",
        expected="downloaded weights, or a file",
        remedy=remedy,
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; no code in it is run.

    Raises:
        ValueError: it holds no tensors by name.
        RuntimeError: it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as problem:
        raise RuntimeError(f"it cannot be read: {problem}") from problem
    except Exception as problem:  # torch.load has no error of its own
        raise RuntimeError(f"it cannot be read: {problem}") from problem
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not all(torch.is_tensor(x) for x in found.values()):
        raise ValueError("it holds something else than tensors by name")
    return {str(key).removeprefix("module."): tensor for key, tensor in found.items()}


def _in_order(model: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by timm's own names, where another project named them but kept their order."""
    timm = import_timm()
    with torch.device("meta"):
        wanted = timm.create_model(model).state_dict()
    if wanted.keys() & tensors.keys() or len(wanted) != len(tensors):
        return tensors
    pairs = zip(wanted.values(), tensors.values(), strict=True)
    if any(mine.shape != theirs.shape for mine, theirs in pairs):
        return tensors
    return dict(zip(wanted, tensors.values(), strict=True))


def fold_norms(network: nn.Module, encoder: Encoder) -> nn.Module:
    """Fold batch norms into the convolutions that feed them, which nearly halves a CPU's work.

    Which convolution feeds which norm is watched in one run. A network that computes something
    else afterwards, because a convolution's result is also used elsewhere, is left as it was.
    """
    side = 64 if encoder.size is None else encoder.size
    size = (side, side) if isinstance(side, int) else side
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        trial = torch.randn(1, 3, *size)
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: dict[nn.Module, nn.Conv2d] = {}

    def remember(module: nn.Module, _given: Any, result: Tensor) -> None:
        made[id(result)] = (cast("nn.Conv2d", module), result)  # kept, so that no id comes again

    def pair(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if id(given[0]) in made:
            pairs[module] = made[id(given[0])][0]

    hooks: list[Any] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(remember))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(pair))
    with torch.inference_mode():
        expected = network(trial)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    before: list[tuple[str, nn.Module]] = []
    if len(set(pairs.values())) != len(pairs):
        return network  # one convolution before two norms
    for norm, convolution in pairs.items():
        # timm's BatchNormAct2d is a norm, a dropout that is off, and an activation.
        rest = cast("nn.Module", getattr(norm, "act", nn.Identity()))
        for old, new in (
            (convolution, fuse_conv_bn_eval(convolution, cast("Any", norm))),
            (norm, rest),
        ):
            before.append((names[old], old))
            network.set_submodule(names[old], new)
    with torch.inference_mode():
        found = network(trial)
    same = all(
        (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()
        for mine, theirs in zip(found, expected, strict=True)
    )
    if not same:
        for name, old in before:
            network.set_submodule(name, old)
    return network
