import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cache_support import Pattern, TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError, DataError, GuideError, MmfeError, UsageError
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.progress import Progress
from mmfe_cache.store.storage import Storage
from mmfe_cache.store.verify import verify
from mmfe_cache.views import View

VIEWS = ("whole@16", "crop@8")


def build(path, **options):
    options = {"guide": TinyGuide(), "samples": sample_set(10), "views": VIEWS} | options
    guide, samples, views = (options.pop(name) for name in ("guide", "samples", "views"))
    return build_cache(samples, guide, views, path, batch_size=2, shard_samples=4, **options)


@pytest.fixture
def store(tmp_path):
    build(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def swap(left, right):
    content = left.read_bytes()
    left.write_bytes(right.read_bytes())
    right.write_bytes(content)


def repaired(store, expected, **options):
    report = repair_cache(store, options.get("samples", sample_set(10)), TinyGuide())
    assert report.after.intact
    assert tree(store) == expected
    return report


def changed(number):
    """The samples, but one has other pixels."""
    samples = sample_set(10)
    other = list(samples.samples)
    other[number] = replace(other[number], degraded=Pattern(999))
    return replace(samples, samples=tuple(other))


def test_an_intact_store_is_read_whole(store):
    report = verify(store)
    assert report.intact
    assert report.chunks == 10 * len(VIEWS) * 3
    assert report.files == len(tree(store))
    assert report.bytes == sum(map(len, tree(store).values()))


def test_swapped_shards_are_refused_by_name_and_repaired(store):
    expected = tree(store)
    swap(store / "whole-16/image/c.0.0.0", store / "whole-16/image/c.1.0.0")
    report = verify(store)
    assert {d.file for d in report.damages} == {"whole-16/image/c.0.0.0", "whole-16/image/c.1.0.0"}
    assert "is not shard 0 of whole@16/image" in report.damages[0].problem
    with pytest.raises(CacheError, match="is not shard 0 of whole@16/image") as caught:
        open_cache(store).gather([0], "whole@16")
    assert "shard 1 of this array" in str(caught.value)
    assert repaired(store, expected).encodings == 8


@pytest.mark.parametrize(
    "other", ["crop-8/image/c.0.0.0", "whole-16/joint/c.0.0.0", "../b.zarr/whole-16/image/c.0.0.0"]
)
def test_a_shard_of_another_view_array_or_store_is_refused(store, tmp_path, other):
    build(tmp_path / "b.zarr", samples=sample_set(10, split="test"))
    expected = tree(store)
    shutil.copy(store / other, store / "whole-16/image/c.0.0.0")
    with pytest.raises(CacheError, match="a shard of another array, view or store"):
        open_cache(store).gather([0], "whole@16")
    assert not verify(store).intact
    repaired(store, expected)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_shard_is_refused_by_name(store, keep):
    file = store / "crop-8/joint/c.2.0.0"
    expected = tree(store)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CacheError, match="damaged or truncated: shard 2 of crop@8/joint"):
        open_cache(store).gather([9], "crop@8")
    (damage,) = verify(store).damages
    assert damage.samples == ("haze/00008", "haze/00009")
    assert repaired(store, expected).encodings == 2


def test_a_longer_shard_is_refused(store):
    file = store / "crop-8/joint/c.2.0.0"
    file.write_bytes(bytes(64) + file.read_bytes())
    with pytest.raises(CacheError, match="damaged or truncated"):
        open_cache(store).gather([9], "crop@8")


def test_a_view_of_another_store_is_refused(store, tmp_path):
    build(tmp_path / "b.zarr", samples=sample_set(10, split="test"))
    shutil.rmtree(store / "whole-16")
    shutil.copytree(tmp_path / "b.zarr/whole-16", store / "whole-16")
    with pytest.raises(CacheError, match="belongs to another store"):
        open_cache(store)
    assert not verify(store).intact


