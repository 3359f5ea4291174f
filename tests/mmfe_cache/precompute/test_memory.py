"""Memory that runs out: batches are halved, the store says so, and its bytes can be had again."""

import pytest

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store.info import describe, describe_text
from mmfe_cache.store.verify import verify

VIEW = "whole@16"


class SmallGuide(TinyGuide):
    """Runs out of memory above ``most`` pictures, from call number ``since`` on."""

    def __init__(self, most, since=0):
        super().__init__()
        self._most, self._since = most, since

    def encode_prepared(self, prepared):
        if len(prepared) > self._most and len(self.batches) >= self._since:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().encode_prepared(prepared)


def build(path, guide, views=(VIEW,), count=12, batch_size=4, shard_samples=8):
    samples = sample_set(count)
    options = {"batch_size": batch_size, "shard_samples": shard_samples, "workers": 2}
    return build_cache(samples, guide, views, path, **options)


def batches(path):
    return open_cache(path).shard_batches(VIEW)


def test_batches_are_halved_until_they_fit(tmp_path):
    guide = SmallGuide(1)
    assert build(tmp_path / "a.zarr", guide).encodings == 12
    assert guide.batches == [1] * 12
    assert batches(tmp_path / "a.zarr") == {0: 1, 1: 1}
    assert open_cache(tmp_path / "a.zarr").view_metadata[VIEW].batch_size == 4


def test_one_picture_that_does_not_fit_ends_the_build(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"):
        build(tmp_path / "a.zarr", SmallGuide(0))


def test_a_shard_is_of_one_batch_size_also_where_memory_runs_out_midway(tmp_path):
    # Eight samples a shard in batches of four: the second batch of shard 0 does not fit.
    guide = SmallGuide(2, since=1)
    report = build(tmp_path / "a.zarr", guide)
    assert batches(tmp_path / "a.zarr") == {0: 2, 1: 2}
    # Four samples of the spoilt shard were encoded for nothing, four more in vain at size 2.
    assert guide.calls == report.encodings == 12 + 8
    assert report.reused == 0
    assert build(tmp_path / "a.zarr", guide).reused == 12
    build(tmp_path / "b.zarr", SmallGuide(2))
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_memory_that_runs_out_twice_in_a_shard(tmp_path):
    class Shrinking(TinyGuide):
        def encode_prepared(self, prepared):
            if len(prepared) > (4, 4, 2, 1)[min(len(self.batches), 3)]:
                raise MemoryError
            return super().encode_prepared(prepared)

    build(tmp_path / "a.zarr", Shrinking(), count=16, shard_samples=16)
    build(tmp_path / "b.zarr", SmallGuide(1), count=16, shard_samples=16)
    assert batches(tmp_path / "a.zarr") == {0: 1}
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_only_the_view_that_ran_out_is_halved(tmp_path):
    class Wide(TinyGuide):
        def encode_prepared(self, prepared):
            if len(prepared) > 2 and prepared[0][-1] == 16:  # The width of the picture.
                raise MemoryError
            return super().encode_prepared(prepared)

    build(tmp_path / "a.zarr", Wide(), (VIEW, "crop@8"))
    reader = open_cache(tmp_path / "a.zarr")
    assert reader.shard_batches(VIEW) == {0: 2, 1: 2}
    assert reader.shard_batches("crop@8") == {0: 4, 1: 4}


def spoil(file):
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)


def test_repair_with_more_memory_writes_the_same_bytes(tmp_path):
    path = tmp_path / "a.zarr"
    build(path, SmallGuide(2))
    expected = tree(path)
    spoil(path / "whole-16/joint/c.0.0.0")
    guide = TinyGuide()
    assert repair_cache(path, sample_set(12), guide).after.intact
    assert guide.batches == [2] * 4
    assert tree(path) == expected
    # All three files of a shard: their indices are read before they go.
    for file in (path / "whole-16").glob("*/c.1.*"):
        spoil(file)
    assert repair_cache(path, sample_set(12), TinyGuide()).after.intact
    assert tree(path) == expected


def test_a_build_that_goes_on_with_more_memory_writes_the_same_bytes(tmp_path):
    path = tmp_path / "a.zarr"
    build(path, SmallGuide(2))
    expected = tree(path)
    (path / "whole-16/answer/c.1.0").unlink()
    build(path, TinyGuide())
    assert tree(path) == expected


def test_less_memory_than_before_is_recorded_too(tmp_path):
    path = tmp_path / "a.zarr"
    build(path, SmallGuide(2))
    (path / "whole-16/answer/c.1.0").unlink()
    build(path, SmallGuide(1))
    assert batches(path) == {0: 2, 1: 1}
    assert verify(path).intact


def test_info_says_which_shards_were_halved(tmp_path):
    build(tmp_path / "a.zarr", SmallGuide(2))
    about = describe(open_cache(tmp_path / "a.zarr"))
    assert about["views"][VIEW]["halved"] == {"0": 2, "1": 2}
    (line,) = [line for line in describe_text(about) if "memory" in line]
    assert "in 2 shards" in line
    assert "batches of 2 instead of 4" in line
    build(tmp_path / "b.zarr", TinyGuide())
    about = describe(open_cache(tmp_path / "b.zarr"))
    assert about["views"][VIEW]["halved"] == {}
    assert not [line for line in describe_text(about) if "memory" in line]
