"""Every published layout, written out file by file as its owners have it."""

import pytest

from mmfe_cache.datasets import DATASETS, check_dataset, load_dataset
from mmfe_cache.degradations import COMPOSITIONS
from mmfe_cache.errors import DataError, UsageError

GOPRO = "GOPR0384_11_00"

LAYOUTS = {
    ("aio5", "train", "PromptIR / AdaIR"): [
        "Train/Denoise/00001.bmp",
        "Train/Denoise/a100075.jpg",
        "Train/Derain/rainy/rain-1.png",
        "Train/Derain/gt/norain-1.png",
        "Train/Dehaze/synthetic/part1/0025_0.8_0.1.jpg",
        "Train/Dehaze/synthetic/part3/0025_1_0.2.jpg",
        "Train/Dehaze/original/0025.jpg",
        f"Train/Deblur/blur/{GOPRO}_000001.png",
        f"Train/Deblur/sharp/{GOPRO}_000001.png",
        "Train/Enhance/low/2.png",
        "Train/Enhance/gt/2.png",
    ],
    ("aio5", "test", "PromptIR / AdaIR"): [
        "test/denoise/bsd68/test001.png",
        "test/derain/Rain100L/input/rain-001.png",
        "test/derain/Rain100L/target/rain-001.png",
        "test/dehaze/input/0001_0.8_0.2.jpg",
        "test/dehaze/target/0001.png",
        "test/deblur/gopro/input/a.png",
        "test/deblur/gopro/target/a.png",
        "test/enhance/lol/input/1.png",
        "test/enhance/lol/target/1.png",
    ],
    ("aio5", "train", "MoCE-IR"): [
        "denoising/WaterlooED/00001.bmp",
        "denoising/BSD400/100075.jpg",
        "deraining/RainTrainL/rainy/rain-1.png",
        "deraining/RainTrainL/gt/norain-1.png",
        "dehazing/RESIDE/part1/0025_0.8_0.1.jpg",
        "dehazing/RESIDE/part4/0025_1_0.2.jpg",
        "dehazing/RESIDE/clear/0025.jpg",
        "deblurring/GoPro/crop/train/input_crops/000001-1.png",
        "deblurring/GoPro/crop/train/target_crops/000001-1.png",
        "llie/LOLv1/Train/input/2.png",
        "llie/LOLv1/Train/target/2.png",
    ],
    ("aio5", "test", "MoCE-IR"): [
        "denoising/cBSD68/original_png/0000.png",
        "deraining/Rain100L/rainy/001.png",
        "deraining/Rain100L/gt/norain-001.png",
        "dehazing/SOTS/outdoor/hazy/0001_0.8_0.2.jpg",
        "dehazing/SOTS/outdoor/gt/0001.png",
        "deblurring/GoPro/test/input/a.png",
        "deblurring/GoPro/test/target/a.png",
        "llie/LOLv1/Test/input/1.png",
        "llie/LOLv1/Test/target/1.png",
    ],
    ("aio5", "train", "as published"): [
        "WED/00001.bmp",
        "BSDS500/images/train/100075.jpg",
        "BSDS500/images/test/100007.jpg",
        "RainTrainL/rain-1.png",
        "RainTrainL/norain-1.png",
        "OTS_BETA/part1/0025_0.8_0.1.jpg",
        "OTS_BETA/part2/0025_1_0.2.jpg",
        "OTS_BETA/clear/0025.jpg",
        f"GoPro/train/{GOPRO}/blur/000001.png",
        f"GoPro/train/{GOPRO}/sharp/000001.png",
        "LOL/our485/low/2.png",
        "LOL/our485/high/2.png",
    ],
    ("aio5", "test", "as published"): [
        "CBSD68/0000.png",
        "Rain100L/rain-001.png",
        "Rain100L/norain-001.png",
        "SOTS/outdoor/hazy/0001_0.8_0.2.jpg",
        "SOTS/outdoor/gt/0001.png",
        f"GoPro/test/{GOPRO}/blur/000001.png",
        f"GoPro/test/{GOPRO}/sharp/000001.png",
        "LOL/eval15/low/1.png",
        "LOL/eval15/high/1.png",
    ],
    ("gopro", "test", "DFPIR"): ["GOPRO_Large/test/blur/a.png", "GOPRO_Large/test/sharp/a.png"],
    ("lol-v1", "train", "DFPIR"): [
        "LOLdataset/train485/low/2.png",
        "LOLdataset/train485/high/2.png",
    ],
    ("rain100l", "test", "DFPIR"): ["test/derain/input/1.png", "test/derain/target/1.png"],
    ("denoise", "test", "DFPIR"): ["test/denoise/1.png"],
    ("rain13k", "train", "Restormer"): [
        "train/Rain13K/input/1.jpg",
        "train/Rain13K/target/1.jpg",
    ],
    ("rain13k", "test", "Restormer"): [
        f"test/{name}/{side}/1.png"
        for name in ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200")
        for side in ("input", "target")
    ],
}


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: "-".join(case))
def test_published_layouts_are_recognised_and_named(case, tmp_path, make):
    name, split, layout = case
    for path in LAYOUTS[case]:
        make(tmp_path / path)
    samples = load_dataset(name, split, tmp_path)
    assert samples.layout == layout
    expected = {
        ("aio5", "train"): {"blur", "haze", "low", "noise-15", "noise-25", "noise-50", "rain"},
        ("aio5", "test"): {"blur", "haze", "low", "noise-25", "rain"},
    }.get((name, split))
    if expected is not None:
        assert set(samples.labels) == expected
    for sample in samples:
        assert sample.id.startswith(f"{sample.label}/")
        assert GOPRO not in sample.id or sample.scene == GOPRO, "one scene, whatever the frame"
        assert sample.degraded.size() == sample.clean.size()
        assert sample.degraded.read().shape == (*sample.clean.size(), 3)
    # Each part holds far fewer files than published, and says so with both numbers.
    assert any("1 found, fewer than the" in line for line in samples.warnings)


