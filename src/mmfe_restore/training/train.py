"""`train`: one run from its recipe to its model, resumable at any step."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from mmfe_cache.guides.base import guide_calls
from mmfe_cache.io import counted
from mmfe_cache.machine import (
    THREADS_VARIABLE,
    emulates_bf16,
    float32_products,
    usable_cores,
)
from mmfe_cache.packing import unpacked_cost
from mmfe_cache.progress import Progress
from mmfe_restore.data import TrainingBatches, hold_in_memory
from mmfe_restore.model.folders import find_weights
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.recipes.schema import Recipe
from mmfe_restore.training import run_dir, validation
from mmfe_restore.training.checkpoints import (
    SaveByClock,
    find_start,
    has_weights,
    remove_later,
)
from mmfe_restore.training.initial_weights import (
    holds_guided,
    new_restorer,
    reads_otherwise,
    warn_if_saturated,
)
from mmfe_restore.training.inputs import Inputs, open_inputs, require_options
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.loggers import CsvTable, LoggingCallback, loggers, router_columns
from mmfe_restore.training.machine import Machine, memory_explained
from mmfe_restore.training.rank_failure import RankFailure
from mmfe_restore.training.report import TrainReport, report_of
from mmfe_restore.training.validation import ValidationCallback


def train(
    recipe: Recipe,
    *,
    root: Path | None = None,
    cache: Path | None = None,
    out: Path,
    resume: Literal["auto"] | Path | None = "auto",
    init_from: str | Path | None = None,
    progress: Progress | None = None,
    stop_after: int | None = None,
    wandb: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainReport:
    """Train a `Restorer` by ``recipe``; reads embeddings from a cache and never loads a guide.

    Args:
        recipe: what to train.
        root: where the data set lies; None for its default place.
        cache: the folder of the data set's stores, or one store; None for its default place.
        out: the run's run_dir.
        resume: ``"auto"`` goes on from the newest readable checkpoint in ``out``, or starts; a
            path goes on from that checkpoint; None starts anew and removes what ``out`` holds.
        init_from: weights that the run begins with, see `find_weights` and `new_restorer`; a run
            that goes on has them already.
        progress: where to report.
        stop_after: end after this many optimiser steps of the run, saved and resumable; at once
            where it has made as many.
        wandb: log to this Weights & Biases project as well.
        callbacks: further Lightning callbacks.

    Returns:
        the outcome; ``completed`` is False, and there is no model, where a signal, ``stop_after``
        or a callback ended it before its last step.

    Raises:
        CacheError: see `open_inputs`; always before the first step.
        UsageError: the recipe does not fit the data, the machine or what ``out`` holds; another
            training is writing there; there is no ``init_from``, or Weights & Biases is not
            installed.
        KeyboardInterrupt: a second signal, or one before the first step: nothing is saved.
        ModelError: ``init_from`` holds another network's weights, or training diverged.
        DataError: the data set is missing, or not the one that an unguided run began with, or a
            picture cannot be read.
    """
    machine = Machine.detect()
    # One process speaks for all.
    progress = Progress() if progress is None or machine.rank else progress
    machine.check(recipe)
    calls_before = guide_calls()
    # A run that goes on has its first weights already: their file need not be there any more.
    begins = not has_weights(out, resume)
    # A model is written at the end alone. The checkpoints before it are large, and may have been
    # removed or damaged since.
    finished = resume == "auto" and run_dir.holds_model(out)
    weights = None if init_from is None else find_weights(init_from, needed=begins)
    require_options(weights if begins else None, wandb)
    run_dir.check_one_start(out, resume, weights)
    if begins and weights is not None:
        new_restorer(recipe, weights)  # others are refused before anything of an earlier run goes
    inputs = open_inputs(recipe, root=root, cache=cache, progress=progress)
    with run_dir.locked_run(out) if machine.rank == 0 else nullcontext() as stale:
        if stale:
            progress.message(f"took over the lock of a training that died: {stale}")
        if machine.rank == 0:
            if resume is None and (reports := run_dir.clear(out)):
                progress.message(f"removed the reports of the run before: {', '.join(reports)}")
            _say_changed(run_dir.claim(out, recipe), progress)
        if finished:
            checkpoint, start = None, inputs.schedule.steps
        else:
            checkpoint, start = find_start(
                out, recipe, resume, progress, steps=inputs.schedule.steps
            )
        complete = start >= inputs.schedule.steps and run_dir.holds_model(out)
        if weights is not None and checkpoint is None and not begins and not complete:
            # No checkpoint can be read: these weights are needed after all.
            require_options(weights, wandb)
            new_restorer(recipe, weights)
        if start:
            _take_recorded_threads(out, progress)
        if machine.rank == 0 and complete:
            run_dir.check_resumed(out, inputs.identity, inputs.data_identity(), weights)
        elif machine.rank == 0:
            run_dir.record_versions(
                out,
                recipe,
                inputs.identity,
                machine.world_size,
                data=inputs.data_identity(),
                init_from=weights,
                resumed=start > 0,
            )
        if complete:
            progress.message(f"{out} is complete: {start:,} steps; nothing to do")
            return report_of(recipe, inputs, out, start, start, calls_before)
        if stop_after is not None and stop_after <= start < inputs.schedule.steps:
            return report_of(
                recipe, inputs, out, start, start, calls_before, stopped_by="stop_after"
            )
        if machine.rank == 0 and (gone := run_dir.give_up_model(out)):
            progress.message(
                "removed the model that is trained again, and the reports that judged it: "
                + ", ".join(gone)
            )
            # Beside a model the recipe that it was trained with stands still.
            _say_changed(run_dir.claim(out, recipe), progress)
        if checkpoint is not None and resume != "auto" and machine.rank == 0:
            later = remove_later(out / run_dir.CHECKPOINTS, start)
            if later:
                progress.message(
                    f"removed the checkpoints after step {start:,}: {', '.join(later)}"
                )
        run = _Run(recipe, inputs, machine, out, start, progress, wandb)
        with _quiet_lightning():
            return run.go(checkpoint, weights, stop_after, callbacks, calls_before)


def _say_changed(changed: str, progress: Progress) -> None:
    if changed:
        progress.message(f"going on with other settings of how it is computed: {changed}")


def _take_recorded_threads(out: Path, progress: Progress) -> None:
    """Sums in another order differ in last bits: a run goes on with the threads it began with."""
    recorded = run_dir.recorded_threads(out)
    if THREADS_VARIABLE in os.environ or recorded is None:
        return
    # More of them than cores would wait for each other at every step.
    threads = min(recorded, usable_cores())
    if threads == torch.get_num_threads():
        return
    torch.set_num_threads(threads)
    began = "with which the run began"
    if threads < recorded:
        began = f"as many as there are cores; the run began with {recorded}"
    progress.message(f"threads: {threads}, {began}")


class _Run:
    """The parts of one call of `train`, put together."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: Inputs,
        machine: Machine,
        out: Path,
        start: int,
        progress: Progress,
        wandb: str | None,
    ) -> None:
        self.recipe, self.inputs, self.machine, self.wandb = recipe, inputs, machine, wandb
        self.out, self.start, self.progress = out, start, progress
        held = None
        if machine.may_hold(recipe):
            held = hold_in_memory(inputs.samples, processes=machine.devices)
        cost = None if held is not None else unpacked_cost(inputs.training)
        if cost is not None:
            progress.warn(cost)
        if machine.accelerator == "cpu" and recipe.train.precision == "bf16" and emulates_bf16():
            progress.warn(
                "this CPU has no products in bfloat16 and makes them of slower ones; a run that is "
                "begun with --set train.precision=32 is faster"
            )
        self.batches = TrainingBatches(
            recipe,
            inputs.samples if held is None else held,
            inputs.schedule,
            inputs.guidance,
            start_step=start,
            rank=machine.rank,
            world_size=machine.world_size,
            num_workers=machine.workers(recipe, held=held is not None),
            pin_memory=machine.accelerator == "cuda",
        )

    def go(
        self,
        checkpoint: Path | None,
        init_from: Path | None,
        stop_after: int | None,
        callbacks: Sequence[Callback],
        calls_before: int,
    ) -> TrainReport:
        task = self._task(init_from if checkpoint is None else None)
        steps = self.inputs.schedule.steps
        self._announce(checkpoint)
        if checkpoint is None:
            otherwise = reads_otherwise(self.recipe, init_from, self.inputs.fingerprint)
            if otherwise is not None:
                self.progress.warn(otherwise)
        if checkpoint is None and not holds_guided(init_from):
            # Routers that have been trained are meant to be decided.
            warn_if_saturated(
                task.restorer,
                self.recipe,
                self.inputs.guidance,
                len(self.inputs.samples),
                self.progress,
            )
        saver = SaveByClock(
            self.out / run_dir.CHECKPOINTS,
            every=self.recipe.train.checkpoint_every,
            last_step=steps,
            stop_after=stop_after,
        )
        router = CsvTable(self.out / "router.csv", router_columns(self.recipe), self.start)
        validate = self._validation()
        with self.progress.task("training", steps, unit="steps", done=self.start) as bar:
            watch = LoggingCallback(self.batches, bar, router, self.progress)
            own = [watch, saver] if validate is None else [watch, validate, saver]
            trainer = self._trainer([RankFailure(), *own, *callbacks])
            try:
                tf32 = self.recipe.train.precision == "tf32"
                with (
                    memory_explained(self.recipe, self.machine, task),
                    float32_products(tf32=tf32),
                ):
                    trainer.fit(
                        task,
                        train_dataloaders=self.batches,
                        ckpt_path=None if checkpoint is None else str(checkpoint),
                        weights_only=True,
                    )
                if self.start >= steps:
                    # Ended between its last checkpoint and its model: no step was left, and so
                    # Lightning has not put the averaged weights in the place of the last ones.
                    for average in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
                        if isinstance(average, EMAWeightAveraging):
                            average.on_train_end(trainer, task)
            except SystemExit as ended:
                if isinstance(ended.__context__, KeyboardInterrupt):
                    # Lightning's end, with code 1, of what a second signal interrupts.
                    raise KeyboardInterrupt from None
                raise
            finally:
                saver.release_signals()
        if trainer.global_step >= steps and trainer.is_global_zero:
            run_dir.write_model(
                self.out / run_dir.MODEL, task.restorer, self.recipe, self.inputs.fingerprint
            )
        trainer.strategy.barrier("model")
        done = trainer.global_step
        self.progress.message(
            f"step {done:,} of {steps:,} after {watch.seconds:.0f} s; "
            f"guide called {guide_calls() - calls_before} times"
        )
        return report_of(
            self.recipe,
            self.inputs,
            self.out,
            self.start,
            done,
            calls_before,
            watch=watch,
            stopped_by=saver.stopped_by,
            validation=None if validate is None else validate.last,
        )

    def _task(self, init_from: Path | None) -> RestorationTask:
        torch.manual_seed(self.recipe.train.seed)
        restorer = new_restorer(self.recipe, init_from)
        restorer.activation_checkpointing = self.recipe.train.activation_checkpointing
        if self.machine.compiles(self.recipe):
            restorer.compile_core(self.machine.activation_memory(self.recipe))
        if self.recipe.train.kernels == "triton":
            from mmfe_restore.kernels.block import run_block  # needs Triton

            restorer.run_parts_by({TransformerBlock: run_block})
        return RestorationTask(restorer, self.recipe, self.inputs.schedule)

    def _trainer(self, callbacks: list[Callback]) -> Trainer:
        train = self.recipe.train
        if train.ema_decay is not None:
            callbacks = [EMAWeightAveraging(decay=train.ema_decay), *callbacks]
        return Trainer(
            **self.machine.trainer_options(),
            precision=self.machine.precision(self.recipe),
            max_epochs=1,
            max_steps=self.inputs.schedule.steps,
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=train.gradient_clip,
            callbacks=callbacks,
            logger=loggers(self.recipe, self.out, self.start, self.wandb),
            log_every_n_steps=train.log_every,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=self.out,
        )

    def _validation(self) -> ValidationCallback | None:
        samples = self.inputs.validation
        if not samples:
            return None
        table = CsvTable(self.out / "validation.csv", validation.COLUMNS, self.start)
        guidance = self.inputs.validation_guidance
        return ValidationCallback(
            self.recipe, samples, guidance, self.out, table, fingerprint=self.inputs.fingerprint
        )

    def _announce(self, checkpoint: Path | None) -> None:
        say, schedule = self.progress.message, self.inputs.schedule
        cache = "no cache" if self.inputs.cache is None else f"the cache {self.inputs.cache.path}"
        say(f"{self.recipe.name}: {len(self.inputs.samples):,} samples, {cache}, run {self.out}")
        for plan in schedule.stages:
            stage = plan.stage
            dropped = f", {plan.dropped} draws an epoch dropped" if plan.dropped else ""
            say(
                f"  stage {plan.index + 1}: {counted(stage.epochs, 'epoch')} of "
                f"{counted(plan.steps_per_epoch, 'step')} at {stage.resolution}², "
                f"global batch {stage.batch_size}{dropped}"
            )
        if checkpoint is not None:
            say(f"going on from {checkpoint} at step {self.start:,}")


@contextmanager
def _quiet_lightning() -> Generator[None]:
    """Hold back Lightning's notes on devices and loaders; its errors still come through."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
