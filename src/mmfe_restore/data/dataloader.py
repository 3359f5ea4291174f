"""The batches of a whole run: every micro-batch of this process, from any step on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import MmfeError
from mmfe_cache.samples import Sample
from mmfe_cache.seeds import generator
from mmfe_restore.data.cache import SampleGuidance
from mmfe_restore.data.dataset import TrainingPairs, collate_pairs, crop_number, prompt_number
from mmfe_restore.data.sampler import Draw, Schedule
from mmfe_restore.recipes.schema import Recipe

Part = TypeVar("Part")

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Signals that tell a training to save and stop; Windows lacks the last two of them."""


@contextmanager
def holding_stop_signals() -> Generator[None]:
    """Hold `STOP_SIGNALS` back inside the block, and for ever from processes that it starts.

    A terminal, torchrun, systemd and SLURM signal a whole group of processes. Training has a step
    to finish then, and needs its workers for that, and the server that forks them. A signal to
    this process comes through after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has no such groups either
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # which would let the signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Batch:
    """One micro-batch of one process; no dataclass, so that Lightning leaves it whole.

    Attributes:
        degraded: (B, 3, r, r) uint8.
        clean: (B, 3, r, r) uint8.
        embeddings: of the B samples; None for an unguided network.
        keep: (B,) bool, False where guidance is dropped; None without guidance dropout.
        answers: (G, D) E_Answer of the whole global batch; None without L_MGL.
        answers_keep: (G,) bool, as ``keep``, for the whole global batch.
        step: the optimiser step that it belongs to, counted from 0.
    """

    def __init__(
        self,
        degraded: Tensor,
        clean: Tensor,
        *,
        step: int,
        embeddings: Embeddings | None = None,
        keep: Tensor | None = None,
        answers: Tensor | None = None,
        answers_keep: Tensor | None = None,
    ) -> None:
        self.degraded, self.clean, self.step = degraded, clean, step
        self.embeddings, self.keep = embeddings, keep
        self.answers, self.answers_keep = answers, answers_keep

    def __len__(self) -> int:
        """B, the samples of this micro-batch."""
        return len(self.degraded)

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``; pinned memory is copied without waiting for it."""
        return self._map(lambda t: t.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; what lies there already is not copied."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        def maybe(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else function(tensor)

        return Batch(
            function(self.degraded),
            function(self.clean),
            step=self.step,
            embeddings=None if self.embeddings is None else self.embeddings.map(function),
            keep=maybe(self.keep),
            answers=maybe(self.answers),
            answers_keep=maybe(self.answers_keep),
        )


class TrainingBatches:
    """Iterates this process's micro-batches from ``start_step`` to the end of the schedule.

    The whole run is one pass, so workers live through epoch and stage borders. Batch b depends
    on the recipe and the samples alone, so a resumed run starts anywhere, bit for bit.

    Args:
        recipe: seed, repeats, augmentation, dropout, loss weights.
        samples: the training samples.
        schedule: of the same recipe and samples.
        guidance: reads their embeddings, one reader for each prompt of ``guide.prompts`` in their
            order; none for an unguided network.
        start_step: the first optimiser step.
        rank: of this process.
        world_size: processes that share a global batch.
        num_workers: processes that decode and cut.
        pin_memory: page-locked batches, for a CUDA device.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Sequence[Sample],
        schedule: Schedule,
        guidance: SampleGuidance | Sequence[SampleGuidance] | None,
        *,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._recipe, self._samples, self._schedule = recipe, samples, schedule
        readers = (guidance,) if isinstance(guidance, SampleGuidance) else guidance or ()
        self._guidance, self._pin = tuple(readers), pin_memory
        self._parts = world_size * recipe.train.accumulate
        self._rank, self._world_size = rank, world_size
        self.start_step = start_step
        self.waited = 0.0
        """Seconds that iteration has waited for batches so far."""
        pairs = TrainingPairs(
            samples,
            seed=recipe.train.seed,
            augment=recipe.data.augment,
            aligned_crops=recipe.train.aligned_crops,
        )
        self._loader = DataLoader(
            _CutMicroBatches(pairs),
            batch_size=None,  # an item of the sampler is a micro-batch already
            sampler=_MicroBatches(self),
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=4 if num_workers else None,
            worker_init_fn=_end_with_training,
        )

    def __len__(self) -> int:
        """Micro-batches of the whole run, those before ``start_step`` included."""
        return self._schedule.steps * self._recipe.train.accumulate

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position follows from the optimiser's step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load; see `state_dict`."""

    def draws(self) -> Iterator[tuple[int, list[Draw]]]:
        """(step, this process's draws), one for every micro-batch."""
        for step in range(self.start_step, self._schedule.steps):
            everything = self._schedule.draws(step)
            size = len(everything) // self._parts
            for micro in range(self._recipe.train.accumulate):
                # Rank-major inside a micro-batch: the union over ranks is a contiguous run.
                first = (micro * self._world_size + self._rank) * size
                yield step, everything[first : first + size]

    def __iter__(self) -> Iterator[Batch]:
        """The remaining micro-batches, in order.

        Raises:
            DataError: a picture cannot be read; also where a worker met it.
        """
        with holding_stop_signals() if self._loader.num_workers else nullcontext():
            items = iter(self._loader)  # starting workers is no waiting for a batch
        started = time.perf_counter()
        for (step, mine), cut in items:
            if isinstance(cut, Exception):
                raise cut
            batch = self._guide(Batch(*cut, step=step), mine)
            if self._pin:
                batch = batch.pin_memory()
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

    def _guide(self, batch: Batch, mine: list[Draw]) -> Batch:
        if not self._guidance:
            return batch
        batch.embeddings = self._gather(mine)
        if self._recipe.model.guidance_dropout > 0:
            batch.keep = self._keep(mine)
        if self._recipe.loss.mgl > 0 and "answer" in self._recipe.model.reads:
            # Every process reads the whole global batch's answers from the cache: the identical
            # term everywhere, with no communication (paper, Eq. 7, over the global batch).
            everything = self._schedule.draws(batch.step)
            batch.answers = self._answers(everything)
            if self._recipe.model.guidance_dropout > 0:
                batch.answers_keep = self._keep(everything)
        return batch

    def _sources(self, draws: list[Draw]) -> list[tuple[int, str]]:
        """Of every draw, which prompt's reader it is read by and at which view."""
        train = self._recipe.train
        seed, name = train.seed, self._recipe.view_at(draws[0].resolution)
        views = [name] * len(draws)
        if train.aligned_crops:
            numbers = (
                crop_number(seed, self._id(d), d.epoch, d.repeat, train.aligned_crops)
                for d in draws
            )
            views = [f"{name}#{number}" for number in numbers]
        count = len(self._guidance)
        prompts = [
            prompt_number(seed, self._id(d), d.epoch, d.repeat, count) if count > 1 else 0
            for d in draws
        ]
        return list(zip(prompts, views, strict=True))

    def _gather(self, draws: list[Draw]) -> Embeddings:
        def read(prompt: int, view: str, samples: list[int]) -> Embeddings:
            return self._guidance[prompt].read(samples, view, pin=self._pin)

        parts, order = self._by_source(draws, read)
        if len(parts) == 1:
            return parts[0]
        kinds = parts[0].present()
        return Embeddings.of(
            {kind: torch.cat([part.present()[kind] for part in parts])[order] for kind in kinds}
        )

    def _answers(self, draws: list[Draw]) -> Tensor:
        def read(prompt: int, view: str, samples: list[int]) -> Tensor:
            return self._guidance[prompt].read_answers(samples, view, pin=self._pin)

        parts, order = self._by_source(draws, read)
        return parts[0] if len(parts) == 1 else torch.cat(parts)[order]

    def _by_source(
        self, draws: list[Draw], read: Callable[[int, str, list[int]], Part]
    ) -> tuple[list[Part], Tensor]:
        """What ``read`` gives for each prompt and view, and where every draw is in all of that."""
        groups: dict[tuple[int, str], list[int]] = {}
        for place, source in enumerate(self._sources(draws)):
            groups.setdefault(source, []).append(place)
        parts = [
            read(prompt, view, [draws[place].sample for place in places])
            for (prompt, view), places in groups.items()
        ]
        read_as = torch.tensor([place for places in groups.values() for place in places])
        return parts, torch.argsort(read_as)

    def _keep(self, draws: list[Draw]) -> Tensor:
        """False for the draws whose guidance is dropped: the same on every process."""
        seed, dropout = self._recipe.train.seed, self._recipe.model.guidance_dropout
        kept = [
            generator("keep", seed, self._id(d), d.epoch, d.repeat).random() >= dropout
            for d in draws
        ]
        return torch.tensor(kept, dtype=torch.bool)

    def _id(self, draw: Draw) -> str:
        return self._samples[draw.sample].id


MicroBatch = tuple[int, list[Draw]]
"""The optimiser step, and what this process draws of it."""


class _MicroBatches(Sampler[MicroBatch]):
    """Tells the loader what to cut."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._batches.draws()


Cut = tuple[Tensor, Tensor] | MmfeError | OSError
"""The degraded and the clean crops of a micro-batch, or why they cannot be cut."""


class _CutMicroBatches(Dataset[tuple[MicroBatch, Cut]]):
    """Cuts a micro-batch, and hands back what it is of: the two cannot be mixed up.

    A picture that cannot be read is handed back too: PyTorch would put a worker's whole traceback
    in place of the message, and drop what is to be done.
    """

    def __init__(self, pairs: TrainingPairs) -> None:
        self._pairs = pairs

    def __getitem__(self, micro: MicroBatch) -> tuple[MicroBatch, Cut]:
        try:
            return micro, collate_pairs([self._pairs[draw] for draw in micro[1]])
        except (MmfeError, OSError) as problem:
            return micro, problem


def _end_with_training(worker: int) -> None:
    """End this worker where the training is killed.

    PyTorch looks whether the process that forked it is there. That may be a server, which waits for
    its workers.
    """
    training = multiprocessing.parent_process()
    assert training is not None

    def wait() -> None:
        training.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _as_it_is(item: Any) -> Any:
    """In place of PyTorch's own function, which would rebuild every draw."""
    return item
