"""What the vision tower is given is what the processor and the tower would have made themselves."""

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_window_index

from mmfe_cache.guides import load_guide
from mmfe_cache.guides.qwen import cut_patches, plan_vision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def guide(tiny_qwen):
    return load_guide(tiny_qwen, device="cpu")


@pytest.mark.parametrize("shape", [(56, 56), (112, 168), (28, 252)])
def test_patches_are_the_processors_bit_for_bit(guide, shape):
    draw = np.random.default_rng(0)
    batch = torch.from_numpy(draw.integers(0, 256, (3, *shape, 3), dtype=np.uint8))
    own = guide._processor.image_processor
    made = own(images=list(batch.permute(0, 3, 1, 2)), return_tensors="pt", do_resize=False)
    ours = cut_patches(batch, own, own.temporal_patch_size)
    assert torch.equal(ours, made["pixel_values"])
    still = cut_patches(batch, own, 1)
    patches = len(ours)
    twice = still.view(patches, 3, 1, -1).expand(-1, -1, own.temporal_patch_size, -1)
    assert torch.equal(twice.reshape(patches, -1), ours)


@pytest.mark.parametrize(("rows", "columns", "batch"), [(16, 16, 2), (10, 16, 3), (2, 18, 1)])
def test_the_plan_is_what_the_tower_derives_from_the_grid(guide, rows, columns, batch):
    tower = guide._network.visual
    plan = plan_vision(tower, rows, columns, batch, CPU)
    torch.manual_seed(0)
    patch = guide._processor.image_processor.patch_size
    values = torch.randn(batch * rows * columns, 3 * patch * patch * tower.patch_embed.frames)
    with torch.inference_mode():
        ours = tower(values, grid_thw=plan.grid, **plan.given).pooler_output
        theirs = tower(values, grid_thw=plan.grid).pooler_output
    assert torch.equal(ours, theirs)
    index, _ = get_vision_window_index(
        plan.grid,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    assert torch.equal(plan.given["window_index"], index)
