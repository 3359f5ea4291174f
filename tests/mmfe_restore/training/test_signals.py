"""A run that a signal stops saves first, whoever is sent it; where it cannot, it says so."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from mmfe_restore.recipes import recipe_to_dict
from mmfe_restore.training import train
from mmfe_restore.training.checkpoints import list_checkpoints

from .runs import assert_same_run

WORKER = Path(__file__).with_name("worker.py")


def wanted(world, recipe, out, **told):
    """What the worker is to do: train, and be told so."""
    places = {"root": str(world.root), "cache": str(world.cache), "out": str(out)}
    return json.dumps({"recipe": recipe_to_dict(recipe), **places, **told})


# An hour between checkpoints: what is there was saved because of the signal.
SELDOM = "train.checkpoint_every=3600"


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_signal_finishes_the_step_and_saves(world, whole, tmp_path, name):
    class Signal(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step == 7:
                os.kill(os.getpid(), getattr(signal, name))

    recipe = world.recipe(SELDOM)
    stopped = train(recipe, **world.sources, out=tmp_path, callbacks=[Signal()])
    assert (stopped.steps, stopped.stopped_by, stopped.completed) == (8, name, False)
    kept = list_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in kept] == ["step-00000008.ckpt"]
    train(recipe, **world.sources, out=tmp_path)
    assert_same_run(whole, tmp_path)


def test_under_nohup_a_closed_terminal_ends_nothing(world, tmp_path):
    class Hangup(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = train(
            world.recipe("train.max_steps=2"), **world.sources, out=tmp_path, callbacks=[Hangup()]
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (done.steps, done.completed) == (2, True)


def test_a_process_that_gets_a_signal_saves_and_exits(world, whole, tmp_path, start_forked):
    out, name = tmp_path / "run", "SIGTERM"
    recipe = world.recipe(SELDOM)
    stopped = start_forked(WORKER, wanted(world, recipe, out, kill_at=7, signal=name))()
    assert stopped.returncode == 0, stopped.stderr
    told = json.loads(stopped.stdout.splitlines()[-1])
    assert (told["steps"], told["stopped_by"], told["completed"]) == (8, name, False)
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-00000008.ckpt"]
    train(recipe, **world.sources, out=out)
    assert_same_run(whole, out)


# Two micro-batches: the signal comes at the first, and the second is still to be loaded.
WORKERS = (SELDOM, "train.num_workers=2", "train.accumulate=2", "train.max_steps=4")


def test_a_signal_to_all_processes_leaves_the_workers_to_finish_the_step(
    world, tmp_path, start_forked
):
    told = {"kill_at": 1, "signal": "SIGTERM", "group": True, "start_method": "fork"}
    stopped = start_forked(WORKER, wanted(world, world.recipe(*WORKERS), tmp_path, **told))()
    assert stopped.returncode == 0, stopped.stderr
    told = json.loads(stopped.stdout.splitlines()[-1])
    assert (told["steps"], told["stopped_by"], told["completed"]) == (2, "SIGTERM", False)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == [
        "step-00000002.ckpt"
    ]


@pytest.mark.slow
def test_workers_that_a_server_forked_end_with_a_training_that_is_killed(
    world, tmp_path, start_forked
):
    told = {"kill_at": 0, "start_method": "forkserver"}
    killed = start_forked(WORKER, wanted(world, world.recipe(*WORKERS), tmp_path, **told))()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (told,) = [line for line in killed.stdout.splitlines() if line.startswith('{"workers"')]
    workers = json.loads(told)["workers"]
    assert len(workers) == 2
    until = time.monotonic() + 20
    while left := [pid for pid in workers if is_running(pid)]:
        if time.monotonic() > until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail("workers are left")
        time.sleep(0.05)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("hook", ["on_fit_start", "on_after_backward"])
def test_an_interruption_that_cannot_be_saved_is_one(world, tmp_path, hook):
    """Before the first step one signal ends the run, later a second one."""

    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    impatient = type("Impatient", (Callback,), {hook: interrupt})()
    with pytest.raises(KeyboardInterrupt):
        train(world.recipe(SELDOM), **world.sources, out=tmp_path, callbacks=[impatient])
    assert signal.getsignal(signal.SIGINT) == before
