import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from benchmarks.cache_children import CountingGuide, SharedCount, run_build, start_ranks, wait
from benchmarks.cache_support import TinyGuide, tree
from mmfe_cache.datasets import write_synth
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
        (1, {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}, True),
        (1, {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, False),
    ],
)
def test_what_starts_many_processes(monkeypatch, devices, environment, many):
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_many(devices, 1) is many


@pytest.mark.slow
def test_torchrun_and_devices_build_what_one_process_builds(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(photographs, name)()).save(tmp_path / "photos" / f"{name}.png")
    write_synth(tmp_path / "photos", tmp_path / "data", max_side=64)
    options = ["cache", "build", "--dataset", "cdd11", "--root", "data", "--guide", "oracle"]
    options += ["--split", "train", "--shard-samples", "2", "--batch-size", "2", "--json"]
    mmfe = Path(sys.executable).with_name("mmfe")
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    many = [*torchrun, "--standalone", "--nproc-per-node", "2", "--no-python"]
    monkeypatch.chdir(tmp_path)
    assert run([*options, "--out", "one"]) == 0
    commands = {
        "torchrun": [*many, mmfe, *options],
        "devices": [mmfe, *options, "--devices", "2"],
    }
    for out, command in commands.items():
        done = subprocess.run(
            [*map(str, command), "--out", out],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["encodings"] == 44
        assert tree(tmp_path / out) == tree(tmp_path / "one")
