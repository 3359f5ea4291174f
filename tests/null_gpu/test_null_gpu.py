"""CUDA's faults without a GPU: each kind is planted and seen, and the right way is free of it."""

import pytest

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing
QUIET = {"pageable": 0, "waits": 0, "unsettled": 0}


@pytest.fixture(scope="module")
def faults(on_null_gpu):
    return on_null_gpu("faults.py", cards=2)


def test_a_batch_in_pageable_memory_is_seen_and_a_pinned_one_is_copied_without_waiting(faults):
    # degraded, clean, three embeddings, keep, answers, answers_keep
    assert faults["pageable batch"]["pageable"] == 8
    assert faults["pinned batch"] == QUIET
    assert faults["pageable image"] == {"pageable": 1, "waits": 1, "unsettled": 0}
    assert faults["image"] == QUIET


def test_reading_a_value_waits(faults):
    assert faults["reading a value"]["waits"] == 1
    assert faults["keeping a value"] == QUIET


def test_an_event_on_the_current_device_does_not_wait_for_another_ones_copy(faults):
    assert faults["event of the current device"] == {"pageable": 0, "waits": 1, "unsettled": 1}
    assert faults["event of its own device"] == {"pageable": 0, "waits": 1, "unsettled": 0}


def test_embeddings_are_waited_for_on_their_own_device(faults):
    assert faults["embeddings under way"] == {"pageable": 0, "waits": 0, "unsettled": 1}
    assert faults["embeddings waited for"] == {"pageable": 0, "waits": 1, "unsettled": 0}


def test_our_kernels_are_launched_on_the_device_of_their_map_whatever_the_current_one(faults):
    assert faults["kernels"] == [[1, 1], [1, 1]]  # forward and backward


def test_weights_on_a_wrong_device_are_seen(faults):
    ran, refused = faults["network"]
    assert ran == "ran"
    assert "cuda:0 and cpu" in refused


@pytest.fixture(scope="module")
def peak(on_null_gpu):
    """MiB beyond the weights, as the caching allocator counts them."""
    return on_null_gpu("memory.py")


def test_a_training_step_needs_no_more_memory_than_the_references(peak):
    # 64², batch 2, bf16, eager.
    gradients = peak["weights"]
    assert peak["ours"] < peak["reference"]
    # With 37.5 M parameters to the reference's 26.1 M; what is checkpointed is activations.
    assert peak["checkpointing"] - gradients < 0.1 * (peak["reference"] - gradients)


def test_restoring_needs_less_memory_than_the_reference_and_12_gib_at_3840x2160(peak):
    assert len(peak["restoring"]) == 6
    for size, figures in peak["restoring"].items():
        assert figures["ours"] < figures.get("reference", 12 * 1024), size


def test_from_the_second_batch_on_encoding_waits_for_its_results_alone(on_null_gpu, tmp_path):
    found = on_null_gpu("encode.py", tmp_path, cards=2)
    assert set(found) == {"scene", "prompt", "student", "timm", "qwen2.5-vl", "fastvlm"}
    for guide, batches in found.items():
        for batch in batches[1:]:
            assert batch["started"]["waits"] == batch["started"]["pageable"] == 0, guide
            assert batch["done"] == {"pageable": 0, "waits": 1, "unsettled": 0}, guide


@pytest.fixture(scope="module")
def restored(on_null_gpu):
    return on_null_gpu("restore.py")


def test_every_way_and_precision_of_restoring_runs_under_cudas_autocast(restored):
    outcomes = restored["outcomes"]
    assert len(outcomes) == 18
    assert outcomes == dict.fromkeys(outcomes, "ran")


def test_feed_forward_networks_convolve_multiples_of_16_channels_on_cuda(restored):
    assert set(restored["widths"]) == {"whole maps", "strips", "streamed"}
    for way, widths in restored["widths"].items():
        for channels in (8, 16, 32, 64):
            half = int(2.66 * channels)
            assert 2 * half not in widths, way
            assert 2 * (half + -half % 16) in widths, way


def test_by_default_whole_maps_are_used_at_256_and_strips_at_3840x2160(restored):
    wanted = {"256x256": "WholeMaps", "3840x2160": "Strips"}
    assert len(restored["runners"]) == 4  # in float32 and bfloat16
    for size, runner in restored["runners"].items():
        assert runner == wanted[size.split(",")[0]], size