@pytest.mark.parametrize(("schema", "age"), [(0, "older"), (2, "newer")])
def test_other_schema_versions_are_refused_by_name(store, schema, age):
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["mmfe-cache"]["schema"] = schema
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(CacheError, match=age) as caught:
        open_cache(store)
    assert f"schema {schema}" in str(caught.value)
    assert caught.value.exit_code == 3


def test_swapped_pixel_digests_are_found_and_repaired(store):
    expected = tree(store)
    swap(store / "samples/digests/c.0.0", store / "samples/digests/c.1.0")
    assert {d.kind for d in verify(store).damages} == {"pixels"}
    with pytest.raises(CacheError, match="computed from other pixels"):
        open_cache(store).gather([0], "whole@16")
    (store / "samples/digests/c.1.0").unlink()
    with pytest.raises(CacheError, match=r"digests/c\.1\.0 is missing"):
        open_cache(store).gather([5], "whole@16")
    assert repaired(store, expected).encodings == 0


def test_a_stale_shard_of_the_same_place_is_found_and_repaired(store, tmp_path):
    expected = tree(store)
    build(tmp_path / "b.zarr", samples=sample_set(10, first=50))
    for name in ("image", "joint", "answer"):
        file = next((tmp_path / "b.zarr/whole-16" / name).glob("c.1*"))
        shutil.copy(file, store / "whole-16" / name / file.name)
    assert {d.kind for d in verify(store).damages} == {"pixels"}
    for check in ("first", "always", "never"):
        reader = open_cache(store)
        reader.gather([0, 9], "whole@16", check=check)
        with pytest.raises(CacheError, match=r"c\.1\.0\.0 was computed from other pixels"):
            reader.gather([5], "whole@16", check=check)
    assert repaired(store, expected).encodings == 4


def test_missing_files_are_named_and_repaired(store):
    expected = tree(store)
    gone = ["zarr.json", "samples/ids/c.0", "samples/digests/c.1.0", "crop-8/zarr.json"]
    gone += ["whole-16/answer/zarr.json", "whole-16/answer/c.0.0"]
    for name in gone[1:]:
        (store / name).unlink()
    assert {d.file for d in verify(store).damages} >= set(gone[1:])
    repaired(store, expected)
    (store / "zarr.json").unlink()
    assert [d.file for d in verify(store).damages] == ["zarr.json"]
    repaired(store, expected)


def test_the_pixels_are_hashed_again(store):
    samples = sample_set(10)
    assert verify(store, samples=samples).pixels == 10
    changed = [*samples.samples]
    changed[3] = type(changed[3])("haze/00003", Pattern(999), None, "haze", "3")
    changed[4] = type(changed[4])("haze/00004", Pattern(4, broken=True), None, "haze", "4")
    other = type(samples)("patterns", "train", samples.root, "x", tuple(changed[:-1]))
    report = verify(store, samples=other)
    assert [(d.file, d.samples) for d in report.damages] == [
        ("haze/00009", ("haze/00009",)),
        ("pattern-999", ("haze/00003",)),
        ("pattern-4", ("haze/00004",)),
    ]
    assert {d.kind for d in report.damages} == {"source"}


def test_repair_refuses_another_guide_and_other_data(store):
    (store / "whole-16/answer/c.0.0").unlink()
    before = tree(store)
    with pytest.raises(CacheError, match=r"guide\.revision"):
        repair_cache(store, sample_set(10), TinyGuide(revision=2))
    with pytest.raises(CacheError, match="split"):
        repair_cache(store, sample_set(10, split="test"), TinyGuide())
    assert tree(store) == before
    (store / "zarr.json").unlink()
    with pytest.raises(CacheError, match="rest was not built from this"):
        repair_cache(store, sample_set(10), TinyGuide(revision=2))


def test_repair_refuses_pixels_that_changed(store):
    (store / "samples/digests/c.1.0").unlink()
    with pytest.raises(CacheError, match="images of shard 1 are not those"):
        repair_cache(store, sample_set(10, first=30), TinyGuide())


