import numpy as np
import pytest

from benchmarks.cache_support import Pattern, TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError, DataError, GuideError, MmfeError, UsageError
from mmfe_cache.precompute import build_cache
from mmfe_cache.progress import Progress
from mmfe_cache.views import View

VIEWS = ("whole@16", "crop@8")


class Heard(Progress):
    def __init__(self):
        self.messages, self.warnings = [], []

    def message(self, text):
        self.messages.append(text)

    def warn(self, text):
        self.warnings.append(text)


def build(path, count=10, *, views=VIEWS, guide=None, **options):
    options = {"batch_size": 2, "shard_samples": 4, "workers": 2} | options
    return build_cache(sample_set(count), guide or TinyGuide(), views, path, **options)


def test_values_are_the_guides_own_to_float16(tmp_path):
    samples, guide = sample_set(10), TinyGuide()
    build(tmp_path / "a.zarr")
    reader = open_cache(tmp_path / "a.zarr")
    for view in VIEWS:
        render = View.parse(view).render
        for start in range(0, 10, 4):
            for first in range(start, min(start + 4, 10), 2):
                numbers = range(first, min(first + 2, start + 4, 10))
                images = [render(samples.samples[i].degraded.read()) for i in numbers]
                expected = guide.encode(images)
                found = reader.gather(list(numbers), view, tokens="all")
                for name, tensor in expected.present().items():
                    np.testing.assert_array_equal(
                        getattr(found, name).numpy(), tensor.numpy().astype(np.float16)
                    )


def test_report_counts_what_the_guide_did(tmp_path):
    guide = TinyGuide()
    report = build(tmp_path / "a.zarr", guide=guide)
    assert (report.encodings, report.reused, report.samples) == (20, 0, 10)
    assert guide.calls == 20
    again = build(tmp_path / "a.zarr", guide=guide)
    assert (again.encodings, again.reused) == (0, 20)
    assert guide.calls == 20


def test_adding_a_view_leaves_the_others_untouched(tmp_path):
    build(tmp_path / "a.zarr", views=VIEWS[:1])
    before = {
        p: (p.stat().st_mtime_ns, p.read_bytes())
        for p in (tmp_path / "a.zarr").rglob("*")
        if p.is_file()
    }
    report = build(tmp_path / "a.zarr", views=VIEWS)
    assert report.encodings == report.reused == 10
    assert all((p.stat().st_mtime_ns, p.read_bytes()) == was for p, was in before.items())
    build(tmp_path / "b.zarr", views=VIEWS)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_batches_stay_inside_shards(tmp_path):
    guide = TinyGuide()
    build(tmp_path / "a.zarr", guide=guide, views=VIEWS[:1], batch_size=3, shard_samples=4)
    assert guide.batches == [3, 1, 3, 1, 2]


def test_one_image_is_read_once_for_all_views(tmp_path, monkeypatch):
    reads = []
    original = Pattern.read
    monkeypatch.setattr(Pattern, "read", lambda self: reads.append(self.seed) or original(self))
    build(tmp_path / "a.zarr")
    assert sorted(reads) == list(range(10))


def test_a_missing_shard_is_the_only_one_computed_again(tmp_path):
    build(tmp_path / "a.zarr")
    before = tree(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/whole-16/joint/c.1.0.0").unlink()
    report = build(tmp_path / "a.zarr")
    assert report.encodings == 4
    assert tree(tmp_path / "a.zarr") == before


def test_nothing_is_left_beside_the_store(tmp_path):
    build(tmp_path / "a.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"guide": TinyGuide(revision=2)}, "guide.revision: 1 in the cache, 2 now"),
        ({"guide": TinyGuide(dim=4)}, "dim: 8 in the cache, 4 now"),
        ({"count": 11}, "samples.count: 10 in the cache, 11 now"),
    ],
)
def test_another_fingerprint_is_refused_by_field(tmp_path, change, named):
    build(tmp_path / "a.zarr")
    before = tree(tmp_path / "a.zarr")
    with pytest.raises(CacheError) as caught:
        build(tmp_path / "a.zarr", **change)
    assert named in str(caught.value)
    assert caught.value.exit_code == 3
    assert tree(tmp_path / "a.zarr") == before


def test_another_dataset_and_other_ids_are_refused_by_name(tmp_path):
    build(tmp_path / "a.zarr")
    other = sample_set(10, dataset="others", split="test")
    with pytest.raises(CacheError, match="dataset: patterns in the cache, others now"):
        build_cache(other, TinyGuide(), VIEWS, tmp_path / "a.zarr")


