import numpy as np
import pytest
from PIL import Image

from mmfe_cache.datasets import DATASETS, check_dataset, load_dataset, write_synth
from mmfe_cache.datasets.folder import load_folder
from mmfe_cache.datasets.leaks import count_distinct, find_leaks, fingerprints
from mmfe_cache.datasets.registry import DatasetInfo
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, read_rgb8, write_png
from mmfe_cache.packing import pack, pack_path
from mmfe_cache.seeds import generator


@pytest.fixture
def lol(tmp_path, make):
    for split in ("our485", "eval15"):
        for side in ("low", "high"):
            for name in ("1", "2"):
                make(tmp_path / split / side / f"{name}.png", name=split + name)
    return tmp_path


def part(report, split):
    return next(p for p in report.parts if p.split == split)


def test_a_small_set_reports_counts_and_sizes(lol):
    report = check_dataset("lol-v1", lol)
    train = part(report, "train")
    assert (train.found, train.published, train.samples) == (2, 485, 2)
    assert train.layout == "as published"
    assert train.sizes == {"56x40": 2}
    assert not report.ok
    assert report.leaks == ()
    assert report.compared == report.distinct == (2, 2)
    assert report.to_json()["parts"][0]["found"] == 2


def test_damage_is_named(lol, make):
    whole = (lol / "our485/low/1.png").read_bytes()
    (lol / "our485/low/1.png").write_bytes(whole[:-30])
    make(lol / "our485/low/2.png", height=30, width=50)
    make(lol / "our485/low/3.png")
    (lol / "our485/high/Thumbs.db").write_bytes(b"x")
    train = part(check_dataset("lol-v1", lol), "train")
    assert len(train.unreadable) == 1
    assert "our485/low/1.png" in train.unreadable[0]
    assert "is 50x30" in train.mismatched[0]
    assert train.missing == (f"clean partner of {lol / 'our485/low/3.png'}",)
    assert train.extra == (str(lol / "our485/high/Thumbs.db"),)
    assert not train.ok


def test_a_set_that_a_function_loads_is_held_to_its_published_counts(tmp_path, make, monkeypatch):
    info = DatasetInfo("mine", "mine", {"train": 1, "test": 2}, load=load_folder)
    monkeypatch.setitem(DATASETS, "mine", info)
    for split in ("train", "test"):
        for side in ("input", "target"):
            make(tmp_path / split / side / f"{split}.png")
    report = check_dataset("mine", tmp_path)
    assert [(p.found, p.published, p.ok) for p in report.parts] == [(1, 1, True), (1, 2, False)]
    assert not report.ok


def test_a_made_set_is_whole(photos, tmp_path):
    write_synth(photos, tmp_path / "out", compositions=["low", "haze"])
    report = check_dataset("cdd11", tmp_path / "out")
    assert report.ok
    assert [p.name for p in report.parts] == ["low", "haze"] * 2
    next((tmp_path / "out/train/clear").iterdir()).unlink()
    report = check_dataset("cdd11", tmp_path / "out")
    assert not report.ok
    assert len(report.parts[0].missing) == 1


def test_a_photograph_that_is_gone_from_every_class_of_a_made_set_is_named(photos, tmp_path):
    write_synth(photos, tmp_path / "out", compositions=["low", "haze"])
    gone = sorted((tmp_path / "out/train/clear").iterdir())[0].name
    for kind in ("clear", "low", "haze"):
        (tmp_path / "out/train" / kind / gone).unlink()
    report = check_dataset("cdd11", tmp_path / "out")
    assert not report.ok
    expected = (f"recorded pair {gone.removesuffix('.png')}",)
    assert [p.missing for p in report.parts] == [expected, expected, (), ()]


