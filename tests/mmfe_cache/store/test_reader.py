import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cache_read import VIEW, write_store
from benchmarks.cache_support import TinyGuide, sample_set
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import storage


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "random.zarr"
    write_store(path, 103, 8, 10)
    return path


@pytest.fixture(scope="module")
def everything(store):
    return open_cache(store).gather(range(103), VIEW, tokens="all", check="never")


@pytest.mark.parametrize("check", ["first", "always", "never"])
@pytest.mark.parametrize(
    ("tokens", "window"), [("grid", slice(1, 17)), ("mean", slice(0, 1)), ("all", slice(0, 17))]
)
def test_gather_returns_what_was_asked_in_that_order(store, everything, check, tokens, window):
    indices = [102, 0, 55, 55, 9, 10, 101]
    found = open_cache(store).gather(indices, VIEW, tokens=tokens, check=check)
    assert found.image is not None
    assert found.image.dtype == torch.float16
    torch.testing.assert_close(found.image, everything.image[indices][:, window], rtol=0, atol=0)
    torch.testing.assert_close(found.joint, everything.joint[indices][:, window], rtol=0, atol=0)
    torch.testing.assert_close(found.answer, everything.answer[indices], rtol=0, atol=0)


def test_only_the_asked_arrays_are_read(store):
    found = open_cache(store).gather([1, 2], VIEW, arrays=["answer"])
    assert found.view == VIEW
    assert found.image is None
    assert found.joint is None
    assert found.answer.shape == (2, 8)


def test_an_empty_batch_has_the_right_shape(store):
    assert open_cache(store).gather([], VIEW).image.shape == (0, 16, 8)


def test_tensors_are_the_callers_own(store, everything):
    reader = open_cache(store)
    first = reader.gather([3], VIEW)
    first.image.zero_()
    assert torch.equal(reader.gather([3], VIEW).image[0], everything.image[3, 1:])


@pytest.mark.parametrize("indices", [[-1], [103], [[0]], [2**62], [[1], [2, 3]]])
def test_indices_out_of_range_are_usage_errors(store, indices):
    with pytest.raises(UsageError, match="out of range"):
        open_cache(store).gather(indices, VIEW)


@pytest.mark.parametrize("bad", [{"tokens": "few"}, {"check": "now"}, {"arrays": ("images",)}])
def test_unknown_readings_are_usage_errors(store, bad):
    with pytest.raises(UsageError):
        open_cache(store).gather([0], VIEW, **bad)


def test_index_of_finds_ids_and_names_the_missing(store):
    reader = open_cache(store)
    ids = [reader.ids[k] for k in (7, 3, 102)]
    assert reader.index_of(ids).tolist() == [7, 3, 102]
    assert open_cache(store).index_of([ids[0]]).tolist() == [7]  # by bisection
    with pytest.raises(CacheError) as caught:
        reader.index_of([*ids, "haze/none"])
    assert "'haze/none'" in str(caught.value)
    assert "random/train" in str(caught.value)
    assert caught.value.exit_code == 3


def test_ids_that_are_not_sorted_are_found_too(tmp_path):
    samples = sample_set(200)
    mixed = type(samples)("d", "train", samples.root, "x", samples.samples[::-1])
    build_cache(mixed, TinyGuide(), ["whole@16"], tmp_path / "a.zarr")
    reader = open_cache(tmp_path / "a.zarr")
    assert reader.index_of(["haze/00000", "haze/00199"]).tolist() == [199, 0]


def test_missing_and_foreign_places_are_cache_errors(tmp_path):
    with pytest.raises(CacheError, match="no cache at"):
        open_cache(tmp_path / "nowhere.zarr")
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(CacheError, match="not an mmfe cache"):
        open_cache(tmp_path)


def test_a_view_that_is_not_there_is_named_with_the_command(store):
    with pytest.raises(CacheError) as caught:
        open_cache(store).gather([0], "whole@224")
    assert "mmfe cache build" in str(caught.value)
    assert "finished views: whole@128" in str(caught.value)


def handles():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_file_handle_stays_open(store):
    reader = open_cache(store)
    before = handles()
    for _ in range(20):
        reader.gather(range(103), VIEW)
        open_cache(store).gather(range(103), VIEW)
    assert handles() <= before


def test_maps_end_with_their_reader(store):
    def maps():
        return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(store))

    before = maps()
    reader = open_cache(store)
    reader.gather(range(103), VIEW)
    assert maps() == before + 33
    del reader
    assert maps() == before


def test_beyond_the_limit_of_maps_reading_goes_on(store, everything, monkeypatch):
    monkeypatch.setattr(storage, "MAX_MAPS", storage._mapped + 5)
    found = open_cache(store).gather(range(103), VIEW, tokens="all")
    assert torch.equal(found.image, everything.image)
    assert torch.equal(found.answer, everything.answer)


def test_without_room_for_maps_reading_goes_on(store, everything, monkeypatch):
    def refuse(*_):
        raise OSError("no addresses")

    monkeypatch.setattr(storage, "_map", refuse)
    monkeypatch.setattr(
        "mmfe_cache.store.storage.map_file", lambda path: np.fromfile(path, np.uint8)
    )
    found = open_cache(store).gather(range(103), VIEW, tokens="all")
    assert torch.equal(found.joint, everything.joint)


def test_threads_share_a_reader(store, everything):
    reader, wrong = open_cache(store), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            indices = rng.integers(0, 103, 16)
            if not torch.equal(reader.gather(indices, VIEW).image, everything.image[indices, 1:]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_processes_share_a_reader(store):
    script = Path(__file__).with_name("worker_reads.py")
    done = subprocess.run(
        [sys.executable, script, store, VIEW],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "fork": {"threads": 1, "ended": [0, 0], "agree": True},
        "spawn": {"threads": 1, "ended": [0], "agree": True},
    }


def test_a_pickled_reader_opens_the_store_anew(store):
    reader = pickle.loads(pickle.dumps(open_cache(store)))
    assert reader.views == (VIEW,)
    assert len(reader) == 103


def test_a_damaged_chunk_is_refused_once_it_is_read(store, tmp_path):
    write_store(tmp_path / "a.zarr", 20, 8, 10)
    file = tmp_path / "a.zarr/whole-128/image/c.1.0.0"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    reader = open_cache(tmp_path / "a.zarr")
    reader.gather([9, 11], VIEW)
    with pytest.raises(CacheError, match="image embedding of 'haze/00000010'") as caught:
        reader.gather([10], VIEW)
    assert "crc32c" in str(caught.value)
    assert reader.gather([10], VIEW, check="never").image.shape == (1, 16, 8)
    with pytest.raises(CacheError):
        reader.gather([10], VIEW)


def test_a_first_check_is_done_once(store, monkeypatch):
    reader, calls = open_cache(store), []
    import google_crc32c

    original = google_crc32c.value
    monkeypatch.setattr(google_crc32c, "value", lambda data: calls.append(1) or original(data))
    reader.gather([1, 2], VIEW, arrays=["image"])
    first = len(calls)
    reader.gather([2, 1], VIEW, arrays=["image"])
    assert len(calls) == first
    reader.gather([2, 1], VIEW, arrays=["image"], check="always")
    assert len(calls) == first + 2
