"""The progressive schedule as arithmetic: which samples a step sees, and what its epoch is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import UsageError
from mmfe_cache.samples import Sample
from mmfe_cache.seeds import generator
from mmfe_restore.recipes.schema import Recipe, Stage


@dataclass(frozen=True, slots=True)
class Draw:
    """One training item: everything that its pixels depend on, besides the run's seed.

    Attributes:
        sample: position in the training samples.
        epoch: counted from 0 over all stages.
        repeat: which of the sample's draws in this epoch.
        resolution: side of the crop, in pixels.
    """

    sample: int
    epoch: int
    repeat: int
    resolution: int


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage with its place in the run.

    Attributes:
        stage: as the recipe has it.
        index: counted from 0.
        first_epoch: epochs before it.
        first_step: optimiser steps before it.
        steps_per_epoch: whole global batches in one epoch.
        dropped: draws of every epoch that do not fill a last global batch.
    """

    stage: Stage
    index: int
    first_epoch: int
    first_step: int
    steps_per_epoch: int
    dropped: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.steps_per_epoch * self.stage.epochs


class Schedule:
    """Every step of a run, as a pure function of the recipe and the samples.

    A run that resumes asks for step k and gets what the uninterrupted run got there; a run on
    more processes cuts the same global batches into more parts.

    Args:
        recipe: its stages, seed, repeats and ``max_steps``.
        samples: the training samples in their fixed order.

    Raises:
        UsageError: an epoch is smaller than a stage's global batch, or repeats name a label
            that no sample has.
    """

    def __init__(self, recipe: Recipe, samples: Sequence[Sample]) -> None:
        self._seed = recipe.train.seed
        self._items = _repeat(samples, recipe.data.repeats)
        self.stages = _plan(recipe.train.stages, len(self._items))
        last = self.stages[-1]
        scheduled = last.first_step + last.steps
        most = recipe.train.max_steps
        self.steps = scheduled if most is None else min(most, scheduled)
        self._end = self.epoch(self.steps)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    @property
    def draws_per_epoch(self) -> int:
        """Items of one epoch, repeats included, before the last incomplete batch is dropped."""
        return len(self._items)

    def stage_at(self, step: int) -> StagePlan:
        """The stage that optimiser step ``step`` (counted from 0) belongs to."""
        for plan in reversed(self.stages):
            if step >= plan.first_step:
                return plan
        raise IndexError(step)

    def steps_of(self, index: int) -> int:
        """Optimiser steps that the run makes of a stage: ``max_steps`` may end it before."""
        plan = self.stages[index]
        return max(0, min(plan.steps, self.steps - plan.first_step))

    def epoch(self, step: int) -> float:
        """The fractional epoch at which ``step`` starts."""
        plan = self.stage_at(min(step, self.stages[-1].first_step + self.stages[-1].steps))
        return plan.first_epoch + (step - plan.first_step) / plan.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """The cosine factor ½(1 + cos(π e / E)) at which ``step`` runs, from 1 down to 0."""
        return 0.5 * (1 + math.cos(math.pi * min(1.0, self.epoch(step) / self._end)))

    def pixels(self, first: int, last: int) -> int:
        """Pixels of the training crops of steps ``first`` up to ``last``, that one left out."""
        total = 0
        for plan in self.stages:
            steps = min(last, plan.first_step + plan.steps) - max(first, plan.first_step)
            total += max(0, steps) * plan.stage.batch_size * plan.stage.resolution**2
        return total

    def draws(self, step: int) -> list[Draw]:
        """The global batch of optimiser step ``step``, in order."""
        plan = self.stage_at(step)
        inside, batch = divmod(step - plan.first_step, plan.steps_per_epoch)
        epoch, size = plan.first_epoch + inside, plan.stage.batch_size
        chosen = self._order(epoch)[batch * size : (batch + 1) * size]
        return [
            Draw(int(sample), epoch, int(repeat), plan.stage.resolution)
            for sample, repeat in self._items[chosen]
        ]

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return generator("order", self._seed, epoch).permutation(len(self._items))


def _repeat(samples: Sequence[Sample], repeats: dict[str, int]) -> NDArray[np.int64]:
    """(n, 2) sample and repeat of every draw of an epoch."""
    labels = {sample.label for sample in samples}
    unknown = sorted(set(repeats) - labels - {"*"})
    if unknown:
        raise UsageError(
            "data.repeats names labels that no training sample has",
            got=", ".join(unknown),
            expected=", ".join(sorted(labels)),
            remedy="--set data.repeats={} draws every sample once an epoch",
        )
    every = repeats.get("*", 1)
    items = [
        (index, repeat)
        for index, sample in enumerate(samples)
        for repeat in range(repeats.get(sample.label, every))
    ]
    return np.array(items, dtype=np.int64).reshape(-1, 2)


def _plan(stages: Sequence[Stage], draws: int) -> tuple[StagePlan, ...]:
    plans: list[StagePlan] = []
    epoch = step = 0
    for index, stage in enumerate(stages):
        per_epoch, dropped = divmod(draws, stage.batch_size)
        if per_epoch == 0:
            raise UsageError(
                f"stage {index + 1}: an epoch is smaller than one global batch",
                got=f"{draws} draws an epoch",
                expected=f"at least {stage.batch_size}",
                remedy="more photographs, a smaller batch_size in train.stages, or "
                "--set 'data.repeats={\"*\": N}'",
            )
        plans.append(StagePlan(stage, index, epoch, step, per_epoch, dropped))
        epoch += stage.epochs
        step += per_epoch * stage.epochs
    return tuple(plans)