def test_a_photograph_in_the_place_of_one_that_is_gone_hides_nothing(photos, tmp_path, make):
    write_synth(photos, tmp_path / "out", compositions=["low"])
    gone = sorted((tmp_path / "out/train/clear").iterdir())[0].name
    for kind in ("clear", "low"):
        folder = tmp_path / "out/train" / kind
        (folder / gone).rename(folder / "another.png")
    train = part(check_dataset("cdd11", tmp_path / "out"), "train")
    assert train.missing == (f"recorded pair {gone.removesuffix('.png')}",)
    assert not train.ok
    names = [1, 22, 23, 55, 79, 111, 146, 179, 493, 547, 665, 669, 748, 778, "another"]
    for name in names:
        for side in ("low", "high"):
            make(tmp_path / "eval15" / side / f"{name}.png", height=8, width=8)
    test = part(check_dataset("lol-v1", tmp_path, splits=["test"]), "test")
    assert (test.found, test.missing) == (15, ("published pair 780",))


def test_partial_targets_are_no_further_photographs(photos, tmp_path):
    write_synth(photos, tmp_path / "out", compositions=["low_rain", "haze_snow"], partial_share=1)
    assert sum(check_dataset("cdd11", tmp_path / "out").compared) == 6


def test_absent_parts_do_not_stop_the_check(lol):
    report = check_dataset("aio5", lol)
    there = {(p.split, p.name) for p in report.parts if p.layout}
    assert there == {("train", "low light (LOL-v1)"), ("test", "low light (LOL-v1)")}
    absent = next(p for p in report.parts if p.name == "dehazing (SOTS outdoor)")
    assert "test/dehaze/input" in absent.notes[0]
    with pytest.raises(DataError, match="is not there"):
        check_dataset("aio5", lol / "none")


def test_leaks_are_found_in_spite_of_names_sizes_and_compression(lol, make):
    picture = read_rgb8(lol / "our485/high/2.png")
    write_png(lol / "eval15/high/1.png", picture)
    small = Image.fromarray(picture).resize((48, 34), Image.Resampling.LANCZOS)
    small.save(lol / "eval15/high/2.jpg", quality=70)
    (lol / "eval15/high/2.png").unlink()
    report = check_dataset("lol-v1", lol)
    assert {leak.test.rsplit("/", 1)[1] for leak in report.leaks} == {"1.png", "2.jpg"}
    assert all(leak.train.endswith("our485/high/2.png") for leak in report.leaks)
    assert not report.ok


def test_a_resized_copy_of_a_picture_with_much_sky_is_found():
    class Shown:
        def __init__(self, name, pixels):
            self.name, self.pixels = name, pixels

        def read(self):
            return self.pixels

    whole, copies = [], []
    for number in range(6):
        random = generator("sky", number)
        sky = np.full((321, 481, 3), 200.0) + np.linspace(0, 6, 481)[:, None]
        small = random.integers(0, 255, (5, 7, 3)).astype(np.uint8)
        sky[150:300, 100:300] = Image.fromarray(small).resize((200, 150))
        pixels = np.clip(sky + random.normal(0, 2, sky.shape), 0, 255).astype(np.uint8)
        whole.append(Shown(f"{number}", pixels))
        for size in ((96, 64), (300, 200), (240, 160)):
            small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
            copies.append(Shown(f"{number} at {size}", small))
    prints = fingerprints(whole), fingerprints(copies)
    leaks = find_leaks(*prints)
    assert [leak.test for leak in leaks] == [copy.name for copy in copies]
    assert all(leak.test.startswith(f"{leak.train} at") for leak in leaks)
    assert count_distinct(prints[1]) == count_distinct(prints[0]) == len(whole)


def test_different_photographs_are_no_leak(tmp_path, make):
    first = [FileSource(make(tmp_path / f"a{n}.png")) for n in range(40)]
    second = [FileSource(make(tmp_path / f"b{n}.png")) for n in range(40)]
    assert find_leaks(fingerprints(first), fingerprints(second)) == ()


def test_flat_pictures_are_no_twins(tmp_path):
    grey = []
    for value in (0, 90, 255):
        path = tmp_path / f"{value}.png"
        write_png(path, np.full((32, 32, 3), value, np.uint8))
        grey.append(FileSource(path))
    assert find_leaks(fingerprints(grey[:1]), fingerprints(grey[1:])) == ()


def test_fast_check_reads_headers_only(lol):
    content = bytearray((lol / "our485/low/1.png").read_bytes())
    content[-40] ^= 0xFF
    (lol / "our485/low/1.png").write_bytes(content)
    assert part(check_dataset("lol-v1", lol, decode=False), "train").unreadable == ()
    assert len(part(check_dataset("lol-v1", lol), "train").unreadable) == 1


