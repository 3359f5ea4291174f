import subprocess
import sys

import numpy as np
import pytest

from mmfe_cache.degradations import (
    COMPOSITIONS,
    KINDS,
    DegradationConfig,
    degrade,
    kinds_of,
)
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import pixel_digest
from mmfe_cache.seeds import generator


def photograph(height=96, width=120):
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (rows * 2 % 256, columns * 2 % 256, (rows + columns) % 256)
    return np.stack(channels, 2).astype(np.uint8)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_equal_arguments_give_equal_bytes_and_other_seeds_others(composition):
    clean = photograph()
    first = degrade(clean, composition, seed_parts=("a", 1))
    again = degrade(clean, composition, seed_parts=("a", 1))
    other = degrade(clean, composition, seed_parts=("a", 2))
    assert np.array_equal(first.image, again.image)
    assert first.severities == again.severities
    assert not np.array_equal(first.image, other.image)
    assert first.image.dtype == np.uint8
    assert first.image.shape == clean.shape
    assert np.array_equal(clean, photograph()), "the clean image was written to"


def test_another_process_gives_the_same_bytes():
    program = (
        "import numpy as np\n"
        "from mmfe_cache.degradations import degrade\n"
        "from mmfe_cache.images import pixel_digest\n"
        "from mmfe_cache.seeds import generator\n"
        "clean = generator('photo').integers(0, 256, (50, 70, 3)).astype(np.uint8)\n"
        "for c in ('low_haze_snow', 'low_haze_rain'):\n"
        "    print(pixel_digest(degrade(clean, c, seed_parts=('s', 3)).image))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    clean = generator("photo").integers(0, 256, (50, 70, 3)).astype(np.uint8)
    # The other order here: no hidden state may travel from one call to the next.
    ours = [
        pixel_digest(degrade(clean, c, seed_parts=("s", 3)).image)
        for c in ("low_haze_rain", "low_haze_snow")
    ]
    assert done.stdout.split() == ours[::-1], done.stderr


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_severity_zero_changes_nothing(composition):
    clean = photograph()
    severities = dict.fromkeys(composition.split("_"), 0.0)
    gone = degrade(clean, composition, seed_parts=("a",), severities=severities)
    assert np.array_equal(gone.image, clean)
    assert gone.severities == severities


@pytest.mark.parametrize("kind", KINDS)
def test_damage_grows_with_severity(kind):
    clean = photograph(160, 160)
    damage = []
    for severity in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        image = degrade(clean, kind, seed_parts=("a",), severities={kind: severity}).image
        damage.append(np.abs(image.astype(float) - clean).mean())
    assert damage == sorted(damage)
    assert damage[0] > 0


def test_drawn_parameters_lie_in_the_published_ranges():
    clean = photograph(32, 32)
    gammas, noises, betas, airlights = [], [], [], []
    for seed in range(60):
        done = degrade(clean, "low_haze", seed_parts=(seed,))
        gammas.append(done.parameters["low"]["gamma"])
        noises.append(done.parameters["low"]["noise"])
        betas.append(done.parameters["haze"]["beta"])
        airlights.append(done.parameters["haze"]["airlight"])
        assert done.severities["haze"] == pytest.approx(betas[-1] / 2)
        assert done.severities["low"] == pytest.approx((gammas[-1] - 1) / 2)
    for values, low, high in (
        (gammas, 2, 3),
        (noises, 0.03, 0.08),
        (betas, 1, 2),
        (airlights, 0.6, 0.9),
    ):
        assert low <= min(values) < low + 0.15 * (high - low)
        assert high - 0.15 * (high - low) < max(values) <= high


def test_kinds_are_applied_in_the_published_order():
    assert kinds_of("haze_snow") == ("snow", "haze")
    assert kinds_of("low_haze_rain") == ("low", "rain", "haze")
    assert kinds_of("clear") == ()


def test_a_kind_that_is_not_kept_is_undone_and_the_others_stay_as_drawn():
    clean, parts = photograph(), ("partial", 3)
    whole = degrade(clean, "low_rain", seed_parts=parts)
    kept = degrade(clean, "low_rain", seed_parts=parts, keep=["low"])
    assert kept.severities == {"low": whole.severities["low"]}
    assert kept.parameters == {"low": whole.parameters["low"]}
    # Rain is added to the dark picture, and falls on a part of it only.
    same = (kept.image == whole.image).all(axis=2)
    assert 0.5 < same.mean() < 1
    assert (whole.image.astype(int) - kept.image).min() >= 0
    assert np.array_equal(degrade(clean, "low_rain", seed_parts=parts, keep=[]).image, clean)
    everything = degrade(clean, "low_rain", seed_parts=parts, keep=["rain", "low"])
    assert np.array_equal(everything.image, whole.image)
    with pytest.raises(UsageError, match="kept"):
        degrade(clean, "low_rain", seed_parts=parts, keep=["haze"])


def test_low_noise_has_the_recorded_deviation():
    grey = np.full((128, 128, 3), 128, np.uint8)
    done = degrade(grey, "low", seed_parts=("n",))
    parameters = done.parameters["low"]
    level = (128 / 255) ** parameters["gamma"]
    floats = degrade(grey.astype(np.float32) / 255, "low", seed_parts=("n",)).image
    assert floats.mean() == pytest.approx(level, abs=0.01)
    assert floats.std() == pytest.approx(parameters["noise"], rel=0.05)


def test_float_images_stay_float_and_agree_with_bytes():
    clean = photograph()
    floats = degrade(clean.astype(np.float64) / 255, "haze_rain", seed_parts=("f",)).image
    whole = degrade(clean, "haze_rain", seed_parts=("f",)).image
    assert floats.dtype == np.float32
    assert 0 <= floats.min() <= floats.max() <= 1
    assert np.abs(floats * 255 - whole).max() <= 0.51


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 3), (2, 2)])
@pytest.mark.parametrize("composition", ["low_haze_rain", "low_haze_snow"])
def test_tiny_images_work(shape, composition):
    clean = np.full((*shape, 3), 90, np.uint8)
    assert degrade(clean, composition, seed_parts=("t",)).image.shape == (*shape, 3)


