"""Training through Lightning on a CUDA device, without one: see tests/null_gpu."""

import json

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


@pytest.fixture(scope="module")
def said(on_null_gpu, world, tmp_path_factory):
    """What commands say on one card of 3 GiB, of before Ampere; by name, exit code and words."""
    out = tmp_path_factory.mktemp("commands")
    photo = next((world.root / "test").rglob("*.png"))
    given = {"model.width", "train.stages", "data.repeats"}
    wide = [
        *(one for one in world.tiny if one.split("=")[0] not in given),
        *("model.width=48", "train.compile=off", "train.max_steps=1", 'data.repeats={"*": 9}'),
        "train.stages=[{epochs: 1, resolution: 32, batch_size: 64}]",
    ]

    def train(*settings):
        sources = ("--root", world.root, "--cache", world.cache, "--out", out / "run")
        return [
            "train",
            "--recipe",
            "demo",
            *sources,
            *(f"--set={one}" for one in (*wide, *settings)),
        ]

    build = ["cache", "build", "--dataset", "cdd11", "--root", world.root, "--split", "test"]
    build += ["--views", "whole@32", "--out", out / "cache"]
    build += ["--guide", "timm:resnet10t", "--weights", "random"]  # in bfloat16, where it may
    lines = {
        "restoring on cuda:7": ["restore", photo, "--device", "cuda:7", "--out", out / "r.png"],
        "building on cuda:7": [*build, "--device", "cuda:7"],
        "building": build,
        "training": train(),
        "training in float32": train("train.precision=32"),
        "its remedy": train("train.precision=32", "train.accumulate=2"),
    }
    words = [[str(word) for word in line] for line in lines.values()]
    done = on_null_gpu("commands.py", json.dumps(words), major=7, gib=3)
    return dict(zip(lines, done, strict=True))


@pytest.mark.parametrize("what", ["restoring", "building"])
def test_a_card_that_is_not_there_is_refused_and_the_one_that_is_named(said, what):
    code, words = said[f"{what} on cuda:7"]
    assert code == 2
    assert "'cuda:7' (this machine has one card, cuda:0)" in words
    assert "auto or cpu or cuda:0" in words


@pytest.mark.parametrize(
    ("what", "remedy"),
    [("building", "--precision float32"), ("training", "--set train.precision=32")],
)
def test_a_card_without_bfloat16_is_refused_with_what_to_take(said, what, remedy):
    code, words = said[what]
    assert code == 2
    assert "does not compute in bfloat16" in words and "compute capability 7.0" in words
    assert f"to do:    {remedy}" in words


def test_training_that_runs_out_of_memory_says_what_to_do_and_that_helps(said):
    code, words = said["training in float32"]
    assert code == 1
    assert "out of memory in training" in words
    assert "64 crops of 32² at once" in words and "of 3.0 GiB used" in words
    assert "to do:    --set train.accumulate=2 (32 crops at once" in words
    assert "--set train.activation_checkpointing=true" in words
    assert "train.activation_memory" not in words  # of compiled blocks alone
    code, words = said["its remedy"]
    assert code == 0, words
