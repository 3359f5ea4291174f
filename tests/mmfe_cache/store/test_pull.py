from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import torch

from benchmarks.cache_children import in_child, wait
from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store.storage import RemoteStorage
from mmfe_cache.store.verify import verify
from mmfe_cache.store.writer import pull

VIEWS = ("whole@16", "crop@8")


@pytest.fixture
def pair(tmp_path):
    """A local store and the same one in fsspec's memory."""
    local = tmp_path / "a.zarr"
    samples = sample_set(10, broken=[3])
    build_cache(samples, TinyGuide(), VIEWS, local, shard_samples=4, on_error="skip")
    memory = fsspec.filesystem("memory")
    memory.put(str(local), "/bucket/a.zarr", recursive=True)
    yield local, "memory://bucket/a.zarr"
    memory.rm("/bucket", recursive=True)


def test_a_remote_store_reads_as_a_local_one(pair):
    local, address = pair
    here, there = open_cache(local), open_cache(address)
    assert there.ids == here.ids
    assert there.views == here.views
    assert there.skipped == here.skipped == ("haze/00003",)
    indices = [9, 0, 4, 4]
    for tokens in ("grid", "mean", "all"):
        left = here.gather(indices, VIEWS[1], tokens=tokens)
        right = there.gather(indices, VIEWS[1], tokens=tokens)
        assert all(
            torch.equal(tensor, getattr(right, name)) for name, tensor in left.present().items()
        )
    with pytest.raises(CacheError, match="was skipped"):
        there.gather([3], VIEWS[0])


def test_a_damaged_remote_chunk_is_refused(pair):
    _, address = pair
    memory = fsspec.filesystem("memory")
    name = "/bucket/a.zarr/whole-16/image/c.0.0.0"
    data = bytearray(memory.cat_file(name))
    data[7] ^= 4
    memory.pipe_file(name, bytes(data))
    with pytest.raises(CacheError, match="damaged") as caught:
        open_cache(address).gather([0], VIEWS[0])
    assert caught.value.remedy == (
        f"mmfe cache repair on the original, then copy it to {address} again"
    )
    assert [d.file for d in verify(address).damages] == ["whole-16/image/c.0.0.0"]


def test_pull_copies_everything_or_the_views_asked_for(pair, tmp_path):
    local, address = pair
    assert pull(address, tmp_path / "b.zarr") == sum(map(len, tree(local).values()))
    assert tree(tmp_path / "b.zarr") == tree(local)
    pull(address, tmp_path / "c.zarr", views=VIEWS[:1])
    assert open_cache(tmp_path / "c.zarr").views == VIEWS[:1]
    assert verify(tmp_path / "c.zarr").intact
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", "b.zarr", "c.zarr"}


def test_a_stopped_pull_goes_on(pair, tmp_path, monkeypatch):
    local, address = pair
    with monkeypatch.context() as patch:
        stop_after(patch, 35)
        with pytest.raises(CacheError, match="network"):
            pull(address, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
    fetched = pull(address, tmp_path / "b.zarr")
    assert 0 < fetched < sum(map(len, tree(local).values()))
    assert tree(tmp_path / "b.zarr") == tree(local)


def test_pull_overwrites_nothing(pair, tmp_path):
    _, address = pair
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(CacheError, match="exists already"):
        pull(address, tmp_path / "b.zarr")


def test_unknown_addresses_are_said_clearly(pair):
    with pytest.raises(CacheError, match="no cache at"):
        open_cache("memory://bucket/none.zarr")
    with pytest.raises(UsageError, match="cannot open"):
        open_cache("nosuchprotocol://bucket/a.zarr")


def stop_after(monkeypatch, count):
    """Let the network go away once ``count`` files were read."""
    original, left = RemoteStorage.read, [count]

    def fail(self, name):
        left[0] -= 1
        if left[0] < 0:
            raise CacheError("the network went away")
        return original(self, name)

    monkeypatch.setattr(RemoteStorage, "read", fail)


def test_a_stopped_pull_of_another_store_is_not_mixed_in(pair, tmp_path, monkeypatch):
    _, address = pair
    # Equal ids and guide, so equal store ids and file sizes; other pictures.
    other = tmp_path / "other.zarr"
    samples = sample_set(10, first=50, broken=[3])
    build_cache(samples, TinyGuide(), VIEWS, other, shard_samples=4, on_error="skip")
    with monkeypatch.context() as patch:
        stop_after(patch, 35)
        with pytest.raises(CacheError, match="network"):
            pull(address, tmp_path / "b.zarr")
    pull(f"file://{other}", tmp_path / "b.zarr")
    assert tree(tmp_path / "b.zarr") == tree(other)


def test_a_stopped_pull_of_another_view_leaves_nothing_of_it(pair, tmp_path, monkeypatch):
    _, address = pair
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        with pytest.raises(CacheError, match="network"):
            pull(address, tmp_path / "b.zarr", views=VIEWS[1:])
    pull(address, tmp_path / "b.zarr", views=VIEWS[:1])
    assert open_cache(tmp_path / "b.zarr").views == VIEWS[:1]
    assert verify(tmp_path / "b.zarr").intact
    assert {p.name for p in (tmp_path / "b.zarr").iterdir()} == {"zarr.json", "samples", "whole-16"}


def test_a_file_that_arrives_in_part_is_no_file(pair, tmp_path, monkeypatch):
    _, address = pair
    original = RemoteStorage.read
    monkeypatch.setattr(
        RemoteStorage,
        "read",
        lambda self, name: original(self, name)[: -1 if name.endswith("c.1.0.0") else None],
    )
    with pytest.raises(CacheError, match="did not arrive whole"):
        pull(address, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(pair):
    """A store and its address on a web server, whose listings have no sizes."""
    pytest.importorskip("aiohttp")
    local, _ = pair
    handler = partial(Quiet, directory=str(local.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield local, f"http://127.0.0.1:{server.server_port}/{local.name}"
        server.shutdown()


def test_a_store_on_a_web_server_is_read_and_pulled(served, tmp_path):
    local, address = served
    assert pull(address, tmp_path / "b.zarr") == sum(map(len, tree(local).values()))
    assert tree(tmp_path / "b.zarr") == tree(local)
    reader = open_cache(address)
    expected = open_cache(local).gather([9, 0], VIEWS[0]).image

    def work():
        assert torch.equal(reader.gather([9, 0], VIEWS[0]).image, expected)

    work()
    assert wait(in_child(work)) == 0  # the driver's thread is not inherited


@pytest.mark.parametrize("place", ["s3://b/a", Path("s3://b/a")])
def test_nothing_is_written_to_an_address(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="local folder"):
        build_cache(sample_set(2), TinyGuide(), VIEWS, place)
    with pytest.raises(UsageError, match="local folder"):
        repair_cache(place, sample_set(2), TinyGuide())
    assert not list(tmp_path.iterdir())
