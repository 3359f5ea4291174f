"""One training at a time in a run's folder."""

import json
import multiprocessing
import os
import signal
import socket
import time

import pytest
from lightning.pytorch.callbacks import Callback

from mmfe_cache.errors import UsageError
from mmfe_restore.training import train
from mmfe_restore.training.run_dir import LOCK, locked_run

HOLD = """
import os, time
from mmfe_restore.training.run_dir import locked_run
with locked_run(out):
    forked = os.fork() if with_child else 0
    if forked or not with_child:
        pids.put(forked)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def hold():
    """Start a process that holds a lock until it is killed; the pid of its child, if it has one.

    Forked by a server with one thread: a fresh process would import torch only to wait.
    """
    context = multiprocessing.get_context("forkserver")

    def start(out, *, with_child=False):
        pids = context.SimpleQueue()
        known = {"out": out, "with_child": with_child, "pids": pids}
        process = context.Process(target=exec, args=(HOLD, known))
        process.start()
        return process, pids.get()

    return start


@pytest.fixture
def holder(tmp_path, hold):
    """A run's folder and the process that holds its lock."""
    out = tmp_path / "run"
    process, _ = hold(out)
    yield out, process
    process.kill()
    process.join()


@pytest.mark.parametrize("resume", ["auto", None])
def test_a_second_training_is_refused_and_names_the_first(world, holder, resume):
    out, process = holder
    kept = out / "checkpoints" / "step-00000003.ckpt"
    kept.parent.mkdir()
    kept.write_bytes(b"of the first")
    with pytest.raises(UsageError, match="another training is writing") as caught:
        train(world.recipe(), **world.sources, out=out, resume=resume)
    assert f"process {process.pid} on {socket.gethostname()}, which began" in str(caught.value)
    assert caught.value.exit_code == 2
    assert kept.read_bytes() == b"of the first"
    assert not (out / "metrics.csv").exists()


def test_a_killed_trainings_lock_is_taken_over(world, holder):
    out, process = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert json.loads((out / LOCK).read_text())["pid"] == process.pid
    report = train(world.recipe("train.max_steps=1"), **world.sources, out=out)
    assert report.completed
    assert not (out / LOCK).exists()


def test_a_worker_of_a_killed_training_does_not_keep_its_lock(tmp_path, hold):
    """Loader processes are forked and outlive a killed trainer by seconds."""
    process, child = hold(tmp_path / "run", with_child=True)
    try:
        process.kill()
        process.join()
        time.sleep(0.05)
        with locked_run(tmp_path / "run") as stale:
            assert f"process {process.pid}" in stale
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_lock_goes_when_training_fails(world, tmp_path):
    lock = tmp_path / "run" / LOCK

    class Fails(Callback):
        def on_fit_start(self, trainer, pl_module):
            assert lock.exists()
            raise OSError("no")

    with pytest.raises(OSError, match=r"^no$"):
        train(world.recipe(), **world.sources, out=lock.parent, callbacks=[Fails()])
    assert not lock.exists()
