"""Asking `scene` for some degradations alone moves what it says of the others and nothing else."""

import numpy as np
import pytest
import torch
from skimage import data as photographs

from mmfe_cache.degradations import KINDS, degrade
from mmfe_cache.errors import GuideError
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.base import AsksOnly


@pytest.fixture(scope="module")
def guide():
    return load_guide("scene", device="cpu")


@pytest.fixture(scope="module")
def found(guide):
    clean = photographs.chelsea()[:192, :256]
    names = ("low_rain", "low_haze_snow", "haze")
    return guide.encode([degrade(clean, name, seed_parts=("only",)).image for name in names])


@pytest.mark.parametrize("kinds", [("rain",), ("low", "snow"), ("haze",), KINDS])
def test_only_what_is_asked_for_is_there_and_the_rest_is_said_as_before(guide, found, kinds):
    assert isinstance(guide, AsksOnly)
    before, after = guide.estimate(found.answer), guide.estimate(guide.only(found, kinds).answer)
    asked = np.isin(KINDS, kinds)
    np.testing.assert_allclose(after.present[:, asked], before.present[:, asked], atol=1e-4)
    np.testing.assert_allclose(after.severities[:, asked], before.severities[:, asked], atol=1e-4)
    np.testing.assert_allclose(after.traits, before.traits, atol=1e-4)
    assert after.present[:, ~asked].max(initial=0) < 0.01
    assert after.severities[:, ~asked].max(initial=0) < 0.01
    assert before.present[:, ~asked].max(initial=1) > 0.5


def test_asking_for_everything_changes_nothing(guide, found):
    same = guide.only(found, KINDS)
    for name, tensor in found.present().items():
        assert torch.equal(getattr(same, name), tensor)


@torch.inference_mode()
def test_tokens_keep_their_cells_and_their_mean(guide, found):
    after = guide.only(found, ("rain",))
    for name in ("image", "joint"):
        old, new = getattr(found, name), getattr(after, name)
        assert torch.allclose(new[:, 0], new[:, 1:].mean(dim=1), atol=1e-5)
        # What is said is one vector a place, the same for all pictures that say the same: what
        # the tokens have beyond it is their cells' own.
        said = [
            guide.network.tokens_of_answer(one.answer)[name == "joint"] for one in (found, after)
        ]
        assert torch.allclose(new - said[1], old - said[0], atol=1e-5)
        assert not torch.allclose(new, old, atol=1e-2)


def test_a_reading_of_some_tokens_is_refused(guide, found):
    with pytest.raises(GuideError, match="all that the guide gave"):
        guide.only(found.select("grid"), ("rain",))
