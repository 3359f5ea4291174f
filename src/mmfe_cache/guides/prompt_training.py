"""How the head of the guide ``prompt`` is made: ``mmfe guide train PHOTOS --kind prompt``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfe_cache.datasets.photographs import Photograph
from mmfe_cache.datasets.synth_inputs import clean_photographs
from mmfe_cache.degradations import KINDS, PROCEDURAL, DegradationConfig
from mmfe_cache.guides.prompt import CLASSES, PromptHead
from mmfe_cache.guides.scene.data import compose
from mmfe_cache.guides.scene.guide import SceneGuide
from mmfe_cache.guides.scene.training import split_photos
from mmfe_cache.images import read_noted
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray
from mmfe_cache.seeds import generator
from mmfe_cache.views import View

TRAINING_VIEWS = ("whole@128", "whole@224", "crop@128", "crop@224", "native")
"""What it is trained on: each picture is seen in one of them."""

_PENALTY = 1e-3
"""Weight of the squared coefficients, on features of unit variance."""


@dataclass(frozen=True, slots=True)
class PromptTraining:
    """What a training did.

    Attributes:
        head: the head.
        pictures: it was fitted to.
        accuracy: the share of them that it assigns rightly.
        photos: photographs they were made of.
        held_out: photographs that were set aside.
        seconds: wall time.
    """

    head: PromptHead
    pictures: int
    accuracy: float
    photos: tuple[Photograph, ...]
    held_out: tuple[Photograph, ...]
    seconds: float


def train_prompt(
    folder: Path,
    *,
    seed: int = 0,
    hold_out: int = 40,
    device: torch.device | None = None,
    config: DegradationConfig = PROCEDURAL,
    progress: Progress | None = None,
) -> PromptTraining:
    """Fit the head to photographs in every class, as the shipped ``scene`` sees them.

    Args:
        folder: photographs, also in subfolders.
        seed: of the degradations and views.
        hold_out: photographs set aside; those of one scene stay together.
        device: where ``scene`` runs.
        config: masks and maps to use instead of procedural ones.
        progress: where to report.

    Raises:
        DataError: photographs without their maps, or maps that cannot be read.
    """
    report, started = progress or Progress(), time.perf_counter()
    photos, held_out = split_photos(clean_photographs(folder, config, report), hold_out)
    names, others = ([photo.name for photo in part] for part in (photos, held_out))
    for line in config.check(names, KINDS, others=others):
        report.warn(line)
    guide = SceneGuide(device=device or torch.device("cpu"))
    answers: list[Tensor] = []
    truth: list[int] = []
    with report.task("training prompt", len(photos), "photographs") as task:
        for photo in photos:
            batch = list(_pictures(photo, seed, config))
            found = guide.encode([picture for picture, _ in batch]).answer
            assert found is not None
            answers.append(found)
            truth += [place for _, place in batch]
            task.advance()
    x, y = torch.cat(answers), torch.tensor(truth)
    weight, bias = fit_classes(x, y, len(CLASSES))
    vectors = torch.stack([x[y == place].mean(dim=0) for place in range(len(CLASSES))])
    head = PromptHead(weight, bias, vectors, str(guide.fingerprint()["weights"]))
    right = float((head.classify(x) == y).float().mean())
    seconds = time.perf_counter() - started
    return PromptTraining(head, len(y), right, tuple(photos), tuple(held_out), seconds)


def _pictures(
    photo: Photograph, seed: int, config: DegradationConfig
) -> Iterator[tuple[ImageArray, int]]:
    """One photograph in every class, each seen in one of `TRAINING_VIEWS`."""
    clean, _ = read_noted(photo.path)  # `clean_photographs` tells of its notes, once
    for place, name in enumerate(CLASSES):
        parts = ("prompt", seed, photo.path.name, 0)  # the picture's number: one of each class
        made = compose(
            clean, name, seed_parts=parts, uniform=False, config=config, photograph=photo.name
        )
        views = generator("prompt-view", seed, photo.path.name, name, 0)
        view = View.parse(TRAINING_VIEWS[int(views.integers(len(TRAINING_VIEWS)))])
        yield view.render(made.degraded), place


def fit_classes(x_ND: Tensor, y_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a small penalty, by L-BFGS in float64.

    Args:
        x_ND: features.
        y_N: classes, 0 to ``classes`` − 1.
        classes: how many there are.

    Returns:
        (classes, D) weights and (classes,) biases, float32.
    """
    x = x_ND.double()
    middle, spread = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x = (x - middle) / spread
    layer = nn.Linear(x.shape[1], classes).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(layer(x), y_N) + _PENALTY * layer.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        weight = layer.weight / spread
        bias = layer.bias - weight @ middle
    return weight.float(), bias.float()