@pytest.mark.parametrize(
    "folder", ["CDD-11_{}", "{}", "cdd11/{}", "CDD-11/CDD-11_{}"], ids=lambda f: f.format("x")
)
def test_cdd11_in_every_layout(folder, tmp_path, make):
    for split in ("train", "test"):
        for kind in ("clear", *COMPOSITIONS):
            for name in ("0001", "0002"):
                make(tmp_path / folder.format(split) / kind / f"{name}.png")
    for split, published in (("train", 1183), ("test", 200)):
        samples = load_dataset("cdd11", split, tmp_path)
        assert len(samples) == 22
        assert samples.labels[0] == "haze"
        assert samples.samples[0].severities is None
        assert f"2 found, fewer than the {published} published" in samples.warnings[0]
        assert len(samples.warnings) == 11


def test_hazy_pictures_share_their_clean_scene(tmp_path, make):
    for path in LAYOUTS["aio5", "train", "PromptIR / AdaIR"]:
        make(tmp_path / path)
    haze = [s for s in load_dataset("aio5", "train", tmp_path) if s.label == "haze"]
    assert [s.id for s in haze] == ["haze/0025_0.8_0.1", "haze/0025_1_0.2"]
    assert {s.scene for s in haze} == {"0025"}
    assert {s.clean.name for s in haze} == {str(tmp_path / "Train/Dehaze/original/0025.jpg")}


def test_gopro_frames_become_eight_windows(tmp_path, make):
    for side in ("blur", "sharp"):
        make(tmp_path / "GoPro" / "train" / GOPRO / side / "000001.png", height=720, width=1280)
    samples = load_dataset("gopro", "train", tmp_path)
    assert len(samples) == 8
    assert {s.degraded.size() for s in samples} == {(512, 512)}
    assert samples.ids[0] == f"blur/{GOPRO}-000001-0000-0000"
    assert samples.ids[-1] == f"blur/{GOPRO}-000001-0208-0768"


def test_a_missing_part_is_an_error_that_says_where_it_was_looked_for(tmp_path, make):
    for path in LAYOUTS["aio5", "train", "MoCE-IR"]:
        if not path.startswith("dehazing"):
            make(tmp_path / path)
    with pytest.raises(DataError, match="dehazing") as caught:
        load_dataset("aio5", "train", tmp_path)
    message = str(caught.value)
    assert "MoCE-IR: dehazing/RESIDE/part* + dehazing/RESIDE/clear" in message
    assert "mmfe data check --dataset aio5" in message


def test_folders_of_another_case_are_pointed_out(tmp_path, make):
    for kind in ("Clear", *COMPOSITIONS):
        make(tmp_path / "train" / kind / "1.png")
    with pytest.raises(DataError, match="case only") as caught:
        load_dataset("cdd11", "train", tmp_path)
    assert str(tmp_path / "train" / "Clear") in str(caught.value)


