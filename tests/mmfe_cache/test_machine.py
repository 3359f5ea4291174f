"""Devices that are not there, memory that is short, and who started this process."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from mmfe_cache.errors import UsageError
from mmfe_cache.machine import (
    Processes,
    choose_threads,
    emulates_bf16,
    float32_products,
    free_memory,
    is_out_of_memory,
    pick_device,
    require_bf16,
    time_network,
)

MIB = 2**20
V1, V2 = "4:cpu,memory:/box/job\n0::/box/job\n", "0::/box/job\n"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        (V2, {}, 900),
        (V2, {"memory.max": "max", "memory.current": 700 * MIB}, 900),
        (V2, {"memory.max": 800 * MIB, "memory.current": 700 * MIB}, 100),
        (
            V2,
            {
                "box/job/memory.max": 800 * MIB,
                "box/job/memory.current": 700 * MIB,
                "box/job/memory.stat": f"anon {500 * MIB}\ninactive_file {200 * MIB}\n",
            },
            300,
        ),
        (
            V2,
            {
                "box/job/memory.max": "max",
                "box/job/memory.current": 1,
                "box/memory.max": 500 * MIB,
                "box/memory.current": 600 * MIB,
            },
            0,
        ),
        (
            V1,
            {
                "memory/box/job/memory.limit_in_bytes": 800 * MIB,
                "memory/box/job/memory.usage_in_bytes": 700 * MIB,
                "memory/box/job/memory.stat": f"inactive_file 0\ntotal_inactive_file {50 * MIB}\n",
            },
            150,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "memory/memory.usage_in_bytes": 5,
            },
            900,
        ),
    ],
)
def test_free_memory_is_what_kernel_and_limits_leave(tmp_path, groups, files, free):
    meminfo = f"MemTotal: {2000 * 1024} kB\nMemFree: 5 kB\nMemAvailable: {900 * 1024} kB\n"
    found = {
        "proc/meminfo": meminfo,
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()},
    }
    for name, content in found.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert free_memory(tmp_path) == free * MIB


@pytest.mark.parametrize("name", ["banana", "", "mps", "meta", "cuda:99", "xpu", "cuda:-1"])
def test_a_device_that_is_not_there_is_wrong_usage(name):
    with pytest.raises(UsageError) as caught:
        pick_device(name)
    assert caught.value.exit_code == 2
    assert repr(name) in str(caught.value)
    assert "auto or cpu" in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu(name):
    with pytest.raises(UsageError, match="cannot be used here"):
        pick_device(name)


def test_a_device_that_is_there():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(torch.device("cpu")).type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("the label 'out of memory'"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes()),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "17", "WORLD_SIZE": "32", "LOCAL_WORLD_SIZE": "8"},
            Processes(17, 32, 8, "torchrun"),
        ),
        (
            {
                "SLURM_JOB_NAME": "mmfe",
                "SLURM_PROCID": "9",
                "SLURM_NTASKS": "32",
                "SLURM_NNODES": "4",
                "SLURM_STEP_NUM_TASKS": "16",
                "SLURM_STEP_NUM_NODES": "2",
            },
            Processes(9, 16, 8, "slurm"),
        ),
        # Of `salloc`: its shell, and a task of srun beneath it.
        ({"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "4"}, Processes()),
        (
            {
                "SLURM_JOB_NAME": "interactive",
                "SLURM_NTASKS": "4",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_PROCID": "3",
            },
            Processes(3, 4, 4, "slurm"),
        ),
        # A batch script, which calls no srun.
        (
            {
                "SLURM_JOB_NAME": "mmfe",
                "SLURM_NTASKS": "8",
                "SLURM_STEP_NUM_TASKS": "1",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_PROCID": "0",
            },
            Processes(),
        ),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Processes()),
    ],
)
def test_the_launcher_is_read_from_the_environment(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Processes.detect() == expected


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("wanted", [False, True])
def test_tf32_is_as_wanted_inside_the_block_and_as_before_after_it(wanted):
    before = tf32()
    assert before == (False, True)  # PyTorch's default, which is neither
    with float32_products(tf32=wanted):
        assert tf32() == (wanted, wanted)
        with suppress(ValueError), float32_products(tf32=not wanted):
            assert tf32() == (not wanted, not wanted)
            raise ValueError
        assert tf32() == (wanted, wanted)
    assert tf32() == before


def test_a_card_that_is_not_there_is_told_beside_those_that_are(monkeypatch):
    for count, there in ((1, "one card, cuda:0"), (2, "2 cards")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with pytest.raises(UsageError, match=there) as caught:
            pick_device("cuda:7")
        assert caught.value.exit_code == 2
        assert "auto or cpu or cuda:0" in str(caught.value)


def test_a_driver_that_is_too_old_is_to_be_renewed(monkeypatch):
    def touch(*_, **__):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\n")

    monkeypatch.setattr(torch, "empty", touch)
    with pytest.raises(UsageError, match="found version 11040") as caught:
        pick_device("cuda")
    assert "update NVIDIA's driver" in str(caught.value)


def test_bfloat16_is_refused_where_a_gpu_would_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some card")
    for major in (7, 9):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, m=major: (m, 0))
        require_bf16("cpu", "")
        if major == 9:
            require_bf16("cuda:0", "")
            continue
        with pytest.raises(UsageError, match="take float32") as caught:
            require_bf16("cuda:0", "take float32")
        assert "Some card, compute capability 7.0" in str(caught.value)


@pytest.mark.parametrize(
    ("known", "emulated"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_a_cpu_that_emulates_bfloat16_is_known(monkeypatch, known, emulated):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert emulates_bf16() is emulated
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert emulates_bf16() is False


@pytest.fixture(autouse=True)
def nobody_chose(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def scales(threads):
    return 0.1 / threads


def busy(threads):
    """Two threads of one product share a core with another process and wait for each other."""
    return 0.1 if threads == 1 else 0.9


@pytest.mark.parametrize(
    ("cores", "measure", "expected"),
    [
        (1, scales, 1),
        (2, scales, 2),
        (6, scales, 6),
        (8, scales, 8),
        (2, busy, 1),
        (8, busy, 1),
        (8, lambda n: 0.1 / min(n, 4), 4),  # four cores are free
        (2, lambda n: 0.1 if n == 1 else 0.095, 1),  # not worth a second core
    ],
)
def test_the_fewest_threads_that_are_about_as_fast(cores, measure, expected):
    assert choose_threads(cores, measure).count == expected


def test_the_environment_decides_without_a_measurement(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    chosen = choose_threads(8, lambda n: pytest.fail("measured"))
    assert str(chosen) == "threads: 3 (OMP_NUM_THREADS says so)"


def test_the_choice_says_what_was_measured():
    said = str(choose_threads(2, busy))
    assert said == "threads: 1 (measured: 100.0 ms on 1, 900.0 ms on 2)"


def test_measuring_leaves_the_number_of_threads_alone():
    before = torch.get_num_threads()
    assert time_network(2) > 0
    assert torch.get_num_threads() == before
