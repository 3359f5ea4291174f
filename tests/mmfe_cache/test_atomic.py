"""A file is there whole or not at all."""

import errno
import os
import threading
from pathlib import Path

import pytest

from mmfe_cache.atomic import write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "f"
    contents = [bytes([value]) * 100_000 for value in (1, 2)]
    write_atomically(path, contents[0])
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            seen.append(path.read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(30):
        write_atomically(path, contents[turn % 2])
    stop.set()
    thread.join()
    assert seen
    assert set(seen) <= set(contents)


def test_written_files_respect_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "f", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    write_atomically(path, b"before")
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("no /dev/full here")
    aside = tmp_path / "aside"
    aside.touch()
    monkeypatch.setattr(
        "mmfe_cache.atomic.tempfile.mkstemp",
        lambda **_: (os.open(device, os.O_WRONLY), str(aside)),
    )
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"after")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"before"
    assert not aside.exists()
