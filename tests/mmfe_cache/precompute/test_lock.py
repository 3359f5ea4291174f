import errno
import json
import os
import signal
import socket
import time

import pytest

from benchmarks.cache_children import VIEWS, in_child, run_build, start_ranks, wait
from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache.errors import CacheError
from mmfe_cache.lock import STALE, lock_file, locked
from mmfe_cache.precompute import build_cache
from mmfe_cache.progress import Progress


class Told(Progress):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def build(path, **options):
    return build_cache(sample_set(4), TinyGuide(), ["whole@16"], path, **options)


def hold(path):
    """A child that holds the lock until it is killed."""

    def work():
        with locked(path):
            time.sleep(60)

    pid = in_child(work)
    for _ in range(500):
        if lock_file(path).exists() and lock_file(path).read_bytes():
            return pid
        time.sleep(0.01)
    raise AssertionError("the child never took the lock")


def test_a_second_writer_is_refused_with_owner_and_age(tmp_path):
    path = tmp_path / "a.zarr"
    pid = hold(path)
    try:
        with pytest.raises(CacheError) as caught:
            build(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        wait(pid)
    assert f"process {pid} on {socket.gethostname()}, which began" in str(caught.value)
    assert not path.exists()


def test_a_dead_owners_lock_is_recognised_at_once(tmp_path):
    path, told = tmp_path / "a.zarr", Told()
    pid = hold(path)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    assert lock_file(path).exists()
    build(path, progress=told)
    assert any(f"process {pid}" in line for line in told.lines)
    assert not lock_file(path).exists()


def test_rank_0_killed_while_it_holds_the_lock(tmp_path):
    path, told = tmp_path / "a.zarr", Told()
    guides = [TinyGuide(seconds=0.2), TinyGuide(seconds=0.05)]
    first, second = start_ranks(path, 2, guides, tmp_path / "meeting")
    for _ in range(1000):
        if lock_file(path).exists() and lock_file(path).read_bytes():
            break
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    assert wait(first) == -signal.SIGKILL
    assert wait(second) == 101
    assert lock_file(path).exists()
    build_cache(
        sample_set(26), TinyGuide(), VIEWS, path, batch_size=2, shard_samples=4, progress=told
    )
    assert any(f"took over the lock of a build that died: process {first}" in t for t in told.lines)
    assert not lock_file(path).exists()
    run_build(tmp_path / "b.zarr", TinyGuide())
    assert tree(path) == tree(tmp_path / "b.zarr")


# Named, because every test process has its own time.
@pytest.mark.parametrize("since", [0, time.time() + 10 * 365 * 86400], ids=["1970", "to come"])
def test_another_machines_lock_counts_while_it_gives_signs_of_life(tmp_path, since):
    path = tmp_path / "a.zarr"
    owner = {"host": "elsewhere", "pid": 1, "since": since}
    lock_file(path).write_text(json.dumps(owner))
    with pytest.raises(CacheError, match="process 1 on elsewhere"):
        build(path)
    # Its own clock may say anything; what counts is the file system's.
    old = time.time() - STALE - 5
    os.utime(lock_file(path), (old, old))
    build(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_lock_file_that_says_nothing_is_taken_over(tmp_path, text):
    lock_file(tmp_path / "a.zarr").write_text(text)
    build(tmp_path / "a.zarr")


def test_the_lock_goes_also_when_the_build_fails(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "a.zarr"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_jump_of_the_wall_clock_changes_nothing(tmp_path, monkeypatch):
    build(tmp_path / "a.zarr")
    times = iter([2e9, 1.0, 5e9] * 100)
    monkeypatch.setattr(time, "time", lambda: next(times))
    build_cache(sample_set(4), TinyGuide(), ["whole@16"], tmp_path / "b.zarr")
    first = {file.name: file.read_bytes() for file in (tmp_path / "a.zarr").rglob("c.*")}
    second = {file.name: file.read_bytes() for file in (tmp_path / "b.zarr").rglob("c.*")}
    assert first == second


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_file_locks_signs_of_life_decide_on_one_machine_too(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "a.zarr"
    with locked(path):
        with pytest.raises(CacheError, match=f"process {os.getpid()} on"), locked(path):
            pass
        assert lock_file(path).exists()
        old = time.time() - STALE - 5
        os.utime(lock_file(path), (old, old))
        with locked(path) as stale:
            assert f"process {os.getpid()}" in stale


@pytest.mark.parametrize("owner", [None, {"host": "elsewhere", "pid": 7, "since": 0}])
def test_another_builds_lock_is_not_removed(tmp_path, owner):
    file = lock_file(tmp_path / "a.zarr")
    with locked(tmp_path / "a.zarr"):
        if owner is None:
            file.unlink()  # by hand; another build then makes its own
        file.write_text(json.dumps(owner))
    assert json.loads(file.read_text()) == owner
