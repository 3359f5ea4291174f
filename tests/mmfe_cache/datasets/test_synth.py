import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.cache_support import tree
from mmfe_cache.datasets import load_dataset, splits_of, write_synth
from mmfe_cache.datasets.photographs import find_photographs
from mmfe_cache.degradations import COMPOSITIONS, split_class
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cache.progress import Progress


def test_the_layout_is_cdd11s_and_loads_as_cdd11(photos, tmp_path):
    out = tmp_path / "out"
    report = write_synth(photos, out)
    assert report.scenes["train"] + report.scenes["test"] == 6
    assert report.written == 6 * 12
    names = {path.name for path in (out / "train").iterdir()}
    assert names == {"clear", "severities.json", *COMPOSITIONS}
    for split in ("train", "test"):
        samples = load_dataset("cdd11", split, out)
        assert len(samples) == report.pairs[split] == 11 * report.scenes[split]
        assert list(samples.ids) == sorted(samples.ids)
        assert set(samples.labels) == set(COMPOSITIONS)
        assert samples.warnings == ()
        for sample in samples:
            name = sample.id.removeprefix(f"{sample.label}/")
            assert sample.scene == {"bike_left": "bike", "bike_right": "bike"}.get(name, name)
            assert set(sample.severities) == set(sample.label.split("_"))
            assert sample.degraded.size() == sample.clean.size()
            assert np.array_equal(sample.clean.read(), read_rgb8(photos / f"{name}.png"))


def test_one_scene_lies_in_one_split(photos, tmp_path):
    for seed in range(8):
        out = tmp_path / f"out{seed}"
        write_synth(photos, out, seed=seed, compositions=["haze"], test_share=0.4)
        train = {path.stem for path in (out / "train" / "clear").iterdir()}
        test = {path.stem for path in (out / "test" / "clear").iterdir()}
        assert not train & test
        assert ("bike_left" in train) == ("bike_right" in train)
        assert train
        assert test


def test_bytes_depend_on_seed_and_names_only(photos, tmp_path):
    first, again, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    classes = ["low_haze_rain", "snow"]
    write_synth(photos, first, compositions=classes, workers=1)
    write_synth(sorted(photos.iterdir(), reverse=True), again, compositions=classes, workers=4)
    write_synth(photos, other, compositions=classes, seed=1)
    assert tree(first) == tree(again)
    assert tree(first) != tree(other)


def test_on_the_fly_pictures_equal_the_written_ones(photos, tmp_path):
    write_synth(photos, tmp_path / "out")
    for split in ("train", "test"):
        written = load_dataset("cdd11", split, tmp_path / "out")
        computed = load_dataset("synth", split, photos)
        assert written.ids == computed.ids
        for on_disk, on_the_fly in zip(written, computed, strict=True):
            assert on_disk.severities == on_the_fly.severities
            assert np.array_equal(on_disk.degraded.read(), on_the_fly.degraded.read())


