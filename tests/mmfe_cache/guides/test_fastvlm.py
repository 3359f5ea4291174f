"""FastVLM: the embeddings are exactly what the model computes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, FastVlmForConditionalGeneration

from mmfe_cache.errors import GuideError
from mmfe_cache.guides import DEFAULT_PROMPT, guide_dim, load_guide
from mmfe_cache.guides.outline import outline_guide

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def guide(tiny_fastvlm):
    return load_guide(tiny_fastvlm, device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_fastvlm):
    model = FastVlmForConditionalGeneration.from_pretrained(
        tiny_fastvlm, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model, AutoProcessor.from_pretrained(tiny_fastvlm)


def read_all(reference, pictures, slow):
    model, processor = reference
    found = []
    for picture in pictures:
        content = [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]
        chat = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt")
        found.append(slow.read(model, inputs, model.config.image_token_id, 4, 4))
    return [np.stack(kind) for kind in zip(*found, strict=True)]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_equals_a_slow_independent_reading_at_every_batch_size(
    guide, reference, pictures, slow, batch
):
    pictures = [picture for picture in pictures if min(picture.shape[:2]) > 3]
    truth = read_all(reference, pictures, slow)
    parts = [
        guide.encode(pictures[start : start + batch]) for start in range(0, len(pictures), batch)
    ]
    for name, expected in zip(("image", "joint", "answer"), truth, strict=True):
        ours = torch.cat([getattr(part, name) for part in parts])
        assert slow.distance(ours, expected) < TOLERANCE
    assert truth[2].std(axis=0).max() > 0.01


def test_the_sequence_is_the_converted_checkpoints(guide):
    layout = guide.layout((224, 224))
    text = guide._processor.tokenizer.decode(layout.tokens[0])
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        + "<image>" * 16
        + f"\n{DEFAULT_PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_single_pixel_is_a_picture(guide):
    found = guide.encode([np.full((1, 1, 3), 200, np.uint8)])
    assert torch.isfinite(found.image).all()


@pytest.mark.parametrize("size", [(1, 201), (804, 4)])
def test_a_line_of_pixels_is_refused_before_it_is_scaled(guide, size):
    line = np.zeros((*size, 3), np.uint8)
    with pytest.raises(GuideError, match="image of this shape"):
        guide.prepare(line)
    with pytest.raises(GuideError, match="image of this shape"):
        outline_guide("fastvlm-0.5b").prepare(line)
    assert guide.prepare(line[:200, :200]).shape == (256, 256, 3)


def test_width_and_class_come_from_the_configuration(guide, tiny_fastvlm):
    assert guide_dim(tiny_fastvlm) == guide.dim == 64
    assert guide.describe()["kind"] == "fastvlm"


def test_a_checkpoint_that_claims_to_be_another_is_refused(tiny_fastvlm, tiny_qwen, tmp_path):
    mixed = shutil.copytree(tiny_qwen, tmp_path / "mixed")
    shutil.copyfile(tiny_fastvlm / "config.json", mixed / "config.json")
    with pytest.raises(GuideError):
        load_guide(mixed, device="cpu")


def test_pictures_are_brought_to_size_on_the_cpu_to_the_processors_own_bytes(guide, pictures):
    # On a GPU the same resize gives other bytes, and the embeddings were 4 % off.
    of_images = guide._processor.image_processor
    for picture in pictures:
        found = guide.prepare(picture)
        assert found.dtype == np.uint8 and found.shape[:2] == (256, 256)
        truth = of_images(images=[torch.from_numpy(picture).permute(2, 0, 1)], return_tensors="pt")
        mean, std = (np.asarray(values) for values in (of_images.image_mean, of_images.image_std))
        unit = (found / 255 - mean) / std
        assert np.abs(unit - truth["pixel_values"][0].permute(1, 2, 0).numpy()).max() < 1e-6
