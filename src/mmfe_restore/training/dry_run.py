"""What a run will do and the memory it needs, worked out before it does anything: ``--dry-run``."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mmfe_cache.datasets import load_dataset
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import MmfeError
from mmfe_cache.io import explain
from mmfe_cache.progress import Progress
from mmfe_restore.data import Schedule, build_command, find_store
from mmfe_restore.losses import fourier_loss, l1_loss
from mmfe_restore.model import Restorer, count_parameters, parameters_of
from mmfe_restore.model.folders import find_weights
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training import run_dir
from mmfe_restore.training.checkpoints import find_start, has_weights
from mmfe_restore.training.initial_weights import new_restorer, reads_otherwise
from mmfe_restore.training.inputs import Inputs, hold_out, open_inputs, require_options
from mmfe_restore.training.machine import Machine


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a planned run.

    Attributes:
        epochs: of the stage.
        resolution: of its crops, in pixels.
        batch_size: the global batch.
        per_device: samples that one device holds at once.
        views: what it reads from the cache.
        steps: optimiser steps; None where the data set could not be read.
        images: training crops; likewise.
        dropped: draws of every epoch left over by whole batches; likewise.
        memory: estimated bytes on one device.
    """

    epochs: int
    resolution: int
    batch_size: int
    per_device: int
    views: tuple[str, ...]
    steps: int | None
    images: int | None
    dropped: int | None
    memory: int


@dataclass(frozen=True)
class Plan:
    """A planned run.

    Attributes:
        recipe: its name.
        parameters: of the network.
        samples: training samples; None where the data set could not be read.
        draws_per_epoch: with repeats; likewise.
        held_out: samples held out for validation; likewise.
        processes: that share a global batch.
        precision: Lightning's name.
        steps: optimiser steps of the whole run; None where the data set could not be read.
        images: training crops of the whole run; likewise.
        cache: where the cache lies or should lie, several with commas between; None for an unguided
            network.
        build: the command that makes that cache, or those; likewise.
        stages: in order.
        problem: what would stop the run before its first step; None where nothing would.
        warnings: what the run would say of the weights that it begins with.
    """

    recipe: str
    parameters: int
    samples: int | None
    draws_per_epoch: int | None
    held_out: int | None
    processes: int
    precision: str
    steps: int | None
    images: int | None
    cache: str | None
    build: str | None
    stages: tuple[PlannedStage, ...]
    problem: MmfeError | None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``problem`` is its text and ``exit_code`` what a run would exit with."""
        values = asdict(self)
        values["problem"] = None if self.problem is None else str(self.problem)
        values["exit_code"] = 0 if self.problem is None else self.problem.exit_code
        return values


def plan_run(
    recipe: Recipe,
    *,
    root: Path | None = None,
    cache: Path | None = None,
    out: Path | None = None,
    resume: Literal["auto"] | Path | None = "auto",
    init_from: str | Path | None = None,
    wandb: str | None = None,
) -> Plan:
    """Work out stages, steps, images, views and memory, and find what would stop the run.

    Reads the data set's list, the cache's metadata and what ``out`` holds; computes nothing on a
    GPU and writes nothing. The arguments are those of `train`: weights ``init_from`` are read and
    must fit where the run begins, to ``wandb`` nothing is sent; without ``out`` it begins.

    Raises:
        UsageError: the recipe does not fit the machine; for ``init_from`` and ``wandb`` as
            `train`.
        ModelError: ``init_from`` does not fit.
    """
    machine = Machine.detect()
    machine.check(recipe)
    begins = out is None or not has_weights(out, resume)
    weights = None if init_from is None else find_weights(init_from, needed=begins)
    require_options(weights if begins else None, wandb)
    if out is not None:
        run_dir.check_one_start(out, resume, weights)
    if begins and weights is not None:
        new_restorer(recipe, weights)
    problem: MmfeError | None = None
    schedule: Schedule | None = None
    samples = held = fingerprint = None
    try:
        inputs = open_inputs(recipe, root=root, cache=cache, progress=Progress())
        schedule, samples = inputs.schedule, len(inputs.samples)
        held = len(inputs.validation)
        fingerprint = inputs.fingerprint
    except MmfeError as found:
        problem = found
        schedule, samples, held = _schedule_without_cache(recipe, root)
    else:
        if out is not None:
            try:
                _check_out(recipe, inputs, out, resume, weights)
            except MmfeError as found:
                problem = found
    otherwise = reads_otherwise(recipe, weights if begins else None, fingerprint)
    parts = machine.world_size * recipe.train.accumulate
    precision = machine.precision(recipe)
    stages = tuple(
        PlannedStage(
            epochs=stage.epochs,
            resolution=stage.resolution,
            batch_size=stage.batch_size,
            per_device=stage.batch_size // parts,
            views=recipe.stage_views(stage) if recipe.model.reads else (),
            steps=None if schedule is None else schedule.steps_of(index),
            images=None if schedule is None else schedule.steps_of(index) * stage.batch_size,
            dropped=None if schedule is None else schedule.stages[index].dropped,
            memory=estimate(
                recipe,
                stage.resolution,
                stage.batch_size // parts,
                precision,
                keeps=machine.activation_memory(recipe) if machine.compiles(recipe) else None,
            ).total,
        )
        for index, stage in enumerate(recipe.train.stages)
    )
    each = recipe.each_prompt if recipe.model.reads else ()
    dataset = recipe.data.dataset
    return Plan(
        recipe=recipe.name,
        parameters=parameters_of(recipe.model),
        samples=samples,
        draws_per_epoch=None if schedule is None else schedule.draws_per_epoch,
        held_out=held,
        processes=machine.world_size,
        precision=precision,
        steps=None if schedule is None else schedule.steps,
        images=None if schedule is None else sum(s.images or 0 for s in stages),
        cache=", ".join(str(find_store(r, dataset, "train", cache)) for r in each) or None,
        build=" && ".join(
            build_command(r, dataset, "train", r.training_views, root=root, cache=cache)
            for r in each
        )
        or None,
        stages=stages,
        problem=problem,
        warnings=() if otherwise is None else (otherwise,),
    )


def _check_out(
    recipe: Recipe,
    inputs: Inputs,
    out: Path,
    resume: Literal["auto"] | Path | None,
    weights: Path | None,
) -> None:
    """Refuse the folder that a run would refuse, or could not write to; as `train` does.

    Raises:
        MmfeError: as `train`.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        number = errno.EACCES if there.is_dir() else errno.ENOTDIR
        raise explain(OSError(number, os.strerror(number)), out / run_dir.LOCK)
    if resume is None and (out / run_dir.RECIPE).exists():
        return  # that run is removed
    run_dir.check_claim(out, recipe)
    start = inputs.schedule.steps
    if resume != "auto" or not run_dir.holds_model(out):
        _, start = find_start(out, recipe, resume, Progress(), steps=inputs.schedule.steps)
    if start:
        run_dir.check_resumed(out, inputs.identity, inputs.data_identity(), weights)


