"""Qwen2.5-VL: the embeddings are exactly what the model computes, however they are batched."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides import DEFAULT_PROMPT, load_guide
from mmfe_cache.guides.outline import outline_guide
from mmfe_cache.guides.toy import make_tiny
from mmfe_cache.store import store_path

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def guide(tiny_qwen):
    return load_guide(tiny_qwen, device="cpu")


@pytest.fixture
def copied(tiny_qwen, tmp_path):
    return shutil.copytree(tiny_qwen, tmp_path / "copy")


def messages(image, prompt=DEFAULT_PROMPT):
    content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]


def read_all(directory, pictures, slow):
    """The published recipe for Qwen2.5-VL, one image after the other."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(directory)
    found = []
    for picture in pictures:
        chat = messages(Image.fromarray(picture))
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        images, _ = process_vision_info(chat)
        inputs = processor(text=[text], images=images, return_tensors="pt")
        _, rows, columns = (inputs["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
        found.append(slow.read(model, inputs, model.config.image_token_id, rows, columns))
    return [np.stack(kind) for kind in zip(*found, strict=True)]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_equals_a_slow_independent_reading_at_every_batch_size(
    guide, tiny_qwen, pictures, slow, batch
):
    pictures = [*pictures, pictures[2]]
    truth = read_all(tiny_qwen, pictures, slow)
    parts = [
        guide.encode(pictures[start : start + batch]) for start in range(0, len(pictures), batch)
    ]
    for name, expected in zip(("image", "joint", "answer"), truth, strict=True):
        ours = torch.cat([getattr(part, name) for part in parts])
        assert ours.dtype == torch.float32
        assert slow.distance(ours, expected) < TOLERANCE
    assert truth[2].std(axis=0).max() > 0.01  # the toy does react to its picture


def test_joint_from_the_image_on_equals_a_slow_independent_reading(tiny_qwen, pictures, slow):
    """What precedes the picture has not seen it: some runs of `all` are the same for every one."""
    ours = load_guide(tiny_qwen, device="cpu", joint="from-image").encode(pictures[2:3] * 2)
    whole = load_guide(tiny_qwen, device="cpu").encode([pictures[2], pictures[5]])
    assert not torch.equal(whole.image[0], whole.image[1])
    moved = (whole.joint[0] - whole.joint[1]).abs().amax(dim=1)
    assert moved[1] < 1e-6  # the first run lies before the picture
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        tiny_qwen, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(tiny_qwen)
    chat = messages(Image.fromarray(pictures[2]))
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    images, _ = process_vision_info(chat)
    inputs = processor(text=[text], images=images, return_tensors="pt")
    with torch.no_grad():
        last = model(**inputs, output_hidden_states=True).hidden_states[-1][0].double().numpy()
    first = inputs["input_ids"][0].tolist().index(model.config.image_token_id)
    assert first > 0
    assert slow.distance(ours.joint[0], slow.run(last[first:])) < TOLERANCE
    assert slow.distance(ours.answer[0], last[-1]) < TOLERANCE
    # `image` and `answer` are as before.
    assert torch.allclose(ours.image[0], whole.image[0], atol=1e-5)
    again = load_guide(tiny_qwen, device="cpu", joint="from-image").encode([pictures[5]])
    assert (ours.joint[0] - again.joint[0]).abs().amax(dim=1).min() > 1e-4


def test_another_pooling_is_in_the_fingerprint_and_the_place(tiny_qwen):
    all_tokens = load_guide(tiny_qwen, device="cpu").fingerprint()
    from_image = load_guide(tiny_qwen, device="cpu", joint="from-image").fingerprint()
    assert "joint" not in all_tokens  # caches of earlier versions keep their fingerprints
    assert from_image["joint"] == "from-image"
    differing = {k for k in all_tokens | from_image if all_tokens.get(k) != from_image.get(k)}
    assert differing == {"joint", "pooling"}
    places = {
        store_path("cdd11", "train", "qwen2.5-vl-3b", prompt, joint=joint)
        for prompt in (None, "Is it dark?")
        for joint in ("all", "from-image")
    }
    assert len(places) == 4
    assert store_path("cdd11", "train", "qwen2.5-vl-3b").name == "qwen2.5-vl-3b.zarr"
    with pytest.raises(UsageError, match="joint tokens"):
        load_guide("scene", device="cpu", joint="from-image")
    with pytest.raises(UsageError, match="all or from-image"):
        load_guide(tiny_qwen, device="cpu", joint="image")


def test_the_same_network_asks_something_else(tiny_qwen, pictures):
    guide = load_guide(tiny_qwen, device="cpu")
    before = guide.encode(pictures[2:3])
    other = guide.with_prompt("Is it dark?")
    expected = load_guide(tiny_qwen, device="cpu", prompt="Is it dark?")
    assert other.fingerprint() == expected.fingerprint()
    assert torch.equal(other.encode(pictures[2:3]).answer, expected.encode(pictures[2:3]).answer)
    assert torch.equal(guide.encode(pictures[2:3]).answer, before.answer)
    assert (guide.calls, other.calls) == (2, 1)


def test_the_order_within_a_batch_does_not_matter(guide, pictures, slow):
    straight, backwards = guide.encode(pictures), guide.encode(pictures[::-1])
    for name in ("image", "joint", "answer"):
        ours = getattr(backwards, name).flip(0)
        assert slow.distance(ours, getattr(straight, name)) < TOLERANCE


@pytest.mark.parametrize(
    ("least", "most", "size"),
    [(64, 64, (160, 240)), (64, 64, (1080, 720)), (60, 64, (720, 1080)), (256, 1280, (40, 7584))],
)
def test_under_a_tight_pixel_budget_the_prepared_size_counts(copied, least, most, size):
    path = copied / "processor_config.json"
    about = json.loads(path.read_text())
    about["image_processor"]["size"] = {"shortest_edge": least * 784, "longest_edge": most * 784}
    path.write_text(json.dumps(about))
    guide, picture = load_guide(copied, device="cpu"), np.zeros((*size, 3), np.uint8)
    prepared = guide.prepare(picture)
    layout = guide.layout(guide._shape(prepared))
    assert (layout.rows * 28, layout.columns * 28) == prepared.shape[:2]
    assert guide.encode([picture]).image.isfinite().all()
    outline = outline_guide(copied)
    assert outline.prepare(picture) == layout.rows * layout.columns


@pytest.mark.parametrize(
    ("height", "width", "tokens"),
    [(128, 128, 25), (160, 160, 36), (192, 192, 49), (224, 224, 64), (720, 1080, 1014)],
)
def test_image_tokens_are_as_many_as_published(guide, height, width, tokens):
    shape = guide.prepare(np.zeros((height, width, 3), np.uint8)).shape
    layout = guide.layout(shape[:2])
    assert layout.rows * layout.columns == tokens


def test_the_papers_prompt_on_published_files_is_93_tokens(published_files, tmp_path):
    guide = load_guide(make_tiny(tmp_path / "toy", files=published_files), device="cpu")
    layout = guide.layout((224, 224))
    assert layout.tokens.shape == (1, 93)
    assert layout.rows * layout.columns == 64
    text = guide._processor.tokenizer.decode(layout.tokens[0])
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|>"
    )
    assert text.endswith(f"<|vision_end|>{DEFAULT_PROMPT}<|im_end|>\n<|im_start|>assistant\n")
    assert guide.encode([np.zeros((224, 224, 3), np.uint8)]).answer.shape == (1, guide.dim)


def test_published_files_read_slowly_agree_too(published_files, tmp_path, pictures, slow):
    made = make_tiny(tmp_path / "toy", files=published_files)
    ours = load_guide(made, device="cpu").encode(pictures[:2])
    truth = read_all(made, pictures[:2], slow)
    for name, expected in zip(("image", "joint", "answer"), truth, strict=True):
        assert slow.distance(getattr(ours, name), expected) < TOLERANCE


def test_prompt_and_weights_are_in_the_fingerprint(guide, tiny_qwen, copied):
    other = load_guide(tiny_qwen, device="cpu", prompt="What hurts?")
    assert other.fingerprint() != guide.fingerprint()
    assert json.loads(json.dumps(guide.fingerprint())) == guide.fingerprint()
    image = np.full((64, 64, 3), 90, np.uint8)
    assert not torch.equal(other.encode([image]).answer, guide.encode([image]).answer)
    assert load_guide(copied, device="cpu").fingerprint() == guide.fingerprint()
    weights = load_file(copied / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-3
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    assert load_guide(copied, device="cpu").fingerprint() != guide.fingerprint()


def test_calls_are_counted_and_prepared_images_may_come_from_a_worker(guide, pictures):
    before = guide.calls
    prepare = pickle.loads(pickle.dumps(guide.prepare))
    prepared = [prepare(picture) for picture in pictures]
    ours = guide.encode_prepared(prepared)
    assert guide.calls == before + len(pictures)
    assert torch.equal(ours.answer, guide.encode(pictures).answer)
    with pytest.raises(GuideError, match="only prepares"):
        prepare.__self__.encode(pictures[:1])


def test_nothing_in_gives_nothing_out(guide):
    empty = guide.encode([])
    assert isinstance(empty, Embeddings)
    assert empty.image.shape == (0, 17, guide.dim)
    assert len(empty) == 0


def test_bfloat16_stays_near_float32(tiny_qwen, guide, pictures, slow):
    half = load_guide(tiny_qwen, device="cpu", precision="bfloat16")
    assert half.fingerprint()["dtype"] == "bfloat16"
    ours, theirs = half.encode(pictures), guide.encode(pictures)
    assert ours.answer.dtype == torch.float32
    assert 0 < slow.distance(ours.answer, theirs.answer) < 0.1


def test_a_missing_tensor_is_named(copied):
    weights = load_file(copied / "model.safetensors")
    gone = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    del weights[gone]
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(GuideError, match="lacks tensors") as caught:
        load_guide(copied, device="cpu")
    assert "down_proj" in str(caught.value)


def test_a_misshapen_tensor_is_named(copied):
    weights = load_file(copied / "model.safetensors")
    cut = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    weights[cut] = weights[cut][:3].clone()
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(GuideError, match="misshapen") as caught:
        load_guide(copied, device="cpu")
    assert "down_proj" in str(caught.value)


def test_a_damaged_weight_file_is_a_guide_error(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(GuideError, match="cannot be loaded"):
        load_guide(copied, device="cpu")


def test_a_vocabulary_without_image_tokens_is_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    config["image_token_id"] = 77
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(GuideError, match="no image token"):
        load_guide(copied, device="cpu")


def test_a_template_without_the_image_is_refused(copied):
    (copied / "chat_template.jinja").write_text("{{ 'no picture here' }}")
    with pytest.raises(GuideError, match="image tokens"):
        load_guide(copied, device="cpu").encode([np.zeros((64, 64, 3), np.uint8)])


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages.nothing.there }}"])
def test_a_broken_template_is_a_guide_error(copied, template):
    (copied / "chat_template.jinja").write_text(template)
    with pytest.raises(GuideError, match="chat template cannot be used"):
        load_guide(copied, device="cpu")


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_missing_processor_files_are_a_guide_error(copied, name):
    (copied / name).unlink()
    with pytest.raises(GuideError):
        load_guide(copied, device="cpu")


def test_a_thread_of_an_image_is_refused_with_a_way_out(guide):
    with pytest.raises(GuideError, match="shape") as caught:
        guide.encode([np.zeros((2, 900, 3), np.uint8)])
    assert "whole@224" in caught.value.remedy


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(guide, image):
    with pytest.raises(GuideError, match="RGB"):
        guide.encode([image])


def test_an_empty_prompt_and_an_unknown_precision_are_usage_errors(tiny_qwen):
    with pytest.raises(UsageError):
        load_guide(tiny_qwen, device="cpu", prompt="  ")
    with pytest.raises(UsageError, match="prompt is empty"):
        load_guide(tiny_qwen, device="cpu").with_prompt("  ")
    with pytest.raises(UsageError):
        load_guide(tiny_qwen, device="cpu", precision="float8")


def test_severities_are_not_its_business(guide):
    with pytest.raises(GuideError):
        guide.encode_samples([])


@pytest.mark.parametrize(
    ("size", "tokens", "prepared"),
    [
        ((31, 639), 20, (28, 560)),  # qwen-vl-utils rounds the short side down to nothing
        ((639, 31), 20, (560, 28)),
        ((100, 19_900), 400, (28, 5600)),  # and here to one patch, at a ratio beyond 200
        ((48, 64), 20, (56, 56)),  # an ordinary picture goes qwen-vl-utils' own way
    ],
)
def test_narrow_pictures_are_one_patch_wide(copied, size, tokens, prepared):
    path = copied / "processor_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["image_processor"]["size"] = {"shortest_edge": 784, "longest_edge": tokens * 784}
    path.write_text(json.dumps(config), encoding="utf-8")
    guide = load_guide(copied, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    ready = guide.prepare(image)
    assert ready.shape == (*prepared, 3)
    assert guide.encode_prepared([ready]).image.isfinite().all()