@pytest.mark.parametrize("workers", [0, -1])
def test_no_threads_are_refused_before_anything(store, workers):
    (store / "whole-16/answer/c.0.0").write_bytes(b"")
    before = tree(store)
    with pytest.raises(UsageError, match="at least one thread"):
        verify(store, workers=workers)
    with pytest.raises(UsageError, match="at least one thread"):
        repair_cache(store, sample_set(10), TinyGuide(), workers=workers)
    assert tree(store) == before


def test_repair_of_an_intact_store_calls_no_guide(store):
    guide = TinyGuide()
    assert repair_cache(store, sample_set(10), guide).damages == ()
    assert guide.calls == 0


def test_a_build_that_goes_on_meanwhile_is_no_damage(tmp_path):
    path = tmp_path / "a.zarr"
    samples = sample_set(10, broken=[9])
    with pytest.raises(DataError, match="truncated"):
        build(path, samples=samples)  # two of three shards

    class Growing(Storage):
        """Of a store that a build finishes once its tables have been read."""

        def read(self, name):
            if name == "crop-8/zarr.json" and not open_cache(path).views:
                build(path)
            return super().read(name)

    assert verify(Growing(path)).damages == ()
    (path / "samples/digests/c.2.0").unlink()
    assert [d.file for d in verify(path).damages] == ["samples/digests/c.2.0"]


def test_an_unfinished_view_is_no_damage(tmp_path):
    with pytest.raises(Exception, match="truncated"):
        build(tmp_path / "a.zarr", samples=sample_set(10, broken=[9]))
    report = verify(tmp_path / "a.zarr")
    assert report.intact
    assert report.unfinished == ("crop@8", "whole@16")


def test_skipped_samples_survive_a_repair(tmp_path):
    samples = sample_set(10, broken=[5])
    build(tmp_path / "a.zarr", samples=samples, on_error="skip")
    expected = tree(tmp_path / "a.zarr")
    assert verify(tmp_path / "a.zarr").intact
    for name in ("samples/digests/c.1.0", "whole-16/joint/c.1.0.0"):
        (tmp_path / "a.zarr" / name).unlink()
    repaired(tmp_path / "a.zarr", expected, samples=samples)


def test_a_repair_takes_in_skipped_samples_whose_images_were_mended(tmp_path):
    store = tmp_path / "a.zarr"
    build(store, samples=sample_set(10, broken=[2, 5, 9]), on_error="skip")
    before = tree(store)
    still = repair_cache(store, sample_set(10, broken=[2, 5, 9]), TinyGuide())
    assert (still.recovered, still.encodings, tree(store)) == ((), 0, before)
    half = repair_cache(store, sample_set(10, broken=[2]), TinyGuide())
    assert half.recovered == ("haze/00005", "haze/00009")
    # Shards 1 and 2 hold four and two samples; shard 0 is not touched.
    assert half.encodings == len(VIEWS) * 6
    after = tree(store)
    kept = {name for name in before if after[name] == before[name]}
    assert {"whole-16/image/c.0.0.0", "crop-8/answer/c.0.0", "samples/digests/c.0.0"} <= kept
    assert not {"whole-16/image/c.1.0.0", "samples/digests/c.2.0"} & kept
    assert open_cache(store).skipped == ("haze/00002",)
    build(tmp_path / "whole.zarr")
    repaired(store, tree(tmp_path / "whole.zarr"))
    assert open_cache(store).skipped == ()


