"""Training through Lightning on a CUDA device, without one: see tests/null_gpu."""

import pytest

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing
OFTEN = {"train.log_every", "train.checkpoint_every", "train.num_workers"}


@pytest.fixture(scope="module")
def trained(on_null_gpu, world):
    tiny = [one for one in world.tiny if one.split("=")[0] not in OFTEN]
    options = ("train.log_every=1000", "train.checkpoint_every=600", "train.num_workers=0")
    options += ("train.gradient_clip=null",)
    sources = (world.root, world.cache)
    return on_null_gpu("train_step.py", *sources, *tiny, *options, "train.compile=off")


def test_no_step_waits_for_the_device_or_copies_from_pageable_memory(trained):
    # All but the last, which writes the log and the checkpoint.
    steps = trained["steps"][:-1]
    assert [step["side"] for step in steps] == 6 * [16] + 5 * [32]
    for step in steps:
        assert step["waits"] == step["pageable"] == 0
        assert step["device"] == "cuda:0"
        assert not step["tf32"]
        assert step["fused"] and step["benchmark"]
    assert trained["completed"]
