"""The null GPU (see null_gpu/nullgpu.c): CUDA code run without a card."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
HERE = ROOT / "tests/null_gpu"


def missing():
    """Why the null GPU cannot be had here; None where it can."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        return "needs Linux and a C compiler"
    if not (torch.version.cuda or "").startswith("13."):
        return "stands in for the runtime of CUDA 13"
    if find_spec("triton") is None:
        return "takes CUDA's headers from triton"
    return None


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The folder of the two libraries."""
    problem = missing()
    if problem is not None:
        pytest.skip(f"the null GPU {problem}")
    headers = Path(find_spec("triton").origin).parent / "backends/nvidia/include"
    folder = tmp_path_factory.mktemp("nullgpu")
    for source, made in (("nullgpu.c", "libnullgpu.so"), ("nulldriver.c", "libcuda.so.1")):
        command = ["cc", "-shared", "-fPIC", "-O1", f"-I{headers}", HERE / source]
        subprocess.run([*command, "-o", folder / made], check=True)
    return folder


@pytest.fixture(scope="session")
def on_null_gpu(library):
    """Runs a script of null_gpu/ and reads the JSON in its last line."""

    def run(script, *arguments, cards=1, major=9, gib=79):
        environment = {
            **os.environ,
            "NULLGPU": str(library / "libnullgpu.so"),
            "NULLGPU_COUNT": str(cards),
            "NULLGPU_MAJOR": str(major),
            "NULLGPU_GIB": str(gib),
            "LD_PRELOAD": str(library / "libnullgpu.so"),
            "LD_LIBRARY_PATH": f"{library}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, HERE / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
