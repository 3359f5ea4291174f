"""How the weights of the guide ``scene`` are made: seeded, on photographs and synthetic damage.

One command reproduces them: ``mmfe guide train PHOTOS --out FILE``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfe_cache.datasets.photographs import Photograph
from mmfe_cache.datasets.synth_inputs import clean_photographs
from mmfe_cache.degradations import KINDS, PROCEDURAL, DegradationConfig
from mmfe_cache.errors import DataError
from mmfe_cache.guides.pooling import pool_grid
from mmfe_cache.guides.scene.data import SceneBatch, training_batches
from mmfe_cache.guides.scene.network import SceneNetwork, SceneOutput
from mmfe_cache.machine import float32_products, require_bf16
from mmfe_cache.progress import Progress
from mmfe_cache.seeds import generator

SETTLING = 80
"""Batches over which the statistics of the trained network are fixed; fewer after fewer than 20
steps, since a trial run would mostly settle."""

WEIGHTS = {"labels": 1.0, "severities": 2.0, "traits": 1.0, "relations": 2.0, "clean": 1.0}
"""The share of each term in the loss."""

LOCAL_SCALE = 0.25
"""Standard deviation of a token's own cells' features; those of the severities have about 1."""

COMMON = 1.0
"""Added to each component of ``answer``. The relational term trains cosines between -1 and 1, but
a router's sigmoids are positive, so L_MGL (Eq. 7) cannot follow negative ones. An MLLM's hidden
states share a large common part; with one of the same size, a cosine c becomes (c + 1) / 2."""

MEAN_SEVERITY = 0.2
"""About the average severity of a label, by which the relational term is centred."""


@dataclass(frozen=True, slots=True)
class SceneTraining:
    """What a training run did.

    Attributes:
        network: the trained network, in evaluation mode.
        steps: optimiser steps.
        pictures: pictures trained on, counting repeats.
        seconds: wall time.
        photos: photographs used for training.
        held_out: photographs never trained on, for validation.
        losses: the last hundred steps' mean of each term.
    """

    network: SceneNetwork
    steps: int
    pictures: int
    seconds: float
    photos: tuple[Photograph, ...]
    held_out: tuple[Photograph, ...]
    losses: dict[str, float]


def split_photos(
    photos: Sequence[Photograph], hold_out: int
) -> tuple[list[Photograph], list[Photograph]]:
    """Set ``hold_out`` photographs aside, or a few more; the same ones every time.

    Those of one scene stay together: a picture of it would tell nothing new of the other.

    Args:
        photos: in the order of their paths.
        hold_out: how many.

    Returns:
        The photographs to train on and those to validate on.

    Raises:
        DataError: nothing would be left to train on.
    """
    scenes: dict[str, list[Photograph]] = {}
    for photo in photos:
        scenes.setdefault(photo.scene, []).append(photo)
    names, aside, count = list(scenes), set[str](), 0
    for place in generator("scene-held-out").permutation(len(names)).tolist():
        if count >= hold_out:
            break
        aside.add(names[place])
        count += len(scenes[names[place]])
    if len(aside) == len(names):
        raise DataError(
            "too few photographs to hold some out",
            got=f"{len(photos)} photographs of {len(names)} scenes",
            expected=f"more than the {hold_out} of --hold-out",
            remedy="add photographs or lower --hold-out",
        )
    return (
        [photo for photo in photos if photo.scene not in aside],
        [photo for photo in photos if photo.scene in aside],
    )


@float32_products()
def train_scene(
    folder: Path,
    *,
    steps: int = 12000,
    seed: int = 0,
    hold_out: int = 40,
    workers: int = 1,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    config: DegradationConfig = PROCEDURAL,
    progress: Progress | None = None,
) -> SceneTraining:
    """Train the network of ``scene`` on the photographs in ``folder``.

    Args:
        folder: photographs, also in subfolders.
        steps: optimiser steps of about 48 pictures of 128².
        seed: of the initial weights, the pictures and the views.
        hold_out: photographs set aside; those of one scene stay together.
        workers: processes that render pictures; the result does not depend on it.
        learning_rate: the peak of a one-cycle schedule (AdamW).
        device: where to train.
        config: masks to use instead of procedural ones.
        progress: where to report.

    Raises:
        UsageError: a GPU without bfloat16.
        DataError: no photographs, or too few to hold some out.
    """
    require_bf16(device, "--device cpu")
    report = progress or Progress()
    photos, held_out = split_photos(clean_photographs(folder, config, report), hold_out)
    for line in config.check((), KINDS):
        report.warn(line)
    files = [photo.path for photo in photos]
    torch.manual_seed(seed)
    network = SceneNetwork().to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: one_cycle(done / steps))
    started, pictures = time.perf_counter(), 0
    recent: dict[str, list[float]] = {name: [] for name in WEIGHTS}
    with report.task("training scene", steps, "steps") as task:
        for step, batch in enumerate(training_batches(files, seed, steps, workers, config=config)):
            degraded = batch.degraded.to(device, memory_format=torch.channels_last)
            # The weights stay float32; products in bfloat16 nearly double the speed on a CPU.
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                output: SceneOutput = network(degraded)
            terms = losses(output, batch)
            loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            pictures += len(degraded)
            task.advance()
            for name, term in terms.items():
                recent[name].append(term.item())
            if (step + 1) % 100 == 0:
                now = {name: float(np.mean(values[-100:])) for name, values in recent.items()}
                line = ", ".join(f"{name} {value:.3f}" for name, value in now.items())
                spent = time.perf_counter() - started
                task.describe(f"{pictures / spent:.0f} images/s, {line}")
    network = network.cpu()
    recompute_norm_statistics(
        network,
        (
            batch.degraded
            for batch in training_batches(
                files, seed + 1, min(SETTLING, 4 * steps), workers, 1, config
            )
        ),
    )
    return SceneTraining(
        network=network,
        steps=steps,
        pictures=pictures,
        seconds=time.perf_counter() - started,
        photos=tuple(photos),
        held_out=tuple(held_out),
        losses={name: float(np.mean(values[-100:])) for name, values in recent.items()},
    )


def losses(output: SceneOutput, batch: SceneBatch) -> dict[str, Tensor]:
    """The five terms, unweighted.

    Args:
        output: the network's of ``batch.degraded``.
        batch: the truth.

    Returns:
        ``labels``: binary cross-entropy, a present degradation counting by how visible it is;
        ``severities`` and ``traits``: binary cross-entropy of values in [0, 1], where there are
        any; ``relations``: squared difference between the cosine similarities of the answers and of
        the centred severities, so that a mixture lies between its parts and nearest its strongest
        (the paper's Figure 1); ``clean``: L1 of the guessed statistics.
    """
    answer = output.answer.float()
    clean, severities, present, traits = (
        tensor.to(answer.device)
        for tensor in (batch.clean, batch.severities, batch.present, batch.traits)
    )
    known = ~traits.isnan()
    weight = torch.where(present, (severities / 0.2).clamp(0.05, 1.0), 1.0)
    truth = severities - MEAN_SEVERITY
    wanted = F.normalize(truth, dim=1) @ F.normalize(truth, dim=1).T
    seen = F.normalize(answer, dim=1)
    return {
        "labels": F.binary_cross_entropy_with_logits(
            output.labels.float(), present.float(), weight
        ),
        "severities": _cross_entropy(output.severities, severities),
        "traits": _cross_entropy(output.traits[known], traits[known]),
        "relations": F.mse_loss(seen @ seen.T, wanted),
        "clean": F.l1_loss(output.clean.float(), clean),
    }


def _cross_entropy(guessed: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy(guessed.float().clamp(1e-4, 1 - 1e-4), truth)


def recompute_norm_statistics(network: SceneNetwork, batches: Iterable[Tensor]) -> None:
    """Fix the statistics of a trained network, which then is in evaluation mode.

    Batch norms get the average over many batches instead of the last ones', and the features of
    ``image`` and ``joint`` a standard deviation of `LOCAL_SCALE` *after* pooling, so that
    whatever is trained on them is well conditioned. ``answer`` gets its common part (`COMMON`).
    The heads are changed to match.

    Args:
        network: trained.
        batches: (B, 3, r, r) pictures of all kinds and sizes; the last quarter sets the scale.
    """
    pictures = list(batches)
    network.train()
    average_from_now(network)
    scale = max(1, len(pictures) // 4)
    with torch.no_grad():
        for picture in pictures:
            network(picture)
        network.eval()
        seen = [network(picture) for picture in pictures[-scale:]]
        for norm, maps in (
            (network.image_norm, [output.image for output in seen]),
            (network.joint_norm, [output.joint for output in seen]),
        ):
            tokens = [pool_grid(m.permute(0, 2, 3, 1))[:, 1:].flatten(0, 1) for m in maps]
            spread, mean = torch.std_mean(torch.cat(tokens), dim=0)
            spread = spread.clamp_min(0.05)
            spread /= LOCAL_SCALE
            if norm is network.joint_norm:
                head = network.clean_head
                assert head.bias is not None
                head.bias += head.weight[:, :, 0, 0] @ mean
                head.weight *= spread[:, None, None]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            before = torch.sqrt(norm.running_var + norm.eps)
            norm.running_mean += mean * before
            norm.running_var.copy_((spread * before).square() - norm.eps)
        _add_common_part(network)


def average_from_now(network: nn.Module) -> None:
    """Let each batch norm forget its statistics and take the plain average of all that follows."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None


def _add_common_part(network: SceneNetwork) -> None:
    norm = network.answer_norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean -= COMMON * torch.sqrt(norm.running_var + norm.eps)
    for head in (network.label_head, network.severity_head, network.trait_head):
        head.bias.sub_(COMMON * head.weight.sum(dim=1))


def one_cycle(done: float) -> float:
    """One cycle: up in the first tenth, then a cosine to zero."""
    if done < 0.1:
        return 0.05 + 0.95 * done / 0.1
    return 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9)) + 1e-3
