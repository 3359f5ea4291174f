"""Training through Lightning on a CUDA device, without one: see tests/null_gpu."""

import pytest

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing
OFTEN = {"train.log_every", "train.checkpoint_every", "train.num_workers"}


@pytest.fixture(scope="module")
def train(on_null_gpu, world):
    """Trains with further settings; what happened in every step but the last, which saves."""
    tiny = [one for one in world.tiny if one.split("=")[0] not in OFTEN]
    options = ("train.log_every=1000", "train.checkpoint_every=600", "train.num_workers=0")
    sources = (world.root, world.cache)

    def run(*settings):
        done = on_null_gpu(
            "train_step.py", *sources, *tiny, *options, "train.compile=off", *settings
        )
        assert done["completed"]
        return done["steps"][:-1]

    return run


def test_no_step_waits_for_the_device_or_copies_from_pageable_memory(train):
    steps = train("train.gradient_clip=null")
    assert [step["side"] for step in steps] == 6 * [16] + 5 * [32]
    for step in steps:
        assert step["waits"] == step["pageable"] == 0
        assert step["device"] == "cuda:0"
        assert not step["tf32"]
        assert step["fused"] and step["benchmark"]


def test_nor_does_one_with_our_kernels_and_clipped_gradients(train):
    steps = train("train.gradient_clip=1.0", "train.kernels=triton")
    assert len(steps) == 11
    for step in steps:
        assert step["waits"] == step["pageable"] == 0
        assert not step["fused"]  # Lightning cannot clip for the fused one
