"""The oracle: the truth of synthetic samples, and nothing for anyone else."""

import numpy as np
import pytest
import torch

from mmfe_cache.errors import GuideError
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.base import Guide, guide_calls
from mmfe_cache.samples import Sample


def sample(name, severities):
    return Sample(name, None, None, "low", "scene", severities)


@pytest.fixture
def oracle():
    return load_guide("oracle")


def test_it_is_a_guide_that_reads_severities(oracle):
    assert isinstance(oracle, Guide)
    assert oracle.reads == "severities"
    assert oracle.dim == 64


def test_embeddings_are_a_function_of_the_severities_alone(oracle):
    samples = [
        sample("a", {"low": 0.5}),
        sample("b", {"low": 0.5, "haze": 0.9}),
        sample("c", {"low": 0.5}),
        sample("d", {}),
    ]
    before, count = guide_calls(), oracle.calls
    found = oracle.encode_samples(samples)
    assert guide_calls() - before == oracle.calls - count == 4
    assert found.image.shape == found.joint.shape == (4, 17, 64)
    assert found.answer.shape == (4, 64)
    for tensor in (found.image, found.joint, found.answer):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor[0], tensor[2])
        assert not torch.allclose(tensor[0], tensor[1], atol=0.05)
        assert not torch.allclose(tensor[0], tensor[3], atol=0.05)
        assert 0.5 < tensor.std() < 2
    again = load_guide("oracle").encode_samples(samples[1:2])
    assert torch.equal(again.image[0], found.image[1])


def test_each_token_has_a_projection_of_its_own(oracle):
    found = oracle.encode_samples([sample("a", {"low": 0.3, "rain": 0.8})])
    tokens = torch.cat([found.image[0], found.joint[0], found.answer])
    assert len(torch.unique(tokens.round(decimals=3), dim=0)) == 35


def test_severities_can_be_read_back(oracle):
    draw = np.random.default_rng(0).uniform(size=(200, 4))
    kinds = ("low", "haze", "rain", "snow")
    samples = [sample(str(i), dict(zip(kinds, row, strict=True))) for i, row in enumerate(draw)]
    answer = oracle.encode_samples(samples).answer.double().numpy()
    design = np.column_stack([answer, np.ones(200)])
    fit, *_ = np.linalg.lstsq(design[:150], draw[:150], rcond=None)
    assert np.abs(design[150:] @ fit - draw[150:]).mean() < 0.05


def test_samples_without_severities_and_pictures_are_refused(oracle):
    with pytest.raises(GuideError, match="severities") as caught:
        oracle.encode_samples([sample("real/1", None)])
    assert "real/1" in str(caught.value)
    picture = np.zeros((8, 8, 3), np.uint8)
    for refuse in (oracle.encode, oracle.encode_prepared):
        with pytest.raises(GuideError, match="synthetic"):
            refuse([picture])
    with pytest.raises(GuideError, match="synthetic"):
        oracle.prepare(picture)
