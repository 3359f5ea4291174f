import os

import pytest

from mmfe_cache.errors import MmfeError
from mmfe_cache.store import files


@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 9, 1], [16, 16], [40], [15, 1, 33, 2]])
def test_parts_of_any_size_make_one_file(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(files, "BLOCK_BYTES", 16)
    parts = [bytes([k + 1]) * size for k, size in enumerate(sizes)]
    files.write_whole(tmp_path / "a", parts, tmp_path / "aside")
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    assert list((tmp_path / "aside").iterdir()) == []


def test_a_write_that_takes_only_some_bytes_is_continued(tmp_path, monkeypatch):
    class Reluctant:
        def __init__(self):
            self.taken = bytearray()

        def write(self, data):
            self.taken += data[:3]
            return min(3, len(data))

    file = Reluctant()
    files._write_all(file, memoryview(b"eleven byte"))
    assert file.taken == b"eleven byte"


def test_what_cannot_be_written_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MmfeError, match="no space left"):
        files.write_whole(tmp_path / "a", [b"new"], tmp_path / "aside")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list((tmp_path / "aside").iterdir()) == []