def test_a_folder_is_checked_like_any_set(tmp_path, make):
    for split in ("train", "test"):
        for side in ("rainy", "gt"):
            for name in ("1", "2"):
                make(tmp_path / split / side / f"{name}.png", name=split + name)
    report = check_dataset("folder", tmp_path)
    assert report.ok
    assert {p.layout for p in report.parts} == {"rainy + gt"}
    make(tmp_path / "train/rainy/3.png")
    make(tmp_path / "train/rainy/A.png")
    make(tmp_path / "train/gt/a.png")
    make(tmp_path / "train/gt/2.png", height=20, width=30)
    (tmp_path / "train/gt/4.txt").write_text("4")
    (tmp_path / "train/gt/loop.png").symlink_to(tmp_path / "train/gt/loop.png")
    train = part(check_dataset("folder", tmp_path), "train")
    assert not train.ok
    assert len(train.missing) == 3
    assert "is 30x20" in train.mismatched[0]
    assert train.extra == (str(tmp_path / "train/gt/4.txt"),)
    assert any("differ in case only are not paired: A.png / a.png" in n for n in train.notes)
    assert any("loop.png" in note for note in train.notes)


def test_what_a_loaded_set_warns_of_is_in_its_report(tmp_path, make):
    for number in range(3):
        make(tmp_path / f"{number}.png")
    report = check_dataset("folder", tmp_path)
    assert {p.layout for p in report.parts} == {"images without answers"}
    assert any("the same files serve every split" in note for note in report.parts[0].notes)


def test_pairs_that_serve_both_splits_are_said_to(tmp_path, make):
    for side in ("input", "target"):
        make(tmp_path / side / "1.png")
    report = check_dataset("folder", tmp_path)
    for split in ("train", "test"):
        notes = part(report, split).notes
        assert notes == (f"no folder {split} under {tmp_path}: the same files serve every split",)


def test_a_folder_that_links_to_itself_is_named(lol):
    for name in ("low", "high"):
        for file in (lol / "our485" / name).iterdir():
            file.unlink()
        (lol / "our485" / name).rmdir()
        (lol / "our485" / name).symlink_to(lol / "our485" / name)
    train = part(check_dataset("lol-v1", lol), "train")
    assert train.layout is None
    assert "links that lead in a circle or nowhere" in train.notes[0]
    assert str(lol / "our485/low") in train.notes[0]


def test_published_names_that_are_missing_are_listed_where_they_are_known(tmp_path, make):
    for number in range(1, 101):
        for side, name in (("rain", f"rain-{number}"), ("norain", f"norain-{number}")):
            if number not in (7, 50) and (number, side) != (9, "rain"):
                make(tmp_path / "test" / side / f"{name}.png", height=8, width=8)
    test = part(check_dataset("rain100l", tmp_path, splits=["test"]), "test")
    assert test.found == 97
    assert test.missing == (
        f"degraded partner of {tmp_path / 'test/norain/norain-9.png'}",
        "published pair rain-007",
        "published pair rain-050",
    )
    # A copy under names of its own lacks none of them.
    for side in ("rain", "norain"):
        for file in list((tmp_path / "test" / side).iterdir()):
            file.rename(file.with_name(f"mine-{file.stem.split('-')[1]}.png"))
    test = part(check_dataset("rain100l", tmp_path, splits=["test"]), "test")
    assert len(test.missing) == 1
    assert test.incomplete


def test_where_only_a_pack_is_left_the_check_says_who_reads_it(lol, tmp_path):
    path = pack_path(lol, "lol-v1", "train", shared=True)
    pack(load_dataset("lol-v1", "train", lol), path)
    assert part(check_dataset("lol-v1", lol), "train").notes == ()
    for file in (lol / "our485").rglob("*.png"):
        file.unlink()
    train = part(check_dataset("lol-v1", lol), "train")
    assert train.layout is None
    assert train.notes[0] == f"{path} has 4 pictures; mmfe data verify reads packs"
