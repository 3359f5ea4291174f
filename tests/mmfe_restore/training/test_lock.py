"""One training at a time in a run's folder."""

import json
import multiprocessing
import os
import signal
import socket
import time

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore.training import train
from mmfe_restore.training.run_dir import LOCK, locked_run

# Forked, not started anew: a fresh process would import torch and Lightning only to wait.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a run's folder until it is killed."""
    out = tmp_path / "run"

    def hold():
        with locked_run(out):
            held.set()
            time.sleep(600)

    held = FORK.Event()
    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(60)
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


def test_a_worker_of_a_killed_training_does_not_keep_its_lock(tmp_path):
    """Loader processes are forked and outlive a killed trainer by seconds."""

    def lead():
        with locked_run(tmp_path / "run"):
            child = os.fork()
            if child:
                pids.put(child)
            time.sleep(600)

    pids = FORK.SimpleQueue()
    process = FORK.Process(target=lead)
    process.start()
    child = pids.get()
    try:
        process.kill()
        process.join()
        time.sleep(0.05)
        with locked_run(tmp_path / "run") as stale:
            assert f"process {process.pid}" in stale
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_lock_goes_when_training_fails(world, tmp_path):
    class Fails:
        def __getattr__(self, name):
            raise OSError("no")

    with pytest.raises(Exception):  # noqa: B017 (whatever Lightning makes of it)
        train(world.recipe(), **world.sources, out=tmp_path / "run", callbacks=[Fails()])
    assert not (tmp_path / "run" / LOCK).exists()