def test_unpaired_extra_and_case_changed_names_are_named_not_guessed(tmp_path, make):
    for name in ("a", "b c", "ü"):
        make(tmp_path / "our485/low" / f"{name}.png")
        make(tmp_path / "our485/high" / f"{name}.png")
    make(tmp_path / "our485/low/alone.png")
    make(tmp_path / "our485/high/other.png")
    make(tmp_path / "our485/low/Case.png")
    make(tmp_path / "our485/high/case.png")
    (tmp_path / "our485/low/notes.txt").write_text("x")
    (tmp_path / "our485/low/.hidden").write_text("x")
    make(tmp_path / "our485/low/more/a.png")
    (tmp_path / "our485/low/loop").symlink_to(tmp_path / "our485/low/loop")
    samples = load_dataset("lol-v1", "train", tmp_path)
    assert samples.ids == ("low/a", "low/b c", "low/ü")
    text = "\n".join(samples.warnings)
    assert "2 degraded without a clean partner, left out: Case.png, alone.png" in text
    assert "2 clean without a degraded partner, left out: case.png, other.png" in text
    assert "differ in case only are not paired: Case.png / case.png" in text
    assert "2 files that are not images, or folders, left out: more, notes.txt" in text
    assert "1 link that leads in a circle or nowhere, left out: loop" in text
    assert ".hidden" not in text


def test_two_files_of_one_name_are_an_error(tmp_path, make):
    for path in ("low/1.png", "low/1.jpg", "high/1.png"):
        make(tmp_path / "our485" / path)
    with pytest.raises(DataError, match="two files claim the name '1'"):
        load_dataset("lol-v1", "train", tmp_path)


def test_a_data_set_is_found_by_environment(tmp_path, make, monkeypatch):
    for side in ("low", "high"):
        make(tmp_path / "lol-v1" / "eval15" / side / "1.png")
    monkeypatch.setenv("MMFE_DATA", str(tmp_path))
    assert load_dataset("lol-v1", "test").root == tmp_path / "lol-v1"
    monkeypatch.delenv("MMFE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is not there"):
        load_dataset("lol-v1", "test")


def load_train(name, root):
    return load_dataset(name, "train", root)


@pytest.mark.parametrize("look", [check_dataset, load_train])
@pytest.mark.parametrize("name", list(DATASETS))
def test_a_root_that_is_missing_is_told_by_its_folders_and_where_to_get_it(name, look, tmp_path):
    with pytest.raises(DataError, match="is not there") as refused:
        look(name, tmp_path / "none")
    known = {"cdd11": "CDD-11_train/low_haze_snow", "folder": "lq + gt", "synth": "ROOT/train"}
    if name in known:
        assert known[name] in refused.value.expected
    assert DATASETS[name].description not in refused.value.expected
    pages = [origin.page for origin in DATASETS[name].origins]
    assert (pages == []) == (name in {"folder", "synth"})
    assert all(page in refused.value.remedy for page in pages)


def test_wrong_names_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="cdd12"):
        load_dataset("cdd12", "train", tmp_path)
    with pytest.raises(UsageError, match="validation"):
        load_dataset("cdd11", "validation", tmp_path)


def test_published_totals_are_the_papers():
    # Appendix A.3: 5,144 + 200 + 72,135 and 2,103 GoPro frames in windows, 485 LOL pairs.
    assert DATASETS["cdd11"].pairs == {"train": 13013, "test": 2200}
    assert DATASETS["aio3"].pairs["train"] == 3 * 5144 + 200 + 72135
    assert DATASETS["aio5"].pairs["test"] == 68 + 100 + 500 + 1111 + 15
    assert DATASETS["gopro"].pairs["train"] == 8 * 2103


def test_folders_that_a_pattern_misses_by_case_are_named(tmp_path, make):
    for path in ("part1/1_0.8_0.1.jpg", "Part2/1_1_0.1.jpg", "clear/1.jpg"):
        make(tmp_path / "OTS_BETA" / path)
    for path in ("A/blur/1.png", "A/sharp/1.png", "B/Blur/1.png", "B/Sharp/1.png"):
        make(tmp_path / "GoPro/train" / path)
    for name, folders in (("reside", "Part2"), ("gopro", "Blur, Sharp")):
        samples = load_dataset(name, "train", tmp_path)
        assert any(line.endswith(f"left out: {folders}") for line in samples.warnings)


def test_half_of_a_layout_is_named(tmp_path, make):
    make(tmp_path / "our485/low/1.png")
    with pytest.raises(DataError, match="low light") as caught:
        load_dataset("lol-v1", "train", tmp_path)
    assert "our485/low, without our485/high\n" in str(caught.value)
    (tmp_path / "our485/high").mkdir()
    with pytest.raises(DataError, match="low light") as caught:
        load_dataset("lol-v1", "train", tmp_path)
    assert "our485/low, without our485/high (without an image)" in str(caught.value)
