"""Files that are there and cannot be read: a bad disk, or another user's permissions."""

import errno
import os
from pathlib import Path

import pytest

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store.verify import verify

VIEW = "whole@16"


@pytest.fixture
def store(tmp_path):
    build_cache(sample_set(6), TinyGuide(), [VIEW], tmp_path / "a.zarr", shard_samples=4)
    return tmp_path / "a.zarr"


@pytest.fixture
def spoil(monkeypatch):
    """Make one file unreadable, as a bad sector does."""

    def one(name):
        opened, read = os.open, Path.read_bytes

        def refuse(path):
            if str(path).endswith(name):
                raise OSError(errno.EIO, "Input/output error", str(path))

        def bad_open(path, *rest, **options):
            refuse(path)
            return opened(path, *rest, **options)

        def bad_read(path):
            refuse(path)
            return read(path)

        monkeypatch.setattr(os, "open", bad_open)
        monkeypatch.setattr(Path, "read_bytes", bad_read)

    return one


def names(store):
    return [n for n in tree(store) if n != "zarr.json"]


def test_every_file_that_cannot_be_read_is_named(store, spoil, monkeypatch):
    for name in names(store):
        with monkeypatch.context():
            spoil(f"a.zarr/{name}")
            damages = verify(store).damages
            assert name in {d.file for d in damages}, name
            assert any("cannot" in d.problem for d in damages if d.file == name), name
            monkeypatch.undo()


@pytest.mark.parametrize("name", ["zarr.json", "samples/ids/c.0", "whole-16/joint/c.1.0.0"])
def test_repair_writes_what_cannot_be_read_anew(store, monkeypatch, name):
    # A link that leads to itself cannot be read, and can be replaced: as a bad sector.
    expected = tree(store)
    (store / name).unlink()
    (store / name).symlink_to(store / name)
    assert not verify(store).intact
    assert repair_cache(store, sample_set(6), TinyGuide()).after.intact
    assert tree(store) == expected


@pytest.mark.parametrize("name", ["zarr.json", "whole-16/zarr.json", "whole-16/image/c.1.0.0"])
def test_reading_says_which_file_and_why(store, spoil, name):
    spoil(f"a.zarr/{name}")
    with pytest.raises(CacheError, match="cannot read") as caught:
        open_cache(store).gather([5], VIEW)
    assert name in str(caught.value)
    assert "Input/output error" in str(caught.value)
