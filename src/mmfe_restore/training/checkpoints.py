"""Checkpoints: written whole or not at all, by the clock; the newest readable one is found."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from mmfe_cache.errors import UsageError
from mmfe_cache.io import draft_file, remove_drafts
from mmfe_cache.progress import Progress
from mmfe_restore.data.dataloader import STOP_SIGNALS
from mmfe_restore.recipes import Recipe, recipe_from_dict, recipe_to_dict
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.run_dir import CHECKPOINTS, holds_model

SUFFIX = ".ckpt"
KEEP = 2
"""How many checkpoints stay: the newest, and the one before in case that is damaged."""

_AGREE_EVERY = 10
"""Steps between two agreements of several processes on whether to save or stop."""


class SaveByClock(Checkpoint):
    """Saves every so many seconds, at the end, and when the process is told to stop.

    SIGTERM, SIGINT (Ctrl-C), SIGUSR1 (SLURM's warning) and SIGHUP (a closed terminal; but for
    nohup) let the current step finish, save and end the run; a second one stops at once.

    Args:
        folder: where checkpoints go.
        every: seconds between two; 0 saves after every step.
        last_step: the run's number of steps, after which it saves too.
        stop_after: end the run after this many optimiser steps, saved; None runs to the end.

    Attributes:
        stopped_by: the signal's name, ``"stop_after"``, or None.
    """

    def __init__(
        self, folder: Path, *, every: float, last_step: int, stop_after: int | None = None
    ) -> None:
        self._folder, self._every = folder, every
        self._last_step, self._stop_after = last_step, stop_after
        self._signal: int | None = None
        self._saved_at = time.monotonic()
        self._saved_step = -1
        # Those of before Lightning's: its own teardown comes before `release_signals`, and giving
        # its handlers back then would leave a process, and what it forks, deaf to SIGTERM.
        self._before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        hangup = getattr(signal, "SIGHUP", None)
        if self._before.get(hangup) is signal.SIG_IGN:  # as nohup has it
            del self._before[hangup]
        self.stopped_by: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals; after Lightning, whose own handler would end the run unsaved."""
        if threading.current_thread() is threading.main_thread():
            for number in self._before:
                signal.signal(number, self._on_signal)
        self._saved_at = time.monotonic()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count micro-batches as this run makes them: `train.accumulate` may have changed.

        Lightning would end the first optimiser steps after too few of them.
        """
        fit = cast("dict[str, Any]", checkpoint["loops"]["fit_loop"])
        done = int(checkpoint["global_step"]) * trainer.accumulate_grad_batches
        for counts in fit["epoch_loop.batch_progress"].values():
            if isinstance(counts, dict):
                counts.update(dict.fromkeys(cast("dict[str, int]", counts), done))

    def _on_signal(self, number: int, frame: object) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number

    def release_signals(self) -> None:
        """Give the signals back to whoever had them when this was made.

        Also where training never started: Lightning leaves SIGINT ignored where one ended it.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, between two optimiser steps only."""
        step = trainer.global_step
        if trainer.fit_loop._should_accumulate() or step == self._saved_step:  # pyright: ignore[reportPrivateUsage]
            return
        ends = step == self._last_step
        enough = self._stop_after is not None and step >= self._stop_after
        stops = self._signal is not None or enough
        due = time.monotonic() - self._saved_at >= self._every
        if trainer.world_size > 1 and not ends and not enough:
            if step % _AGREE_EVERY and self._every > 0:
                return
            strategy = trainer.strategy
            stops = strategy.reduce_boolean_decision(stops, all=False)
            due = strategy.reduce_boolean_decision(due, all=False)
        if stops or due or ends:
            assert isinstance(pl_module, RestorationTask)
            pl_module.require_finite_weights(step)
            self._save(trainer, step)
        if stops and not ends:
            told = self._signal
            self.stopped_by = "stop_after" if told is None else signal.Signals(told).name
            if told is None and not enough:
                self.stopped_by = "a signal to another process"
            trainer.should_stop = True

    def _save(self, trainer: Trainer, step: int) -> None:
        path = self._folder / f"step-{step:08d}{SUFFIX}"
        save_checkpoint(trainer, path)
        self._saved_at, self._saved_step = time.monotonic(), step
        if trainer.is_global_zero:
            remove_drafts(self._folder)  # a process that was killed while it saved leaves one
            for old in list_checkpoints(self._folder)[KEEP:]:
                with suppress(FileNotFoundError):
                    old.unlink()


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Save the run's whole state so that ``path`` is whole or absent; every process calls it."""
    if trainer.is_global_zero:
        with draft_file(path) as draft:
            trainer.save_checkpoint(draft)
    else:
        trainer.save_checkpoint(path)  # writes nothing, but takes part in gathering the state
    trainer.strategy.barrier("checkpoint")


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder, newest first; the best one is not among them."""
    return sorted(folder.glob(f"step-*{SUFFIX}"), reverse=True)


def has_weights(out: Path, resume: Literal["auto"] | Path | None) -> bool:
    """Whether a run goes on, with weights that it has already, or begins; arguments of `train`."""
    if resume == "auto":
        return bool(list_checkpoints(out / CHECKPOINTS)) or holds_model(out)
    return resume is not None


def remove_later(folder: Path, step: int) -> list[str]:
    """Remove the checkpoints after ``step``: of a run that is given up, as its later rows are.

    Else they would be taken for the newest ones, and those that the run now saves for old.

    Returns:
        their names.
    """
    later = [p for p in list_checkpoints(folder) if p.name > f"step-{step:08d}{SUFFIX}"]
    for path in later:
        path.unlink(missing_ok=True)
    return [path.name for path in later]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["global_step"], state["state_dict"], state["optimizer_states"]
    except FileNotFoundError:
        raise UsageError(
            "there is no such checkpoint",
            got=path,
            remedy="--resume auto takes the newest one that can be read",
        ) from None
    except Exception as problem:  # torch raises whatever its unpickler met
        raise UsageError(
            f"checkpoint cannot be read: {path}",
            got=f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}",
            remedy="--resume auto takes the newest one that can be read",
        ) from None
    return state


def newest_readable(folder: Path, progress: Progress) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, with its content; None where there is none.

    A damaged newer one is passed over with a warning.
    """
    found = list_checkpoints(folder)
    for path in found:
        try:
            return path, read_checkpoint(path)
        except UsageError as problem:
            last = path == found[-1]
            then = "none is left: beginning anew" if last else "falling back to the one before"
            progress.warn(f"{problem.problem} ({problem.got}); {then}")
    return None