@pytest.mark.parametrize("ended_by", ["repair", "build"])
@pytest.mark.parametrize("killed_in", ["recovering", "encoding", "replacing", "measuring"])
def test_what_a_killed_repair_had_not_measured_is_measured(
    tmp_path, monkeypatch, ended_by, killed_in
):
    store = tmp_path / "a.zarr"
    build(store, samples=sample_set(10, broken=[5]), on_error="skip")
    build(tmp_path / "whole.zarr")

    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    # Before anything is computed, when a shard's digests are to be written, when these are there
    # and its files are not, and when all shards are there.
    place = {
        "recovering": "mmfe_cache.precompute.repair.build_cache",
        "encoding": "mmfe_cache.store.writer.CacheWriter.write_digests",
        "replacing": "mmfe_cache.store.writer.CacheWriter.write_shard",
        "measuring": "mmfe_cache.precompute.build.measure",
    }[killed_in]
    with monkeypatch.context() as patch:
        patch.setattr(place, kill)
        with pytest.raises(Killed):
            repair_cache(store, sample_set(10), TinyGuide())
    if killed_in in ("recovering", "encoding"):  # nothing has been lost yet
        assert open_cache(store).gather([4, 6, 7], "whole@16").image.shape[0] == 3
    if ended_by == "build" and killed_in == "replacing":
        with pytest.raises(CacheError, match="computed from other pixels"):  # repair decides
            build(store, on_error="skip")
    elif ended_by == "build":
        build(store, on_error="skip")  # leaves out what was skipped
        assert all(view.statistics for view in open_cache(store).view_metadata.values())
    if killed_in == "measuring" and ended_by == "build":
        assert tree(store) == tree(tmp_path / "whole.zarr")
    repaired(store, tree(tmp_path / "whole.zarr"))


@pytest.mark.parametrize("mend", ["repair", "build"])
def test_a_view_of_an_earlier_version_is_measured(store, mend):
    from mmfe_cache.store.writer import CacheWriter

    expected, reader = tree(store), open_cache(store)
    about = replace(reader.view_metadata["whole@16"], statistics=None)
    CacheWriter(store, reader.metadata).update_view("whole-16", about)
    assert tree(store) != expected
    guide = TinyGuide()
    if mend == "repair":
        repair_cache(store, sample_set(10), guide)
    else:
        build(store, guide=guide)
    assert tree(store) == expected
    assert guide.calls == 0


def test_a_repair_that_takes_samples_in_still_refuses_other_pixels(tmp_path):
    # The build that follows compares a few pictures itself; number 7 is none of these.
    for number in (6, 7):
        store = tmp_path / f"{number}.zarr"
        build(store, samples=sample_set(10, broken=[5]), on_error="skip")
        before = tree(store)
        with pytest.raises(CacheError, match="have changed"):
            repair_cache(store, changed(number), TinyGuide())
        assert tree(store) == before


class Told(Progress):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def test_a_shard_takes_no_sample_in_while_another_of_its_pictures_cannot_be_read(tmp_path):
    store, told = tmp_path / "a.zarr", Told()
    build(store, samples=sample_set(10, broken=[1, 5]), on_error="skip")
    before = tree(store)
    report = repair_cache(store, sample_set(10, broken=[6]), TinyGuide(), progress=told)
    assert report.recovered == ("haze/00001",)
    (line,) = told.warnings
    assert line.startswith("haze/00005 is left out")
    assert "pattern-6 is truncated" in line
    after = tree(store)
    assert not {name for name in after if "c.1" in name and after[name] != before[name]}
    assert open_cache(store).gather([0, 1, 4, 6, 7], "whole@16").image.shape[0] == 5


@pytest.mark.parametrize("reason", ["unreadable", "refused"])
def test_a_sample_that_is_still_no_good_costs_the_others_nothing(tmp_path, reason):
    class Narrow(TinyGuide):
        """Refuses one picture at one view."""

        def prepare(self, image):
            wrong = View.parse("whole@16").render(Pattern(5).read())
            if reason == "refused" and np.array_equal(image, wrong):
                raise GuideError("the picture is too narrow", got="300:1")
            return super().prepare(image)

    store, told = tmp_path / "a.zarr", Told()
    samples = sample_set(10, broken=[5] if reason == "unreadable" else [])
    assert build(store, guide=Narrow(), samples=samples, on_error="skip").skipped == ("haze/00005",)
    before = tree(store)
    for _ in range(2):
        report = repair_cache(store, samples, Narrow(), progress=told)
        assert (report.recovered, report.encodings) == ((), 0)
        assert tree(store) == before
    assert told.warnings[-1].startswith("haze/00005 is left out: pattern-5")


