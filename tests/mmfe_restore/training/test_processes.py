"""Two processes give the loss curve of one; a process that dies takes the others down by name."""

import csv
import json
import re
import socket
from pathlib import Path

import pytest
from torch.distributed import HashStore, run as torchrun

from mmfe_cache.errors import UsageError
from mmfe_restore.recipes import recipe_to_dict
from mmfe_restore.training import train
from mmfe_restore.training.rank_failure import find_dead_ranks, is_connection_lost

WORKER = Path(__file__).with_name("worker.py")
# Two epochs of 3 steps, and half of one of the second stage: every border is crossed.
STEPS = 10
LONG = (
    "train.precision='64'",
    "train.stages=[{epochs: 2, resolution: 16, batch_size: 4},"
    " {epochs: 1, resolution: 32, batch_size: 2}]",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=3600",
)


def losses(out):
    with (out / "metrics.csv").open() as stream:
        return [
            {key: float(row[key]) for key in ("loss", "l1", "fourier", "mgl")}
            for row in csv.DictReader(stream)
        ]


def wanted(world, recipe, out, **more):
    return json.dumps(
        {
            "recipe": recipe_to_dict(recipe),
            "root": str(world.root),
            "cache": str(world.cache),
            "out": str(out),
            **more,
        }
    )


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train(world.recipe(*LONG), **world.sources, out=out)
    return losses(out)


def assert_close(one, two):
    assert len(one) == len(two) == STEPS
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-8)


def under_torchrun(rank, port):
    """What torchrun tells each of two processes."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def test_two_processes_equal_one(world, alone, tmp_path, start_forked, free_port):
    work = wanted(world, world.recipe(*LONG), tmp_path)
    waits = [start_forked(WORKER, work, env=under_torchrun(rank, free_port)) for rank in (0, 1)]
    for together in [wait() for wait in waits]:
        assert together.returncode == 0, together.stderr[-3000:]
    assert_close(losses(tmp_path), alone)


def test_micro_batches_equal_one_batch(world, alone, tmp_path):
    train(world.recipe(*LONG, "train.accumulate=2"), **world.sources, out=tmp_path)
    assert_close(losses(tmp_path), alone)


def test_a_process_that_dies_ends_the_others_and_is_named(world, tmp_path, start_forked, free_port):
    # torchrun is forked; the two processes that it starts are fresh ones.
    died = start_forked(
        torchrun.__file__,
        *("--nproc-per-node=2", f"--master-port={free_port}", WORKER),
        wanted(world, world.recipe(*LONG), tmp_path, kill_at=3, rank=1),
        env={"OMP_NUM_THREADS": "1"},
    )()
    assert died.returncode != 0
    assert "rank      : 1" in died.stderr
    assert "-9" in died.stderr
    # And the survivor says so itself, who else would stop when communication times out, after half
    # an hour: under SLURM there is no launcher that would.
    found = re.search(r"rank 0 of 2 stops, because rank 1 \((.+), process \d+\)", died.stderr)
    assert found, died.stderr[-3000:]
    assert found[1] == socket.gethostname()


def test_the_ranks_that_do_not_answer_are_named():
    store = HashStore()
    store.set("mmfe/who/2", "node-7, process 4711")
    store.set("mmfe/here/1", "yes")
    assert find_dead_ranks(store, 0, 3, within=0.1) == "rank 2 (node-7, process 4711)"
    assert find_dead_ranks(store, 2, 3, within=0.1) == ""  # 0 has answered above


def test_only_a_lost_connection_is_read_as_a_death():
    assert is_connection_lost(
        RuntimeError("[gloo/pair.cc] Connection closed by peer [127.0.0.1]:4711")
    )
    assert is_connection_lost(
        RuntimeError("NCCL error: remote process exited or there was a network error")
    )
    assert not is_connection_lost(RuntimeError("CUDA out of memory"))
    assert not is_connection_lost(ValueError("Connection closed by peer"))


def test_a_batch_that_cannot_be_shared_is_refused(world, tmp_path):
    # 4 and 2 samples over 3 micro-batches.
    with pytest.raises(UsageError, match="batch_size"):
        train(world.recipe("train.accumulate=3"), **world.sources, out=tmp_path)
