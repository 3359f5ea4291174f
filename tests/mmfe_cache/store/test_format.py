import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from benchmarks.cache_support import TinyGuide, sample_set
from mmfe_cache import open_cache
from mmfe_cache.precompute import build_cache
from mmfe_cache.store.info import describe

ARRAYS = ("image", "joint", "answer")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "tiny.zarr"
    views = ("whole@16", "crop@8#3", "native")
    options = {"batch_size": 2, "shard_samples": 4, "on_error": "skip"}
    build_cache(sample_set(10, broken=[6]), TinyGuide(), views, path, **options)
    return path


@pytest.mark.parametrize("view", ["whole@16", "crop@8#3", "native"])
@pytest.mark.parametrize("array", ARRAYS)
def test_stock_zarr_and_tensorstore_read_the_same_values(store, view, array):
    group = view.replace("@", "-").replace("#", "-")
    there = [0, 1, 2, 3, 4, 5, 7, 8, 9]
    ours = getattr(open_cache(store).gather(there, view, tokens="all"), array).numpy()
    theirs = zarr.open_group(store, mode="r")[f"{group}/{array}"]
    assert theirs.dtype == np.float16
    np.testing.assert_array_equal(theirs[:][there], ours)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(store / group / array)},
        "open": True,
    }
    np.testing.assert_array_equal(
        tensorstore.open(spec).result().read().result()[there].view(np.float16), ours
    )


def test_a_skipped_sample_reads_as_not_a_number_elsewhere(store):
    assert np.isnan(zarr.open_group(store, mode="r")["whole-16/answer"][6]).all()


def test_stock_zarr_reads_the_sample_table(store):
    samples = zarr.open_group(store, mode="r")["samples"]
    ids = samples["ids"][:].tobytes().decode().split("\n")[:-1]
    assert tuple(ids) == open_cache(store).ids
    offsets = samples["offsets"][:]
    assert offsets.tolist() == [11 * k for k in range(11)]
    np.testing.assert_array_equal(samples["digests"][:], open_cache(store).pixel_digests)


def test_zarr_finds_nothing_it_does_not_know(store, recwarn):
    members = dict(zarr.open_group(store, mode="r").members(max_depth=None))
    assert len(members) == 4 + 3 + 3 * 3
    assert not [w for w in recwarn if "not recognized" in str(w.message)]


def test_nothing_in_the_store_bears_a_time_or_a_host(store):
    import socket

    for file in store.rglob("zarr.json"):
        text = json.dumps(json.loads(file.read_text()))
        assert socket.gethostname() not in text
        assert "2026" not in text
        assert "time" not in text


def test_the_reader_in_the_documentation_reads_the_store(store):
    page = Path(__file__).parents[3] / "docs" / "cache-format.md"
    block = page.read_text().split("## Reading, in thirty lines\n\n")[1].split("\n\nWith zarr")[0]
    names = {}
    exec(textwrap.dedent(block), names)
    ours = open_cache(store).gather([9], "crop@8#3", tokens="all")
    for array in ARRAYS:
        found = names["read"](store, "crop@8#3", array, 9)
        np.testing.assert_array_equal(found, getattr(ours, array)[0].numpy())


def test_the_size_that_is_told_is_the_shards_own(store):
    shards = [file for file in store.glob("*/*/c.*") if file.parts[-3] != "samples"]
    assert describe(open_cache(store))["bytes"] == sum(file.stat().st_size for file in shards)