def test_a_repair_that_cannot_end_leaves_what_is_whole_of_a_damaged_shard(store):
    file = store / "whole-16/image/c.1.0.0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1  # of sample 4
    file.write_bytes(data)
    before = tree(store)
    with pytest.raises(DataError, match="pattern-6 is truncated"):
        repair_cache(store, sample_set(10, broken=[6]), TinyGuide())
    assert tree(store) == before
    assert open_cache(store).gather([5, 6, 7], "whole@16").image.shape[0] == 3


def test_a_sample_is_taken_into_an_unfinished_view_too(tmp_path):
    store = tmp_path / "a.zarr"
    samples = sample_set(10, broken=[5])
    build_cache(samples, TinyGuide(), VIEWS, store, batch_size=2, shard_samples=4, on_error="skip")

    class Dies(TinyGuide):
        def encode_prepared(self, prepared):
            if self.calls == 7:  # two shards are there
                raise KeyboardInterrupt
            return super().encode_prepared(prepared)

    with pytest.raises(KeyboardInterrupt):
        build_cache(
            samples, Dies(), ["native"], store, batch_size=2, shard_samples=4, on_error="skip"
        )
    assert repair_cache(store, sample_set(10), TinyGuide()).recovered == ("haze/00005",)
    for path in (store, tmp_path / "b.zarr"):
        build_cache(
            sample_set(10), TinyGuide(), [*VIEWS, "native"], path, batch_size=2, shard_samples=4
        )
    assert tree(store) == tree(tmp_path / "b.zarr")


def test_a_folder_that_is_no_view_is_no_damage(store):
    (store / ".ipynb_checkpoints").mkdir()
    (store / "notes").mkdir()
    (store / "notes/a.txt").write_text("not ours")
    assert verify(store).intact
    assert open_cache(store).views == ("crop@8", "whole@16")


def test_a_view_that_lost_all_its_metadata_is_damage(store):
    for file in (store / "whole-16").rglob("zarr.json"):
        file.unlink()
    assert [d.file for d in verify(store).damages] == ["whole-16/zarr.json"]
    with pytest.raises(CacheError, match="says any more which view it holds"):
        repair_cache(store, sample_set(10), TinyGuide())


@pytest.mark.parametrize("mend", ["repair", "build"])
@pytest.mark.parametrize("gone", [["joint"], ["image", "joint", "answer"]])
def test_array_folders_that_have_gone_are_written_again(store, mend, gone):
    expected = tree(store)
    for name in gone:
        shutil.rmtree(store / "whole-16" / name)
    if mend == "build":
        assert build(store).encodings == 10
        assert tree(store) == expected
    else:
        repaired(store, expected)


def test_a_view_that_lost_its_own_metadata_is_not_called_none(store):
    expected = tree(store)
    (store / "whole-16/zarr.json").unlink()
    for attempt in (lambda: open_cache(store).gather([0], "whole@16"), lambda: build(store)):
        with pytest.raises(CacheError, match=r"whole-16/zarr\.json is missing") as caught:
            attempt()
        assert "mmfe cache repair" in str(caught.value)
    repaired(store, expected)


def test_a_view_in_another_views_folder_is_refused_by_name(store):
    # Stock readers go by the folder's name.
    (store / "whole-16").rename(store / "aside")
    (store / "crop-8").rename(store / "whole-16")
    (store / "aside").rename(store / "crop-8")
    assert [d.file for d in verify(store).damages] == ["crop-8/zarr.json", "whole-16/zarr.json"]
    for attempt in (
        lambda: open_cache(store),
        lambda: build(store),
        lambda: repair_cache(store, sample_set(10), TinyGuide()),
    ):
        with pytest.raises(CacheError, match="crop-8 is not the folder of the view") as caught:
            attempt()
        assert "whole@16 in whole-16" in str(caught.value)


