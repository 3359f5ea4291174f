"""Processes that are forked instead of started afresh, and the null GPU (null_gpu/nullgpu.c)."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
HERE = ROOT / "tests/null_gpu"

# A fresh process imports torch and Lightning for seconds of CPU. A server of one thread imports
# them once, when the first test needs it, and forks: processes as real, and safe beside a GPU.
# Where the system has no such server, processes start afresh.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(
        ["mmfe_restore.training.train", "mmfe_restore.evaluation.evaluate"]
    )

# A shell starts what runs in its background with SIGINT ignored, nohup with SIGHUP, and programs
# inherit that: tests that send one would wait in vain. Programs inherit no handlers.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)  # pytest itself stays under nohup

SCRIPT = """
import os, runpy, sys
import torch
for number, path in ((1, out), (2, err)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
torch.set_num_threads(1)
os.environ.update(environment)
sys.argv = arguments
runpy.run_path(arguments[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def start_forked(tmp_path_factory):
    """Starts a script as a process of its own; call what it returns to wait for its end.

    Its attribute ``pid`` is for signals.
    """

    def start(*arguments, env=None):
        folder = tmp_path_factory.mktemp("forked")
        words = [str(word) for word in arguments]
        known = {"arguments": words, "environment": env or {}}
        files = {name: str(folder / name) for name in ("out", "err")}
        process = PROCESSES.Process(target=exec, args=(SCRIPT, known | files))
        process.start()

        def wait(timeout=240):
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
                raise subprocess.TimeoutExpired(words, timeout)
            texts = [Path(path).read_text(encoding="utf-8") for path in files.values()]
            return subprocess.CompletedProcess(words, process.exitcode, *texts)

        wait.pid = process.pid
        return wait

    return start


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
def start_method():
    """How processes that need torch are started at the least cost."""
    return METHOD


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The folder of the two libraries."""
    problem = missing()
    if problem is not None:
        pytest.skip(f"the null GPU {problem}")
    triton = Path(find_spec("triton").origin).parent
    # The runtime's own headers first, with PyTorch's structures; Triton's may be older.
    headers = [triton.parent / "nvidia/cu13/include", triton / "backends/nvidia/include"]
    folder = tmp_path_factory.mktemp("nullgpu")
    for source, made in (("nullgpu.c", "libnullgpu.so"), ("nulldriver.c", "libcuda.so.1")):
        command = ["cc", "-shared", "-fPIC", "-O1", *(f"-I{one}" for one in headers)]
        subprocess.run([*command, HERE / source, "-o", folder / made], check=True)
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
            "TRITON_LIBCUDA_PATH": str(library),
            "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, HERE / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
