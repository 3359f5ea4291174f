"""The network of the guide ``scene``: what was done to a picture, where, and how strongly.

Modelled on OneRestore's scene descriptor (12 classes from a ResNet), but continuous: four
labels that may hold together, a severity for each, and features that are never snapped to a
class.

Shape suffixes: B batch, C channels, H and W pixels, h and w cells of 16 pixels, D = 128, K = 4.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfe_cache.degradations import KINDS
from mmfe_cache.embeddings import NUM_TOKENS, Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.pooling import GRID, Projection, pool_grid

TRAITS = ("airlight", "noise", "luminance")
"""What undoing the damage takes beside its severities. The haze's airlight, from 0 (darkest
published) to 1: two pictures under haze of one severity need different things where it is grey or
white. The standard deviation of low light's noise, 1 the strongest published: how much to smooth a
dark picture is a matter of its noise, not of its darkness. The mean of the clean picture's red,
green and blue."""

DIM = 128
"""D, the width of its embeddings."""

STRIDE = 16
"""Pixels per cell of the feature maps."""

MIN_SIDE = 4 * STRIDE
"""The smallest side the network sees: the 4×4 grid of tokens then is one cell a token."""

CLEAN_STATISTICS = 6
"""Per cell: mean of R, G, B and of their spread in the clean picture."""

LOCAL = DIM // 2
"""Features of each cell in the maps of ``image`` and ``joint``."""

LEVELS = 16
"""Bins of the histograms of tones."""


STATISTICS = 2 * (48 + 96 + DIM) + 3 * LEVELS
"""Numbers that `SceneTrunk` says of a whole picture."""


@dataclass(frozen=True, slots=True)
class SceneOutput:
    """What the network says of B pictures.

    Attributes:
        image: (B, LOCAL, h, w) features of the degraded picture.
        joint: (B, LOCAL, h, w) the same after a second stage that knows the predicted composition.
        answer: (B, D) the global feature from which composition and severity are predicted.
        labels: (B, K) logits: is this degradation there?
        severities: (B, K) in [0, 1], 0 absent, 1 the strongest published.
        traits: (B, 3) in [0, 1], see `TRAITS`; of meaning where what has the trait is there.
        clean: (B, 6, h, w) guessed mean and spread of the clean picture in each cell.
    """

    image: Tensor
    joint: Tensor
    answer: Tensor
    labels: Tensor
    severities: Tensor
    traits: Tensor
    clean: Tensor


class _Conv(nn.Sequential):
    """3×3 convolution, batch norm, GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, act: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if act else []))