def test_partial_targets_lack_what_is_to_be_taken_away_alone(photos, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "partial"
    classes = ["low_rain", "haze"]
    write_synth(photos, plain, compositions=classes)
    report = write_synth(photos, out, compositions=classes, partial_share=1)
    again = write_synth(photos, out, compositions=classes, partial_share=1)
    assert report.written == again.reused == 6 * 4
    assert again.written == report.reused == 0
    wanted_at_all = set()
    for split in ("train", "test"):
        before, samples = (load_dataset("cdd11", split, root) for root in (plain, out))
        assert samples.warnings == ()
        assert len(samples) == report.pairs[split] == 3 * report.scenes[split]
        known = {sample.id: sample for sample in before}
        others = [sample for sample in samples if sample.id not in known]
        assert len(others) == report.scenes[split]
        for sample in others:
            composition, wanted = split_class(sample.label)
            assert composition == "low_rain"
            whole = known[f"low_rain/{sample.id.split('/')[1]}"]
            assert np.array_equal(sample.degraded.read(), whole.degraded.read())
            assert sample.severities == {kind: whole.severities[kind] for kind in wanted}
            target, clean = sample.clean.read(), whole.clean.read()
            darker = target.mean() < 0.9 * clean.mean()
            assert darker == (wanted == ("rain",))  # the dark stays where rain alone goes
            assert not np.array_equal(target, clean)
            wanted_at_all.add(wanted)
    assert wanted_at_all == {("low",), ("rain",)}
    # A set without them is what it always was.
    for path in ("train/severities.json", "synth.json"):
        assert "partial" not in (plain / path).read_text()
    some = write_synth(photos, tmp_path / "some", compositions=classes, partial_share=0.5)
    assert 6 * 2 < sum(some.pairs.values()) < 6 * 3
    with pytest.raises(UsageError, match="partial_share"):
        write_synth(photos, tmp_path / "x", partial_share=1.5)


class Interrupting(Progress):
    """Stops the run after some pictures, as Ctrl-C does."""

    def __init__(self, after):
        self.left = after

    def task(self, title, total, unit="samples"):
        outer = self
        inner = super().task(title, total, unit)

        class Wrapped:
            def __enter__(self):
                self.task = inner.__enter__()
                return self

            def __exit__(self, *error):
                return inner.__exit__(*error)

            def advance(self, amount=1):
                if unit == "pictures":
                    outer.left -= 1
                    if outer.left < 0:
                        raise KeyboardInterrupt

        return Wrapped()


def test_a_stopped_run_is_refused_and_goes_on(photos, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    write_synth(photos, whole, compositions=["low", "snow"])
    with pytest.raises(KeyboardInterrupt):
        write_synth(photos, out, compositions=["low", "snow"], progress=Interrupting(2))
    with pytest.raises(DataError, match="not finished"):
        load_dataset("cdd11", "train", out)
    report = write_synth(photos, out, compositions=["low", "snow"])
    assert report.reused > 0
    assert report.written + report.reused == 18
    assert tree(out) == tree(whole)


def test_a_finished_set_is_left_alone_and_repaired(photos, tmp_path):
    out = tmp_path / "out"
    write_synth(photos, out, compositions=["low"])
    before = tree(out)
    assert write_synth(photos, out, compositions=["low"]).written == 0
    next((out / "train" / "low").iterdir()).unlink()
    assert write_synth(photos, out, compositions=["low"]).written == 1
    assert tree(out) == before


def test_other_settings_never_mix(photos, tmp_path):
    out = tmp_path / "out"
    write_synth(photos, out, compositions=["low"])
    before = tree(out)
    for settings in ({"seed": 1}, {"max_side": 32}, {"compositions": ["haze"]}):
        with pytest.raises(DataError, match="other photographs or settings"):
            write_synth(photos, out, **{"compositions": ["low"], **settings})
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        write_synth(photos, full)
    assert tree(out) == before
    assert tree(full) == {"precious.txt": b"mine"}


def test_max_side_shrinks_and_never_enlarges(photos, tmp_path, make):
    make(photos / "big.png", height=100, width=200)
    write_synth(photos, tmp_path / "out", compositions=["low"], max_side=64)
    sizes = {
        path.stem: read_rgb8(path).shape[:2] for path in (tmp_path / "out").rglob("clear/*.png")
    }
    assert sizes["big"] == (32, 64)
    assert sizes["one"] == (40, 56)


def test_separate_test_photographs(photos, tmp_path, make):
    held = tmp_path / "held"
    make(held / "five.jpg")
    report = write_synth(photos, tmp_path / "out", test_photos=held, compositions=["rain"])
    assert dict(report.scenes) == {"train": 6, "test": 1}
    with pytest.raises(DataError, match="in train and in test"):
        write_synth(photos, tmp_path / "x", test_photos=photos)
    shutil.copy(photos / "one.png", held / "disguised.png")
    with pytest.raises(DataError, match=r"disguised\.png shows what .*one\.png"):
        write_synth(photos, tmp_path / "x", test_photos=held)
    assert not (tmp_path / "x").exists()


def test_one_photograph_makes_a_test_only_set(tmp_path, make):
    make(tmp_path / "p" / "one.png")
    write_synth(tmp_path / "p", tmp_path / "out", test_share=1, compositions=["snow"])
    assert splits_of("cdd11", tmp_path / "out") == ("test",)
    assert load_dataset("cdd11", "test", tmp_path / "out").ids == ("snow/one",)
    with pytest.raises(DataError, match="no train split"):
        load_dataset("cdd11", "train", tmp_path / "out")
    with pytest.raises(DataError, match="one scene cannot be split"):
        write_synth(tmp_path / "p", tmp_path / "two")


def test_bad_photographs_are_all_named_and_nothing_is_written(photos, tmp_path, make):
    whole = (photos / "one.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    make(photos / "dot.png", height=1, width=1)
    (photos / "notes.txt").write_text("no image, ignored")
    with pytest.raises(DataError, match="2 photographs cannot be used") as caught:
        write_synth(photos, tmp_path / "out")
    assert "cut.png" in str(caught.value)
    assert "dot.png" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unusual_but_sound_photographs_are_taken(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey[:, ::-1]).convert("P").save(folder / "palette.png")
    Image.fromarray(grey.T.astype(np.uint16) * 256).save(folder / "sixteen bits.png")
    Image.fromarray(np.dstack([grey[::-1]] * 4)).save(folder / "ülpha.png")
    report = write_synth(folder, tmp_path / "out", compositions=["low_haze_rain"], test_share=0.5)
    assert sum(report.pairs.values()) == 4
    recorded = json.loads((tmp_path / "out" / "test" / "severities.json").read_text())
    assert len(recorded["samples"]) == report.pairs["test"]


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_synth(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photograph"):
        write_synth(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_senseless_options_are_usage_errors(photos, tmp_path):
    for options in (
        {"compositions": ["fog"]},
        {"compositions": []},
        {"compositions": ["low", "low"]},
        {"max_side": 3},
        {"test_share": 1.5},
        {"test_photos": photos, "test_share": 0.9},
    ):
        with pytest.raises(UsageError):
            write_synth(photos, tmp_path / "out", **options)


def test_equal_stems_in_subfolders_are_kept_apart(tmp_path, make):
    make(tmp_path / "p" / "a" / "1.png", name="first")
    make(tmp_path / "p" / "b" / "1.png", name="second")
    report = write_synth(tmp_path / "p", tmp_path / "out", compositions=["low"], test_share=0.5)
    assert dict(report.scenes) == {"train": 1, "test": 1}
    assert {p.stem for p in (tmp_path / "out").rglob("clear/*.png")} == {"a-1", "b-1"}


def test_stems_that_differ_in_case_only_make_files_that_do_not(tmp_path, make):
    for number, path in enumerate(["a/X.png", "b/x.png", "y.jpg", "Y.png", "z.png"]):
        make(tmp_path / "p" / path, name=str(number))
    found = find_photographs(tmp_path / "p")
    assert [one.name for one in found] == ["Y", "a-X", "b-x", "y-jpg", "z"]
    for name in ("Z.png", "Z.PNG"):
        make(tmp_path / "p" / name)
    with pytest.raises(DataError, match="claim the name 'z-png'"):
        find_photographs(tmp_path / "p")


def test_a_full_disk_leaves_no_half_picture(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    calls = []

    def full(path, image):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        write_png(path, image)

    monkeypatch.setattr("mmfe_cache.datasets.synth.write_png", full)
    with pytest.raises(OSError, match="No space left"):
        write_synth(photos, out, compositions=["low"])
    monkeypatch.undo()
    assert all(read_rgb8(path).size for path in out.rglob("*.png"))
    with pytest.raises(DataError, match="not finished"):
        load_dataset("cdd11", "test", out)
    assert sum(write_synth(photos, out, compositions=["low"]).pairs.values()) == 6


class Warned(Progress):
    """Keeps what it is warned of."""

    def __init__(self):
        self.lines = []

    def warn(self, text):
        self.lines.append(text)


def test_what_is_no_photograph_is_named(photos, tmp_path):
    (photos / "notes.txt").write_text("x")
    (photos / "dead.png").symlink_to("nowhere")
    (photos / "back").symlink_to(".")
    told = Warned()
    write_synth(photos, tmp_path / "out", compositions=["low"], progress=told)
    loaded = load_dataset("synth", "train", photos).warnings
    for text in ("\n".join(told.lines), "\n".join(loaded)):
        assert "left out: notes.txt" in text
        assert "2 links that lead in a circle or nowhere, left out: back, dead.png" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("severities.json", "[]"),
        ("severities.json", '{"samples": {"low/one": {}}}'),
        ("synth.json", "{}"),
        ("synth.json", '{"compositions": ["low"], "scenes": {}}'),
    ],
)
def test_records_of_another_schema_are_named(photos, tmp_path, name, text):
    out = tmp_path / "out"
    write_synth(photos, out, compositions=["low"])
    for path in out.rglob(name):
        path.write_text(text)
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        load_dataset("cdd11", "train", out)