def test_nonsense_is_named():
    clean = photograph()
    with pytest.raises(UsageError, match="low_fog"):
        degrade(clean, "low_fog", seed_parts=())
    with pytest.raises(UsageError, match="unknown composition"):
        degrade(clean, "low_low", seed_parts=())
    with pytest.raises(UsageError, match="rain"):
        degrade(clean, "low", seed_parts=(), severities={"rain": 0.5})
    with pytest.raises(UsageError, match="out of range"):
        degrade(clean, "low", seed_parts=(), severities={"low": float("nan")})
    with pytest.raises(DataError, match="wrong shape"):
        degrade(clean[:, :, 0], "low", seed_parts=())
    with pytest.raises(DataError, match="wrong type"):
        degrade(clean.astype(np.int32), "low", seed_parts=())


def test_rain_and_snow_cover_plausible_shares():
    black = np.zeros((256, 256, 3), np.uint8)
    for kind, least, most in (("rain", 0.03, 0.25), ("snow", 0.02, 0.3)):
        shares = [degrade(black, kind, seed_parts=(s,)).image.mean() / 255 for s in range(8)]
        assert least < np.mean(shares) < most, kind


GOLDEN = {
    "low": "d5b95542c93695f4c3fe452d5da83e30",
    "haze": "5976b4eb2ebc6e91e33bd62663e9c559",
    "rain": "60dbc29ea89fd094f21107661312645e",
    "snow": "c9e0bddf2091e5acfe6b172f90a6c2bc",
    "low_haze": "3c98d151f4ebd3cb8993a3a5e3896ffb",
    "low_rain": "b0bf8cd4c5498d38e9bbab0b8a36c5a8",
    "low_snow": "298c7f25b3996ca5aa4e04b4ab014dd1",
    "haze_rain": "2fd36a5c8618b750c12104e6071f970f",
    "haze_snow": "25d1da15e8c9bd90484475e94dc9af69",
    "low_haze_rain": "dc9a83b3dfcaf368f5b8f765d01211bf",
    "low_haze_snow": "446a09cfe880946665fe68c003323b1d",
}
"""Digests of a fixed picture under every class, the same on every machine; a change of the model
must change `mmfe_cache.datasets.synth.FORMAT` too."""


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_the_bytes_are_the_documented_ones(composition):
    clean = photograph(72, 104)
    done = degrade(clean, composition, seed_parts=("golden", 0))
    assert pixel_digest(done.image) == GOLDEN[composition]


def test_the_bytes_of_varied_haze_are_the_documented_ones():
    """A change of them must change `FORMAT` as well."""
    varied = DegradationConfig(varied_share=1.0)
    done = degrade(photograph(72, 104), "haze", seed_parts=("golden", 0), config=varied)
    assert pixel_digest(done.image) == "42d4a6fcbe4463b777bad6db12b41aca"
