"""What Windows and Macs lack is taken away: the command line must work without it.

Nothing here ran on a Mac or on Windows; this is the next best thing to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.errors import UsageError
from mmfe_cache.images import write_png
from mmfe_cache.machine import pick_device

ALL = """
import os, signal, sys
import asyncio, psutil  # whose Linux halves ask for sysconf when they are imported

class Refuse:
    def find_spec(self, name, *_):
        if name in {"fcntl", "resource", "termios"}:
            raise ImportError(f"{name} is not on this system")

sys.modules.pop("fcntl", None)
sys.meta_path.insert(0, Refuse())
for name in ("pread", "pwrite", "preadv", "O_DIRECTORY", "O_CLOEXEC", "sysconf",
             "sched_getaffinity", "mkfifo", "getloadavg", "fchmod"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
    delattr(signal, name)
os.supports_fd = frozenset(os.supports_fd) - {os.utime}
really = os.open
def open_files_alone(path, flags, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return really(path, flags, *rest, **options)
os.open = open_files_alone

from mmfe_cli.app import run
import json
for words in json.loads(sys.argv[1]):
    code = run(words)
    assert code == 0, (code, words)

import mmfe_restore.training.checkpoints
from mmfe_cache.errors import CacheError
from mmfe_cache.lock import lock_file, locked
from pathlib import Path
place = Path(sys.argv[2]) / "locked"
with locked(place):
    try:
        with locked(place):
            raise AssertionError("two writers at once")
    except CacheError as refused:
        assert "another build is writing" in str(refused)
assert not list(place.parent.glob("locked*"))
with locked(place) as stale:
    assert stale is None
print("ALL DONE")
"""


def test_the_command_line_without_what_other_systems_lack(tmp_path: Path):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        picture = np.kron(random.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1)))
        write_png(tmp_path / "photos" / f"{number}.png", picture.astype(np.uint8))
    photo = "photos/0.png"
    at = ["--dataset", "cdd11", "--root", "set"]
    small = ["--split", "test", "--recipe", "small"]
    commands = [
        ["data", "synth", "photos", "--out", "set", "--composition", "low", "--test-share", "0.5"],
        ["data", "check", *at],
        ["data", "pack", *at, "--split", "test"],
        ["cache", "build", *at, *small, "--out", "cache"],
        ["eval", "--checkpoint", "mmfe-small", *at, "--cache", "cache", "--out", "report"],
        ["inspect", photo],
        ["restore", photo, "-o", "restored"],
        ["export", "mmfe-small", "-o", "small.safetensors"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALL, json.dumps(commands), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ALL DONE" in done.stdout
    assert (tmp_path / "restored" / "0.png").is_file()
    assert (tmp_path / "report" / "metrics.json").is_file()


def test_a_device_of_macs_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="cannot be used here") as said:
        pick_device("mps")
    assert "'mps'" in str(said.value)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert pick_device("mps").type == "mps"
    with pytest.raises(UsageError, match="cannot be used here") as said:
        pick_device("mps", for_training=True)
    assert "does not train" in str(said.value)
    with pytest.raises(UsageError):
        pick_device("xpu")
