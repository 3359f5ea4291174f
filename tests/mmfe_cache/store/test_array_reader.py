"""Gathering against a plain array, over every way that shards can fill their pages."""

import os

import numpy as np
import pytest
import torch
import zarr

from benchmarks.cache_read import VIEW, write_store
from mmfe_cache import open_cache
from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.store import storage
from mmfe_cache.store.storage import Storage

COUNT = 150


@pytest.fixture(scope="module", params=[1, 7, 64, 100, 128, 256])
def store(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / f"{request.param}.zarr"
    write_store(path, COUNT, 6, request.param)
    return path


def test_every_sample_is_what_stock_zarr_reads(store):
    group = zarr.open_group(store, mode="r")["whole-128"]
    indices = np.random.default_rng(0).permutation(np.r_[0:COUNT, 0, COUNT - 1])
    for check in ("first", "always", "never", "first"):
        found = open_cache(store).gather(indices, VIEW, ARRAY_NAMES, "all", check)
        for name in ARRAY_NAMES:
            np.testing.assert_array_equal(getattr(found, name).numpy(), group[name][:][indices])


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize(
    "bad",
    [-1, -COUNT, -COUNT - 1, -2 * COUNT, COUNT, 2 * COUNT - 1, 2 * COUNT, 2**63 - 1, -(2**63)],
)
def test_no_index_outside_is_ever_read(store, touched, bad):
    reader = open_cache(store)
    if touched:
        reader.gather(range(COUNT), VIEW)
    for check in ("first", "always", "never"):
        with pytest.raises(UsageError, match="out of range"):
            reader.gather([3, bad], VIEW, check=check)


@pytest.mark.parametrize(
    "bad", [[0.0, 1.5], [True] * COUNT, np.array([2**64 - 1], np.uint64), np.int64(3), [["a"]]]
)
def test_what_is_no_index_is_refused(store, bad):
    with pytest.raises(UsageError, match="out of range"):
        open_cache(store).gather(bad, VIEW)


@pytest.mark.parametrize(
    "given",
    [[5, 3], (5, 3), range(5, 1, -2), np.array([5, 3], np.uint8), torch.tensor([5, 3])],
)
def test_any_list_of_whole_numbers_will_do(store, given):
    expected = open_cache(store).gather(np.array([5, 3]), VIEW).image
    assert torch.equal(open_cache(store).gather(given, VIEW).image, expected)
    backwards = np.array([3, 4, 5])[::-2]
    assert torch.equal(open_cache(store).gather(backwards, VIEW).image, expected)


def test_a_tensor_is_written_to_without_touching_the_store(store):
    before = open_cache(store).gather(range(COUNT), VIEW).image
    found = open_cache(store).gather(range(COUNT), VIEW)
    found.image.add_(1)
    assert found.image.is_contiguous()
    assert torch.equal(open_cache(store).gather(range(COUNT), VIEW).image, before)


def test_where_the_system_grants_no_more_maps_files_are_read(store, monkeypatch):
    original, granted = storage._map, []

    def few(address, *rest):
        if address is not None:
            granted.append(address)
            if len(granted) > 1:
                raise OSError(12, "Cannot allocate memory")
        return original(address, *rest)

    expected = open_cache(store).gather(range(COUNT), VIEW, tokens="all")
    monkeypatch.setattr(storage, "_map", few)
    found = open_cache(store).gather(range(COUNT), VIEW, tokens="all")
    assert all(torch.equal(getattr(found, n), t) for n, t in expected.present().items())


def test_a_shard_that_shrinks_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    # Reading past the end of a mapped file would end the process with SIGBUS.
    write_store(tmp_path / "a.zarr", 20, 8, 64)
    original = Storage.tail

    def then_shrink(self, name, count):
        found = original(self, name, count)
        os.truncate(f"{self.location}/{name}", 64)
        return found

    monkeypatch.setattr(Storage, "tail", then_shrink)
    with pytest.raises(CacheError, match="cannot read") as caught:
        open_cache(tmp_path / "a.zarr").gather([0], VIEW)
    assert "has 64 bytes" in str(caught.value)


@pytest.mark.parametrize(("system", "number"), [("linux", 0x4000), ("darwin", 0x40), ("bsd", 0)])
def test_no_memory_is_reserved_by_each_systems_own_number(monkeypatch, system, number):
    given = []

    def noted(address, size, access, flags, handle):
        given.append(flags)
        raise OSError("noted")

    monkeypatch.setattr(storage, "_map", noted)
    monkeypatch.setattr(storage.sys, "platform", system)
    monkeypatch.delattr(storage.mmap, "MAP_NORESERVE", raising=False)
    with pytest.raises(OSError, match="noted"):
        storage.Region(1, 10)
    assert given == [storage.mmap.MAP_PRIVATE | storage.mmap.MAP_ANONYMOUS | number]