def test_a_copy_of_a_view_is_not_taken_for_it(store):
    shutil.copytree(store / "whole-16", store / "whole-16 copy")
    with pytest.raises(CacheError, match="whole-16 copy is not the folder"):
        open_cache(store)
    assert [d.file for d in verify(store).damages] == ["whole-16 copy/zarr.json"]


def test_a_store_without_its_root_is_not_called_none(store):
    expected = tree(store)
    (store / "zarr.json").unlink()
    for attempt in (lambda: open_cache(store), lambda: build(store)):
        with pytest.raises(CacheError, match="lacks its root") as caught:
            attempt()
        assert f"mmfe cache repair {store}" in str(caught.value)
    repaired(store, expected)


def test_a_file_in_the_place_of_a_folder_and_a_folder_in_that_of_a_file(store):
    shard = store / "crop-8/image/c.1.0.0"
    shard.unlink()
    shard.mkdir()
    assert [d.file for d in verify(store).damages] == ["crop-8/image/c.1.0.0"]
    with pytest.raises(MmfeError, match="cannot write"):
        repair_cache(store, sample_set(10), TinyGuide())
    shutil.rmtree(store / "whole-16/joint")
    (store / "whole-16/joint").write_text("not a folder")
    assert "whole-16/joint/c.0.0.0" in {d.file for d in verify(store).damages}
    with pytest.raises(CacheError, match=r"joint/zarr\.json is missing"):
        open_cache(store).gather([0], "whole@16")
    with pytest.raises(MmfeError, match="cannot write"):
        repair_cache(store, sample_set(10), TinyGuide())


@pytest.mark.parametrize("content", [b"", b"null", b"\xff\x00", b"[" * 100_000])
def test_a_root_of_any_bytes_is_named_and_repaired(store, content):
    expected = tree(store)
    (store / "zarr.json").write_bytes(content)
    with pytest.raises(CacheError, match="not an mmfe cache") as caught:
        open_cache(store)
    assert "mmfe cache repair" in str(caught.value)
    assert [d.file for d in verify(store).damages] == ["zarr.json"]
    repaired(store, expected)


class Checkpoint(TinyGuide):
    """Of a checkpoint in a directory, as this version names it or as earlier ones did."""

    def __init__(self, **names):
        super().__init__()
        self._names = names

    def fingerprint(self):
        return {**super().fingerprint(), **self._names}


def test_a_cache_that_names_its_checkpoint_as_earlier_versions_did(tmp_path):
    """It is gone on with, and its root is made again, to the same bytes."""
    before = Checkpoint(checkpoint="by its bytes")
    now = Checkpoint(checkpoint="by SHA-256", checkpoint_bytes="by its bytes")
    build(tmp_path / "a.zarr", guide=before)
    expected = tree(tmp_path / "a.zarr")
    build(tmp_path / "b.zarr", views=VIEWS[:1], guide=before)
    build(tmp_path / "b.zarr", guide=now)
    assert tree(tmp_path / "b.zarr") == expected
    (tmp_path / "b.zarr/zarr.json").unlink()
    repair_cache(tmp_path / "b.zarr", sample_set(10), now)
    assert tree(tmp_path / "b.zarr") == expected
    for names in ({"checkpoint": "by SHA-256"}, {**now.fingerprint()}):  # of links; of this version
        shutil.rmtree(tmp_path / "b.zarr")
        build(tmp_path / "b.zarr", guide=Checkpoint(**names))
        expected = tree(tmp_path / "b.zarr")
        (tmp_path / "b.zarr/zarr.json").unlink()
        repair_cache(tmp_path / "b.zarr", sample_set(10), now)
        assert tree(tmp_path / "b.zarr") == expected
    with pytest.raises(CacheError, match=r"guide\.checkpoint: by SHA-256 in the cache"):
        build(tmp_path / "b.zarr", guide=Checkpoint(checkpoint="x", checkpoint_bytes="y"))