def test_changed_pixels_are_refused_when_a_view_is_added(tmp_path):
    build(tmp_path / "a.zarr", views=VIEWS[:1])
    with pytest.raises(CacheError, match="'haze/00000' have changed"):
        build_cache(
            sample_set(10, first=100), TinyGuide(), VIEWS, tmp_path / "a.zarr", batch_size=2
        )
    assert open_cache(tmp_path / "a.zarr").views == VIEWS[:1]


def test_an_unreadable_image_ends_the_build_with_its_name(tmp_path):
    samples = sample_set(10, broken=[5])
    with pytest.raises(DataError, match="pattern-5 is truncated"):
        build_cache(samples, TinyGuide(), VIEWS, tmp_path / "a.zarr", shard_samples=4)
    assert open_cache(tmp_path / "a.zarr").views == ()


def test_an_unreadable_image_can_be_left_out(tmp_path):
    samples = sample_set(10, broken=[5])
    options = {"shard_samples": 4, "batch_size": 2, "on_error": "skip"}
    heard = Heard()
    report = build_cache(
        samples, TinyGuide(), VIEWS[:1], tmp_path / "a.zarr", progress=heard, **options
    )
    assert report.skipped == ("haze/00005",)
    assert heard.warnings == ["haze/00005 is left out: pattern-5 is truncated (half a picture)"]
    assert heard.messages == [
        "1 samples are left out; once their images are mended: "
        f"mmfe cache repair {tmp_path / 'a.zarr'}"
    ]
    assert (report.encodings, report.reused) == (9, 0)
    reader = open_cache(tmp_path / "a.zarr")
    assert reader.skipped == ("haze/00005",)
    with pytest.raises(CacheError, match="'haze/00005' was skipped"):
        reader.gather([4, 5], VIEWS[0])
    # A later view leaves out the same sample; once its image can be read, a repair takes it in.
    report = build_cache(sample_set(10), TinyGuide(), VIEWS, tmp_path / "a.zarr", **options)
    assert (report.encodings, report.reused) == (9, 9)
    with pytest.raises(CacheError, match="was skipped"):
        reader = open_cache(tmp_path / "a.zarr").gather([5], VIEWS[1])
    # It cannot leave out another.
    with pytest.raises(DataError, match="pattern-6 is truncated") as caught:
        build_cache(
            sample_set(10, broken=[5, 6]), TinyGuide(), ["native"], tmp_path / "a.zarr", **options
        )
    assert "leave this view out" in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "kind"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (1e6, "too")]
)
def test_values_that_float16_cannot_hold_are_refused(tmp_path, value, kind):
    with pytest.raises(GuideError, match=kind) as caught:
        build(tmp_path / "a.zarr", guide=TinyGuide(spoil=value))
    assert "'haze/00001' at whole@16" in str(caught.value)
    assert not list((tmp_path / "a.zarr").rglob("c.0.0.0"))


def test_a_begun_view_keeps_its_batch_size(tmp_path):
    build(tmp_path / "a.zarr", batch_size=2)
    expected = tree(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/whole-16/joint/c.1.0.0").unlink()
    build(tmp_path / "a.zarr", batch_size=4)
    assert tree(tmp_path / "a.zarr") == expected


def test_a_foreign_folder_is_not_overwritten(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/precious.txt").write_text("mine")
    with pytest.raises(CacheError, match="is in the way"):
        build(tmp_path / "a.zarr")
    assert (tmp_path / "a.zarr/precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"shard_samples": 0}, {"workers": 0}, {"workers": -1}]
)
def test_nonsense_sizes_are_usage_errors(tmp_path, bad):
    with pytest.raises(UsageError):
        build(tmp_path / "a.zarr", **bad)
    assert not (tmp_path / "a.zarr").exists()


def test_a_folder_in_a_shards_place_is_no_shard(tmp_path):
    build(tmp_path / "a.zarr")
    file = tmp_path / "a.zarr" / "whole-16" / "joint" / "c.1.0.0"
    content = file.read_bytes()
    file.unlink()
    file.mkdir()
    with pytest.raises(MmfeError, match=r"c\.1\.0\.0"):
        build(tmp_path / "a.zarr")
    file.rmdir()
    assert build(tmp_path / "a.zarr").encodings == 4
    assert file.read_bytes() == content
