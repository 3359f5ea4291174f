"""How a run finds its place: alone, under torchrun, under SLURM."""

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training.machine import Machine


def machine(world=1, accelerator="cpu", devices=None):
    return Machine(0, world, devices or world, 1, accelerator, under_slurm=False)


def test_a_plain_start_is_one_process(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    found = Machine.detect()
    assert (found.rank, found.world_size, found.nodes, found.under_slurm) == (0, 1, 1, False)


def test_torchrun_on_four_nodes(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "17",
        "WORLD_SIZE": "32",
        "LOCAL_WORLD_SIZE": "8",
    }.items():
        monkeypatch.setenv(name, value)
    found = Machine.detect()
    assert (found.rank, found.world_size, found.devices, found.nodes) == (17, 32, 8, 4)
    assert found.trainer_options()["strategy"] == "ddp"


def test_slurm_on_two_nodes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in {
        "SLURM_NTASKS": "16",
        "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_NNODES": "2",
        "SLURM_PROCID": "9",
        "SLURM_JOB_NAME": "mmfe",
    }.items():
        monkeypatch.setenv(name, value)
    found = Machine.detect()
    assert (found.rank, found.world_size, found.devices, found.nodes) == (9, 16, 8, 2)
    assert found.trainer_options()["num_nodes"] == 2


def test_the_papers_batches_need_processes_that_divide_16():
    recipe = load_recipe("cdd11")
    for world in (1, 2, 8, 16):
        machine(world).check(recipe)
    with pytest.raises(UsageError, match="shared equally"):
        machine(32).check(recipe)
    with pytest.raises(UsageError, match="shared equally"):
        machine(8).check(load_recipe("cdd11", ["train.accumulate=4"]))


def test_precision_and_compilation_follow_the_device():
    recipe = load_recipe("cdd11")
    assert machine().precision(recipe) == "32-true"
    assert machine(accelerator="cuda").precision(recipe) == "bf16-mixed"
    assert not machine().compiles(recipe)
    assert machine(accelerator="cuda").compiles(recipe)
    assert machine().compiles(load_recipe("cdd11", ["train.compile=on"]))
    assert not machine(accelerator="cuda").compiles(load_recipe("cdd11", ["train.compile=off"]))


def test_pictures_are_held_without_workers_only():
    recipe, workers = load_recipe("cdd11"), load_recipe("cdd11", ["train.num_workers=3"])
    assert machine().may_hold(recipe)
    assert not machine(accelerator="cuda").may_hold(recipe)
    assert not machine().may_hold(workers)
    assert machine().workers(recipe, held=True) == 0
    assert machine().workers(workers, held=False) == 3
    assert machine(accelerator="cuda").workers(recipe, held=False) >= 1
