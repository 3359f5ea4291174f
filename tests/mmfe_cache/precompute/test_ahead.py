"""A guide on a GPU is given the next batch before the last one is waited for; same bytes."""

import pytest

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import AsyncGuide
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import open_cache

VIEWS = ("whole@16", "crop@8")


class Later:
    def __init__(self, guide, number, prepared):
        self._guide, self._number, self._prepared = guide, number, prepared

    def result(self):
        self._guide.events.append(("end", self._number))
        return self._guide.encode_prepared(self._prepared)


class AheadGuide(TinyGuide):
    """Computes only when it is waited for, and remembers what happened in which order."""

    ahead = 1

    def __init__(self, most=100, **options):
        super().__init__(**options)
        self.events, self._most = [], most

    def start(self, prepared):
        if len(prepared) > self._most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        number = sum(kind == "begin" for kind, _ in self.events)
        self.events.append(("begin", number))
        return Later(self, number, prepared)


def build(path, guide, samples=None, views=VIEWS, **options):
    samples = sample_set(10) if samples is None else samples
    return build_cache(
        samples, guide, views, path, batch_size=2, shard_samples=4, workers=2, **options
    )


def test_a_batch_begins_before_the_one_before_it_ends_and_the_bytes_are_the_same(tmp_path):
    guide = AheadGuide()
    assert isinstance(guide, AsyncGuide)
    report = build(tmp_path / "a.zarr", guide, views=VIEWS[:1])
    build(tmp_path / "b.zarr", TinyGuide(), views=VIEWS[:1])
    assert report.encodings == guide.calls == 10
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
    # Five batches in shards of two: also across a shard's border one is always ahead.
    assert guide.events == [
        *(("begin", 0), ("begin", 1), ("end", 0), ("begin", 2), ("end", 1)),
        *(("begin", 3), ("end", 2), ("begin", 4), ("end", 3), ("end", 4)),
    ]


@pytest.mark.parametrize("most", [1, 2])
def test_many_views_skipped_samples_and_little_memory_give_the_same_bytes(tmp_path, most):
    samples = sample_set(10, broken=(4, 5, 9))
    waiting = AheadGuide(most)
    waiting.ahead = 0
    for name, guide in (("a", AheadGuide(most)), ("b", waiting)):
        report = build(tmp_path / f"{name}.zarr", guide, samples, on_error="skip")
        assert report.skipped == tuple(samples.ids[number] for number in (4, 5, 9))
        assert open_cache(tmp_path / f"{name}.zarr").shard_batches("crop@8") == dict.fromkeys(
            range(3), most
        )
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_a_bad_value_of_a_batch_that_ran_ahead_ends_the_build(tmp_path):
    with pytest.raises(GuideError, match="not finite"):
        build(tmp_path / "a.zarr", AheadGuide(spoil=float("nan")))
    assert open_cache(tmp_path / "a.zarr").views == ()