class _Block(nn.Module):
    """A residual pair of 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_Conv(channels, channels), _Conv(channels, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class _DescriptionTokens(nn.Module):
    """What is wrong with a picture, as the oracle says the truth: (B, K + 3) to (B, 16, D)."""

    weights: Tensor
    bias: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        projection = Projection(("scene", kind), len(KINDS) + len(TRAITS), GRID * GRID, DIM)
        # The same for every training, so they are not part of the file.
        for name, values in (("weights", projection.weights), ("bias", projection.bias)):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, said: Tensor) -> Tensor:
        features = math.sqrt(2) * torch.tanh(said @ self.weights + self.bias)
        return features.unflatten(1, (GRID * GRID, DIM))


def make_summary() -> nn.Sequential:
    """The small MLP from `STATISTICS` to D numbers."""
    return nn.Sequential(
        nn.BatchNorm1d(STATISTICS), nn.Linear(STATISTICS, 192), nn.GELU(), nn.Linear(192, DIM)
    )


class SceneTrunk(nn.Module):
    """The trunk of ``scene`` and of every student: maps at three scales, and their statistics.

    The first layer sees colours, log luminance and the fine structure of both, because streaks and
    flakes in a dark picture are differences of a few grey levels. Mean and standard deviation of
    the maps of three scales are the summary's: noise and contrast are spreads, not means. So are a
    histogram of tones and the fine structure at each tone: how dark a picture was made shows in
    its tones, and the noise of low light in its shadows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(24, 32)
        self.fine = nn.Sequential(_Conv(32, 48, stride=2), _Block(48))
        self.middle = nn.Sequential(_Conv(48, 96, stride=2), _Block(96))
        self.coarse = nn.Sequential(_Conv(96, DIM, stride=2), _Block(DIM))

    def trunk_features(self, groups: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Features of one batch of pictures, in groups of one size each.

        Args:
            groups: (B, 3, H, W) RGB in [0, 1]; sides a multiple of 2 and at least `MIN_SIDE`.

        Returns:
            Of each group (B, DIM, h, w) the coarsest map, and (B, STATISTICS) what the whole
            picture holds.
        """
        fronts = [_front(pictures) for pictures in groups]
        stem = _through(self.stem, [F.pixel_unshuffle(front, 2) for front in fronts])
        fine = _through(self.fine, stem)
        middle = _through(self.middle, fine)
        coarse = _through(self.coarse, middle)
        found: list[tuple[Tensor, Tensor]] = []
        for pictures, front, *maps in zip(groups, fronts, fine, middle, coarse, strict=True):
            moments = [_moments(x) for x in maps]
            found.append((maps[-1], torch.cat([*moments, _tones(pictures, front)], dim=1)))
        return found


def _through(part: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """A part of the trunk on the maps of one batch, of one size or several.

    A norm that learns takes its statistics of all of them: a picture that is normalised by itself
    loses how it differs from the others, which the running statistics keep.
    """
    if len(maps) == 1:
        return [part(maps[0])]
    if isinstance(part, nn.Sequential):
        for layer in part:
            maps = _through(layer, maps)
        return maps
    if isinstance(part, _Block):
        return [F.relu(x + y) for x, y in zip(maps, _through(part.body, maps), strict=True)]
    if not isinstance(part, nn.BatchNorm2d):
        return [part(x) for x in maps]
    rasters = [x.permute(0, 2, 3, 1) for x in maps]
    pixels = part(torch.cat([raster.flatten(0, 2) for raster in rasters])[:, :, None, None])
    parts = pixels.flatten(1).split([raster.shape[:3].numel() for raster in rasters])
    # Copies, since what follows works in place.
    return [
        one.unflatten(0, raster.shape[:3]).permute(0, 3, 1, 2).clone()
        for one, raster in zip(parts, rasters, strict=True)
    ]


class SceneNetwork(SceneTrunk):
    """A small fully convolutional network; any height and width from `MIN_SIDE` on."""

    def __init__(self) -> None:
        super().__init__()
        self.to_image = nn.Conv2d(DIM, LOCAL, 1, bias=False)
        self.image_norm = nn.BatchNorm2d(LOCAL, affine=False)
        self.image_said = _DescriptionTokens("image")
        self.summary = make_summary()
        self.answer_norm = nn.BatchNorm1d(DIM, affine=False)
        self.label_head = nn.Linear(DIM, len(KINDS))
        self.severity_head = nn.Linear(DIM, len(KINDS))
        self.trait_head = nn.Linear(DIM, len(TRAITS))
        self.condition = nn.Linear(2 * len(KINDS), 2 * DIM)
        self.second = nn.Sequential(_Conv(DIM, DIM), nn.Conv2d(DIM, LOCAL, 1, bias=False))
        self.joint_norm = nn.BatchNorm2d(LOCAL, affine=False)
        self.joint_said = _DescriptionTokens("joint")
        self.clean_head = nn.Conv2d(LOCAL, CLEAN_STATISTICS, 1)

    def forward(self, picture_BCHW: Tensor) -> SceneOutput:
        """What the network says of B pictures.

        Args:
            picture_BCHW: RGB in [0, 1]; sides a multiple of 2 and at least `MIN_SIDE`.
        """
        [(coarse, pooled)] = self.trunk_features([picture_BCHW])
        answer = self.answer_norm(self.summary(pooled))
        labels = self.label_head(answer)
        severities = torch.sigmoid(self.severity_head(answer))
        traits = torch.sigmoid(self.trait_head(answer))
        image = self.image_norm(self.to_image(coarse))
        # The second stage reads what was predicted, as an MLLM's tokens read its prompt: the
        # same cell means another thing under haze than in the dark.
        said = torch.cat([torch.sigmoid(labels), severities], dim=1).detach()
        scale, shift = self.condition(said)[:, :, None, None].chunk(2, dim=1)
        joint = self.joint_norm(_unit(self.second(coarse * (1 + scale) + shift)))
        clean = self.clean_head(joint)
        return SceneOutput(image, joint, answer, labels, severities, traits, clean)

    def tokens(self, output: SceneOutput) -> tuple[Tensor, Tensor]:
        """The tokens of ``image`` and ``joint`` of B pictures, (B, 17, D) each.

        Each says in its own way what the whole picture suffers from, and on top of that has the
        features of its own cells: an MLLM's image tokens have seen the whole picture and know their
        place too. Token 0 is the mean.
        """
        said = _description_vector(output.labels, output.severities, output.traits)
        return (
            _tokens(output.image, self.image_said(said)),
            _tokens(output.joint, self.joint_said(said)),
        )

    def tokens_of_answer(self, answer_BD: Tensor) -> tuple[Tensor, Tensor]:
        """What tokens of ``image`` and ``joint`` say by ``answer`` alone: no cell's features."""
        labels = self.label_head(answer_BD)
        severities, traits = (
            torch.sigmoid(head(answer_BD)) for head in (self.severity_head, self.trait_head)
        )
        said = _description_vector(labels, severities, traits)
        image, joint = (_with_mean(kind(said)) for kind in (self.image_said, self.joint_said))
        return image, joint


def _description_vector(labels: Tensor, severities: Tensor, traits: Tensor) -> Tensor:
    """(B, K + 3): severities and traits, 0 where the degradation that they belong to is absent."""
    present = torch.sigmoid(labels.float())
    low, haze = (present[:, KINDS.index(kind)] for kind in ("low", "haze"))
    airlight, noise, luminance = traits.float().unbind(dim=1)
    # On scales on which each of them spreads about as much as the severities do.
    scaled = [haze * (1 + airlight) / 2, low * noise, 2 * luminance]
    return torch.cat([present * severities.float(), torch.stack(scaled, dim=1)], dim=1)


def _tokens(map_BChw: Tensor, said_BTD: Tensor) -> Tensor:
    own = pool_grid(map_BChw.permute(0, 2, 3, 1))
    return _with_mean(said_BTD) + F.pad(own, (0, DIM - LOCAL))


def _with_mean(tokens_BTD: Tensor) -> Tensor:
    return torch.cat([tokens_BTD.mean(dim=1, keepdim=True), tokens_BTD], dim=1)


def _unit(map_BChw: Tensor) -> Tensor:
    """Each cell's vector at a root mean square of 1, as the last norm of an MLLM leaves its tokens.

    Without it, few pictures take nearly all the variance, and most say next to nothing.
    """
    full = map_BChw.float()
    return full * torch.rsqrt(full.square().mean(dim=1, keepdim=True) + 1e-4)


def _front(picture_BCHW: Tensor) -> Tensor:
    """(B, 6, H, W): colours, log luminance, and the fine structure of both luminances."""
    luminance = picture_BCHW.mean(dim=1, keepdim=True)
    logarithm = torch.log2(luminance + 1 / 64) / 3 + 1
    tall = torch.cat([luminance, logarithm], dim=1)
    around = F.pad(tall, (3, 3, 3, 3), mode="replicate")
    fine = tall - F.avg_pool2d(F.avg_pool2d(around, (7, 1), stride=1), (1, 7), stride=1)
    return torch.cat([4 * (picture_BCHW - 0.5), logarithm, 8 * fine], dim=1)


def _tones(picture_BCHW: Tensor, front_BCHW: Tensor) -> Tensor:
    """(B, 3·LEVELS): how often each luminance and log luminance occurs; the noise at each."""
    luminance = picture_BCHW.float()[:, :, ::2, ::2].mean(dim=1).flatten(1)
    logarithm = (torch.log2(luminance + 1 / 64) + 6) / 6.03
    noise = front_BCHW.float()[:, 4, ::2, ::2].abs().flatten(1)
    levels = torch.arange(LEVELS, device=luminance.device)[:, None]
    # Triangular bins: a histogram that moves smoothly with its picture.
    share = [
        (1 - (tone[:, None] * (LEVELS - 1) - levels).abs()).clamp_min(0)
        for tone in (luminance, logarithm)
    ]
    often = [part.mean(dim=2) for part in share]
    grain = (share[1] * noise[:, None]).mean(dim=2) / (often[1] + 1e-3)
    return torch.cat([*often, grain], dim=1)


def _moments(map_BChw: Tensor) -> Tensor:
    """(B, 2C): each channel's mean and standard deviation over the picture."""
    variance, mean = torch.var_mean(map_BChw.float(), dim=(2, 3), correction=0)
    return torch.cat([mean, torch.sqrt(variance + 1e-4)], dim=1)


ABSENT_LOGIT = -5.0
"""Where the heads of label and severity are moved to: 0.7 %. Caches of partial targets were built
with this number and networks are trained on it; another one would be another way of asking."""


def ask_only(network: SceneNetwork, embeddings: Embeddings, kinds: Collection[str]) -> Embeddings:
    """What ``network`` would say if nothing but ``kinds`` were wrong with its pictures.

    A restorer takes away what its guide's embeddings say is there. What is said is read off the
    answer by linear heads, so the answer can be moved to where the heads call a degradation absent
    and everything else stays as it was said. The tokens of ``image`` and ``joint`` are a sum of
    what is said and of features of their cells; the first part is exchanged, the second is the
    picture's.

    Args:
        network: in evaluation mode.
        embeddings: of B pictures as it gave them: ``image`` and ``joint`` (B, 17, D), ``answer``
            (B, D), on any device.
        kinds: of `KINDS`; what is not there stays absent.

    Returns:
        The same shapes, float32. The answer is the nearest one whose heads say so; a picture with
        none but ``kinds`` keeps its embeddings.

    Raises:
        GuideError: an embedding is missing, or has other tokens.
    """
    image, joint, answer = embeddings.image, embeddings.joint, embeddings.answer
    if image is None or joint is None or answer is None or image.shape[1] != NUM_TOKENS:
        raise GuideError(
            "asking for some degradations takes all that the guide gave",
            got=", ".join(f"{name} {tuple(t.shape)}" for name, t in embeddings.present().items()),
            expected=f"image and joint of {NUM_TOKENS} tokens, and answer",
        )
    device = next(network.parameters()).device
    with torch.inference_mode():
        before = answer.to(device, torch.float32)
        after = _moved(network, before, kinds)
        pairs = zip(network.tokens_of_answer(before), network.tokens_of_answer(after), strict=True)
        changes = [(new - old).to(answer.device) for old, new in pairs]
        asked = Embeddings(
            image.float() + changes[0], joint.float() + changes[1], after.to(answer.device)
        )
    return asked.out_of_inference()


def _moved(network: SceneNetwork, answer_BD: Tensor, kinds: Collection[str]) -> Tensor:
    """The answers nearest to ``answer_BD`` at which all other kinds are absent, (B, D)."""
    heads = (network.label_head, network.severity_head, network.trait_head)
    matrix = torch.cat([head.weight for head in heads]).double()  # (2K + 3, D)
    said = torch.cat([head(answer_BD) for head in heads], dim=1).double()
    wanted = said.clone()
    for index, kind in enumerate(KINDS):
        if kind not in kinds:
            for column in (index, len(KINDS) + index):
                wanted[:, column] = said[:, column].clamp(max=ABSENT_LOGIT)
    step = (wanted - said) @ torch.linalg.pinv(matrix).T
    return answer_BD + step.float()
