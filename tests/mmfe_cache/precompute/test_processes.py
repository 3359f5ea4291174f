import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from benchmarks.cache_children import CountingGuide, SharedCount, run_build, start_ranks, wait
from benchmarks.cache_support import TinyGuide, tree
from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.precompute.distributed import wants_many
from mmfe_cli.app import run


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_writes_the_same_bytes(tmp_path, size):
    run_build(tmp_path / "one.zarr", TinyGuide())
    counter = SharedCount()
    guides = [CountingGuide(counter, rank) for rank in range(size)]
    pids = start_ranks(tmp_path / "many.zarr", size, guides, tmp_path / "meeting")
    assert [wait(pid) for pid in pids] == [0] * size
    assert tree(tmp_path / "many.zarr") == tree(tmp_path / "one.zarr")
    assert counter.total == 52
    assert all(guide_share > 0 for guide_share in counter._cells[:size])


def test_a_rank_that_loses_the_others_ends_with_a_message(tmp_path):
    guides = [TinyGuide(), TinyGuide(spoil=float("nan"))]
    pids = start_ranks(tmp_path / "a.zarr", 2, guides, tmp_path / "meeting")
    codes = [wait(pid) for pid in pids]
    assert codes == [101, 101]
    run_build(tmp_path / "a.zarr", TinyGuide())


@pytest.mark.parametrize(
    ("devices", "environment", "many"),
    [
        (1, {}, False),
        (2, {}, True),
        (1, {"WORLD_SIZE": "2"}, False),
        (1, {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, True),
        (1, {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, True),
        (1, {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, False),
    ],
)
def test_what_starts_many_processes(monkeypatch, devices, environment, many):
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_many(devices, 1) is many


@pytest.mark.slow
def test_torchrun_and_devices_build_what_one_process_builds(tmp_path, start_forked, free_port):
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(photographs, name)()).save(tmp_path / "photos" / f"{name}.png")
    write_synth(tmp_path / "photos", tmp_path / "data", max_side=64)
    # In shard 1, which the second process computes.
    broken = load_dataset("cdd11", "train", tmp_path / "data").samples[2]
    file = Path(broken.degraded.path)
    file.write_bytes(file.read_bytes()[:-200])
    options = ["cache", "build", "--dataset", "cdd11", "--root", tmp_path / "data"]
    options += ["--guide", "oracle", "--split", "train"]
    options += ["--shard-samples", "2", "--batch-size", "2", "--on-error", "skip", "--json"]
    assert run([*map(str, options), "--out", str(tmp_path / "one")]) == 0
    # Fabric starts this file again for the second device, in a process of its own.
    mmfe = Path(sys.executable).with_name("mmfe")
    two = start_forked(mmfe, *options, "--out", tmp_path / "devices", "--devices", "2")()
    # As torchrun starts them: training is started by torchrun itself (see its test_processes).
    waits = [
        start_forked(
            mmfe,
            *(*options, "--out", tmp_path / "torchrun"),
            env={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port),
                "TORCHELASTIC_RUN_ID": "test",
                "TORCHELASTIC_RESTART_COUNT": "0",
            },
        )
        for rank in (0, 1)
    ]
    first, second = [wait() for wait in waits]
    for out, done in (("devices", two), ("torchrun", first)):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["encodings"] == 40
        assert tree(tmp_path / out) == tree(tmp_path / "one")
    assert (second.returncode, second.stdout) == (0, "")
    assert second.stderr.count(f"{broken.id} is left out") == 1
    assert "left out: " not in first.stderr
