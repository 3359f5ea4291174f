import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.degradations import COMPOSITIONS, DegradationConfig, degrade, drawn_severities
from mmfe_cache.degradations.maps import read_covering
from mmfe_cache.degradations.weather import FULL_AMOUNT
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.seeds import generator


def grey(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


@pytest.fixture
def streaks(tmp_path) -> Path:
    """Two masks of one bright column each; their means are 0.03 and 0.015."""
    for name, value in (("near", 240), ("far", 120)):
        mask = np.zeros((32, 32))
        mask[:, 7] = value
        grey(tmp_path / "rain" / f"{name}.png", mask)
    return tmp_path / "rain"


def black(height=32, width=32):
    return np.zeros((height, width, 3), np.uint8)


def test_a_rain_mask_is_added_as_it_is_and_named(streaks):
    config = DegradationConfig.from_folders(rain_masks=streaks)
    done = degrade(black(), "rain", seed_parts=("a",), config=config)
    name = done.files["rain"].name
    peak = {"near.png": 240, "far.png": 120}[name]
    columns = done.image.max(axis=(0, 2))
    assert sorted(columns) == [0] * 31 + [peak]
    amount = peak / 255 / 32
    assert done.severities["rain"] == pytest.approx(amount / FULL_AMOUNT)
    assert done.parameters["rain"]["strength"] == pytest.approx(1)


def test_a_wanted_severity_scales_the_mask(streaks):
    config = DegradationConfig.from_folders(rain_masks=streaks)
    full = degrade(black(), "rain", seed_parts=("a",), config=config)
    half = {"rain": full.severities["rain"] / 2}
    done = degrade(black(), "rain", seed_parts=("a",), config=config, severities=half)
    assert done.image.max() == round(full.image.max() / 2)
    none = degrade(black(), "rain", seed_parts=("a",), config=config, severities={"rain": 0})
    assert not none.image.any()


def test_a_snow_mask_covers(tmp_path):
    mask = np.zeros((16, 16))
    mask[4:8, 4:8] = 255
    grey(tmp_path / "snow" / "m.png", mask)
    config = DegradationConfig.from_folders(snow_masks=tmp_path / "snow")
    clean = np.full((16, 16, 3), 100, np.uint8)
    image = degrade(clean, "snow", seed_parts=("s",), config=config).image
    assert (image == 255).all(axis=2).sum() == 16
    assert (image == 100).all(axis=2).sum() == 240


def test_masks_are_drawn_by_seed_all_of_them_and_as_often_as_asked(streaks):
    config = DegradationConfig.from_folders(rain_masks=streaks, mask_share=0.5)
    used = [
        degrade(black(8, 8), "rain", seed_parts=(k,), config=config).files.get("rain")
        for k in range(200)
    ]
    assert {path.name for path in used if path} == {"near.png", "far.png"}
    assert 70 < sum(path is not None for path in used) < 130
    again = degrade(black(8, 8), "rain", seed_parts=(3,), config=config).files.get("rain")
    assert again == used[3]


def test_the_listed_severities_are_those_that_degrade_uses(streaks):
    config = DegradationConfig.from_folders(rain_masks=streaks, mask_share=0.5, varied_share=0.5)
    clean = np.full((24, 24, 3), 90, np.uint8)
    for k in range(20):
        for composition in COMPOSITIONS:
            done = degrade(clean, composition, seed_parts=(k,), config=config)
            listed = drawn_severities(composition, seed_parts=(k,), config=config)
            assert listed == done.severities


def test_a_mask_is_scaled_to_cover_keeping_its_shape(tmp_path):
    mask = np.zeros((10, 20))
    mask[:, 10:] = 200
    path = grey(tmp_path / "wide.png", mask)
    covering = read_covering(path, (40, 40), generator("any"))
    assert covering.shape == (40, 40)
    assert covering.max() <= 200 / 255 + 1e-6
    # Rows of the mask are constant, and so are columns of a cut that was only scaled.
    assert np.abs(covering - covering[:1]).max() < 1e-6


def test_depth_is_bright_near_as_published(tmp_path):
    depth = np.zeros((64, 64))
    depth[:, 32:] = 255
    grey(tmp_path / "depth" / "photo.png", depth)
    config = DegradationConfig.from_folders(depth=tmp_path / "depth")
    done = degrade(black(64, 64), "haze", seed_parts=("d",), config=config, photograph="photo")
    airlight, beta = (done.parameters["haze"][name] for name in ("airlight", "beta"))
    far, near = done.image[32, 2, 0] / 255, done.image[32, 61, 0] / 255
    assert near == 0
    assert far == pytest.approx(airlight * (1 - np.exp(-beta * 0.7)), abs=0.004)


def test_a_light_map_takes_the_place_of_the_guessed_one(tmp_path):
    grey(tmp_path / "light" / "photo.png", np.full((64, 64), 128))
    config = DegradationConfig.from_folders(light_maps=tmp_path / "light")
    clean = np.full((64, 64, 3), 0.5, np.float32)
    done = degrade(clean, "low", seed_parts=("l",), config=config, photograph="photo")
    gamma = done.parameters["low"]["gamma"]
    assert done.image.mean() == pytest.approx(0.5 * (128 / 255) ** (gamma - 1), abs=0.002)


def test_a_real_dark_photograph_is_what_low_light_begins_with(tmp_path):
    dark = np.zeros((20, 30, 3), np.uint8)
    dark[..., 1] = 9
    (tmp_path / "dark").mkdir()
    Image.fromarray(dark).save(tmp_path / "dark" / "photo.png")
    config = DegradationConfig.from_folders(dark=tmp_path / "dark")
    clean = np.full((20, 30, 3), 90, np.uint8)
    done = degrade(clean, "low", seed_parts=("l",), config=config, photograph="photo")
    assert np.array_equal(done.image, dark)
    assert done.severities == {"low": 1.0}
    other = degrade(clean, "low", seed_parts=("l",), config=config, photograph="other")
    assert other.files == {}
    small = degrade(clean[:10, :15], "low", seed_parts=("l",), config=config, photograph="photo")
    assert small.image.shape == (10, 15, 3)
    with pytest.raises(DataError, match="another shape"):
        degrade(clean[:10], "low", seed_parts=("l",), config=config, photograph="photo")


@pytest.mark.parametrize("kind", ["rain", "snow", "low", "haze"])
def test_varied_pictures_differ_more_than_published_ones(kind):
    clean = np.tile(np.linspace(20, 235, 96)[None, :, None], (96, 1, 3)).astype(np.uint8)
    varied = DegradationConfig.from_folders(varied_share=1.0)
    damage = {
        name: [
            np.abs(degrade(clean, kind, seed_parts=(k,), config=config).image - 1.0 * clean).mean()
            for k in range(24)
        ]
        for name, config in (("published", DegradationConfig()), ("varied", varied))
    }
    spread = {name: np.std(np.log(np.add(values, 0.1))) for name, values in damage.items()}
    assert spread["varied"] > 1.2 * spread["published"]


def test_what_is_missing_or_unreadable_is_named(tmp_path, streaks):
    with pytest.raises(DataError, match="nowhere does not exist"):
        DegradationConfig.from_folders(rain_masks=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no snow masks"):
        DegradationConfig.from_folders(snow_masks=tmp_path / "empty")
    with pytest.raises(UsageError, match="mask_share"):
        DegradationConfig.from_folders(mask_share=1.5)
    grey(tmp_path / "depth" / "one.png", np.ones((4, 4)))
    config = DegradationConfig.from_folders(depth=tmp_path / "depth")
    config.check(["one"], ["haze"])
    config.check(["two"], ["low"])
    with pytest.raises(DataError, match="1 of 2 photographs have no depth map") as problem:
        config.check(["one", "two"], ["haze"])
    assert problem.value.got == "two"
    (tmp_path / "depth" / "one.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="two depth maps claim"):
        DegradationConfig.from_folders(depth=tmp_path / "depth")
    (streaks / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        DegradationConfig.from_folders(rain_masks=streaks)
    grey(streaks / "broken.png", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"broken\.png is black"):
        DegradationConfig.from_folders(rain_masks=streaks)


def test_maps_are_found_in_both_forms_of_unicode(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    grey(tmp_path / "maps" / f"{nfd}.png", np.full((24, 24), 9))
    clean = np.full((24, 24, 3), 90, np.uint8)
    for option, kind in (("depth", "haze"), ("light_maps", "low"), ("dark", "low")):
        config = DegradationConfig.from_folders(**{option: tmp_path / "maps"})
        for name in (nfc, nfd):
            config.check([name], [kind])
            done = degrade(clean, kind, seed_parts=("n",), config=config, photograph=name)
            assert done.files[kind].stem == nfd
    grey(tmp_path / "maps" / f"{nfc}.png", np.full((24, 24), 9))
    if len(list((tmp_path / "maps").iterdir())) == 2:  # some file systems take them for one
        with pytest.raises(DataError, match="two depth maps claim"):
            DegradationConfig.from_folders(depth=tmp_path / "maps")


def test_low_light_photographs_of_no_scene_are_named(tmp_path):
    grey(tmp_path / "dark" / "night one.png", np.zeros((8, 8)))
    config = DegradationConfig.from_folders(dark=tmp_path / "dark")
    with pytest.raises(DataError, match="no low-light photograph") as problem:
        config.check(["one", "two"], ["haze", "low"])
    assert problem.value.got == "night one; the photographs are one, two"
    # Scenes without one get the model's low light, and so may a whole split.
    config.check(["one", "night one"], ["low"])
    config.check(["one"], ["low"], others=["night one"])
    config.check(["one"], ["haze"])


def test_a_mask_that_was_written_anew_is_read_anew(streaks):
    config = DegradationConfig.from_folders(rain_masks=streaks)
    for value in (240, 60):
        for path in config.rain_masks:
            mask = np.zeros((32, 32))
            mask[:, 7] = value
            grey(path, mask)
            os.utime(path, ns=(value, value))  # as a later change on a fast machine
        done = degrade(black(), "rain", seed_parts=("a",), config=config)
        assert done.image.max() == value
        assert done.severities["rain"] == pytest.approx(value / 255 / 32 / FULL_AMOUNT)


def test_masks_are_drawn_alike_in_both_forms_of_unicode(tmp_path):
    """`é` sorts after `z` in one form, and before it in the other."""
    used = {}
    for form in ("NFC", "NFD"):
        for number, name in enumerate(("z", "é")):
            mask = np.zeros((16, 16))
            mask[:, 3 + number] = 200
            grey(tmp_path / form / f"{unicodedata.normalize(form, name)}.png", mask)
        config = DegradationConfig.from_folders(rain_masks=tmp_path / form)
        used[form] = [
            degrade(black(16, 16), "rain", seed_parts=(k,), config=config).image for k in range(8)
        ]
        used[form, "spec"] = config.spec()
    assert np.array_equal(used["NFC"], used["NFD"])
    assert used["NFC", "spec"] == used["NFD", "spec"]