def _schedule_without_cache(
    recipe: Recipe, root: Path | None
) -> tuple[Schedule | None, int | None, int | None]:
    try:
        everything = load_dataset(recipe.data.dataset, "train", root)
        training, validation = hold_out(
            everything.samples, recipe.data.validation_scenes, recipe.train.seed
        )
        return Schedule(recipe, training), len(training), len(validation)
    except MmfeError:
        return None, None, None


ADAM_BYTES = 16
"""Per parameter: weight, gradient and Adam's two moments, float32 each."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that one training step needs on one device.

    Attributes:
        parameters: weights, gradients and optimiser state.
        activations: what the forward pass keeps for the backward pass, for one micro-batch.
    """

    parameters: int
    activations: int

    @property
    def total(self) -> int:
        """Both together; the framework's own workspace comes on top."""
        return self.parameters + self.activations


KEPT_COMPILED, KEPT_HALF = 0.86, 0.36
"""Shares of an eager step's activations that a step with compiled blocks keeps, where
`train.activation_memory` is 1 and 0.5, as `benchmarks/count_traffic.py` counts them."""


def kept_share(activation_memory: float) -> float:
    """The share that compiled blocks keep: linear between what was counted, and below."""
    if activation_memory < 0.5:
        return KEPT_HALF * activation_memory / 0.5
    return KEPT_HALF + (KEPT_COMPILED - KEPT_HALF) * (activation_memory - 0.5) / 0.5


def estimate(
    recipe: Recipe, resolution: int, batch: int, precision: str, *, keeps: float | None = None
) -> StepMemory:
    """Trace a step on tensors without storage and add up what autograd keeps.

    Args:
        recipe: its model, loss and activation checkpointing.
        resolution: side of the crops, in pixels.
        batch: samples of one micro-batch on one device.
        precision: Lightning's name; mixed precision halves what is kept of most activations,
            which is counted as a half of all of them.
        keeps: the activation memory of compiled blocks, which keep `kept_share` of it; None where
            they are not compiled.
    """
    with torch.device("meta"):
        restorer = Restorer(recipe.model)
    restorer.activation_checkpointing = recipe.train.activation_checkpointing
    count = count_parameters(restorer)
    decay = 4 if recipe.train.ema_decay is not None else 0
    kept = _kept_bytes(restorer, recipe, resolution, batch)
    scale = {"16-mixed": 0.5, "bf16-mixed": 0.5, "64-true": 2.0}.get(precision, 1.0)
    if keeps is not None and not recipe.train.activation_checkpointing:
        scale *= kept_share(keeps)
    weights = 2 * ADAM_BYTES if precision == "64-true" else ADAM_BYTES
    return StepMemory(count * (weights + decay), int(kept * scale))


def _kept_bytes(restorer: Restorer, recipe: Recipe, resolution: int, batch: int) -> int:
    seen: dict[int, int] = {}
    holders: list[torch.Tensor] = []
    own = {id(p) for p in restorer.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            storage = tensor.untyped_storage()
            seen[storage._cdata] = storage.nbytes()  # pyright: ignore[reportPrivateUsage]
            holders.append(tensor)  # keep it alive, so that no later storage gets its address
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    image = torch.empty(batch, 3, resolution, resolution, device="meta")
    tokens = 1 if recipe.guide.tokens == "mean" else 16
    shapes: dict[str, Any] = {
        "image": (batch, tokens, recipe.model.guidance_dim),
        "joint": (batch, tokens, recipe.model.guidance_dim),
        "answer": (batch, recipe.model.guidance_dim),
    }
    present = {name: torch.empty(shapes[name], device="meta") for name in recipe.model.reads}
    embeddings = Embeddings.of(present) if present else None
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        restored = restorer(image, embeddings)
        loss = l1_loss(restored, image)
        if recipe.loss.fourier > 0:
            loss = loss + fourier_loss(restored, image)
    return sum(seen.values()) + loss.element_size()