def find_start(
    out: Path,
    recipe: Recipe,
    resume: Literal["auto"] | Path | None,
    progress: Progress,
    *,
    steps: int,
) -> tuple[Path | None, int]:
    """Where a run goes on.

    Args:
        out: the run's folder.
        recipe: what is trained.
        resume: as for `train`.
        progress: where to warn of damaged checkpoints.
        steps: of the whole run.

    Returns:
        the checkpoint and its number of optimiser steps; None and 0 for a fresh start.

    Raises:
        UsageError: the named checkpoint is missing or damaged; the checkpoint is another network's,
            or of a step behind the run's end.
    """
    if resume is None:
        return None, 0
    found = newest_readable(out / CHECKPOINTS, progress) if resume == "auto" else None
    if resume != "auto":
        found = resume, read_checkpoint(resume)
    if found is None:
        return None, 0
    path, state = found
    theirs, ours = _network(path, state), recipe_to_dict(recipe)["model"]
    if theirs != ours:
        keys = [key for key in ours if theirs.get(key) != ours[key]]
        raise UsageError(
            f"{path} is a checkpoint of another network",
            got=", ".join(f"model.{key}={theirs.get(key)!r}" for key in keys),
            expected=", ".join(f"model.{key}={ours[key]!r}" for key in keys),
        )
    start = int(state["global_step"])
    if start > steps:
        raise UsageError(
            f"{path} is of a step behind the end of this run",
            got=f"step {start:,}",
            expected=f"at most {steps:,}, the steps of recipe and data",
            remedy="resume from an earlier checkpoint, or train longer: more epochs in "
            "train.stages, or a larger train.max_steps",
        )
    return path, start


def _network(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The network that a checkpoint is of; settings added since it was written are at default."""
    saved = state.get("recipe", {})
    if not isinstance(saved, dict) or "model" not in saved:
        return {}
    try:
        known = {"model": saved["model"], "guide": saved.get("guide", {})}
        return recipe_to_dict(recipe_from_dict(known))["model"]
    except UsageError as problem:
        raise UsageError(
            f"{path} is a checkpoint that this version of mmfe does not understand",
            got=problem.got,
            expected=problem.expected,
            remedy="go on with the version that began the run",
        ) from None
