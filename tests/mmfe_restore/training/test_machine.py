"""How a run finds its place: alone, under torchrun, under SLURM."""

from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_restore.data import StagePlan
from mmfe_restore.recipes import Stage, load_recipe
from mmfe_restore.training.machine import Machine, memory_explained


def machine(world=1, accelerator="cpu", devices=None):
    return Machine(0, world, devices or world, 1, accelerator, None)


def test_a_plain_start_is_one_process(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    found = Machine.detect()
    assert (found.rank, found.world_size, found.nodes, found.launcher) == (0, 1, 1, None)


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
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": "9",
        "SLURM_JOB_NAME": "interactive",  # of `salloc`, beneath which srun starts tasks too
    }.items():
        monkeypatch.setenv(name, value)
    found = Machine.detect()
    assert (found.rank, found.world_size, found.devices, found.nodes) == (9, 16, 8, 2)
    options = found.trainer_options()
    assert options["num_nodes"] == 2
    (plugin,) = options["plugins"]
    assert isinstance(plugin, SLURMEnvironment) and not plugin.auto_requeue


def test_a_batch_script_without_srun_is_one_process_to_lightning_too(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in {
        "SLURM_NTASKS": "8",
        "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_NNODES": "1",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_JOB_NAME": "mmfe",
    }.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(
        **Machine.detect().trainer_options(), logger=False, enable_checkpointing=False
    )
    assert trainer.world_size == 1


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
    assert machine(accelerator="cuda").activation_memory(recipe) == 0.5
    assert machine().activation_memory(recipe) == 1.0


def card(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Some card")


def test_a_card_without_bf16_is_told_what_to_take(monkeypatch):
    card(monkeypatch, (7, 5))
    with pytest.raises(UsageError, match="does not compute in bfloat16") as caught:
        machine(accelerator="cuda").check(load_recipe("cdd11"))
    assert "Some card, compute capability 7.5" in str(caught.value)
    assert "train.precision=32" in str(caught.value)
    for precision in ("32", "16"):
        machine(accelerator="cuda").check(load_recipe("cdd11", [f"train.precision={precision}"]))
    machine().check(load_recipe("cdd11", ["train.precision=bf16"]))  # a CPU has it
    card(monkeypatch, (8, 0))
    machine(accelerator="cuda").check(load_recipe("cdd11"))


def test_half_precision_on_a_cpu_is_refused():
    recipe = load_recipe("cdd11", ["train.precision=16"])
    with pytest.raises(UsageError, match="needs a GPU") as caught:
        machine().check(recipe)
    assert "train.precision=32" in str(caught.value)


def test_cudnn_times_its_algorithms_on_a_gpu_alone():
    assert machine(accelerator="cuda").trainer_options()["benchmark"]
    assert not machine().trainer_options()["benchmark"]


@pytest.fixture
def task():
    plan = StagePlan(Stage(1, 128, 64), 0, 0, 0, 9, 0)
    schedule = SimpleNamespace(steps=9, stage_at=lambda step: plan)
    return SimpleNamespace(schedule=schedule, current_step=0)


def failing_compiler(message):
    def compiler(graph, inputs):
        raise RuntimeError(message)

    return torch.compile(lambda x: x + 1, backend=compiler)


def test_memory_that_runs_out_while_compiling_is_told_as_such(task, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 24 << 30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 23 << 30)
    message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 23.5 GiB"
    recipe = load_recipe("cdd11", ["train.activation_memory=1", "train.compile=on"])
    with (
        pytest.raises(MmfeError, match="out of memory in training") as caught,
        memory_explained(recipe, machine(accelerator="cuda"), task),
    ):
        failing_compiler(message)(torch.ones(2))
    told = str(caught.value)
    for way in ("accumulate=2", "activation_memory=0.5", "activation_checkpointing=true"):
        assert f"train.{way}" in told


STAGES = (
    "train.stages=[{{epochs: 1, resolution: 128, batch_size: {}}},"
    " {{epochs: 1, resolution: 256, batch_size: {}}}]"
)


@pytest.mark.parametrize(
    ("world", "batches", "accumulate", "wanted"),
    [
        (1, (64, 6), 1, 2),
        (1, (64, 9), 1, None),  # 32 crops each fit the first stage; the second cannot be halved
        (1, (12, 9), 1, 3),
        (4, (64, 16), 1, 2),
        (16, (64, 16), 1, None),
        (2, (48, 24), 2, 3),  # not twice as many parts, but the next that are equal
    ],
)
def test_parts_that_are_advised_are_parts_of_every_stage(task, world, batches, accumulate, wanted):
    recipe = load_recipe("cdd11", [STAGES.format(*batches), f"train.accumulate={accumulate}"])
    task.schedule.stage_at = lambda step: StagePlan(recipe.train.stages[0], 0, 0, 0, 9, 0)
    with (
        pytest.raises(MmfeError, match="out of memory in training") as caught,
        memory_explained(recipe, machine(world), task),
    ):
        raise MemoryError
    advice = str(caught.value.remedy)
    if wanted is None:
        assert "train.accumulate" not in advice and "more processes" not in advice
        assert "smaller batch_size" in advice
        return
    crops = batches[0] // (world * wanted)
    assert f"--set train.accumulate={wanted} ({crops} crops at once" in advice
    changed = f"train.accumulate={wanted}"
    machine(world).check(load_recipe("cdd11", [STAGES.format(*batches), changed]))


def test_a_compiler_that_fails_is_told_with_the_way_around_it(task):
    with (
        pytest.raises(MmfeError, match="could not be compiled") as caught,
        memory_explained(load_recipe("cdd11"), machine(), task),
    ):
        failing_compiler("Cannot find a working triton installation")(torch.ones(2))
    assert "Cannot find a working triton installation" in str(caught.value)
    assert "--set train.compile=off" in str(caught.value)


def test_a_kernel_that_a_card_has_no_room_for_is_told_with_the_way_around_it(task):
    # As Triton's, which is no RuntimeError.
    kind = type("OutOfResources", (Exception,), {})

    told = "out of resource: shared memory, Required: 135168, Hardware limit: 101376. Reducing"
    with (
        pytest.raises(MmfeError, match="more of this GPU than it has") as caught,
        memory_explained(load_recipe("cdd11"), machine(accelerator="cuda"), task),
    ):
        raise kind(told)
    assert "Required: 135168, Hardware limit: 101376" in str(caught.value)
    assert "--set train.kernels=torch" in str(caught.value)


def test_other_errors_stay_what_they_are(task):
    with (
        pytest.raises(RuntimeError, match=r"^shapes differ$"),
        memory_explained(load_recipe("cdd11"), machine(), task),
    ):
        raise RuntimeError("shapes differ")


def test_pictures_are_held_without_workers_only():
    recipe, workers = load_recipe("cdd11"), load_recipe("cdd11", ["train.num_workers=3"])
    assert machine().may_hold(recipe)
    assert not machine(accelerator="cuda").may_hold(recipe)
    assert not machine().may_hold(workers)
    assert machine().workers(recipe, held=True) == 0
    assert machine().workers(workers, held=False) == 3
    assert machine(accelerator="cuda").workers(recipe, held=False) >= 1
