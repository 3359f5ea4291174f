"""Image-text models through transformers' own classes: the embeddings are what they compute."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides import DEFAULT_PROMPT, find_guide, guide_dim, load_guide
from mmfe_cache.guides.base import Promptable
from mmfe_cache.guides.registry import TOY_KINDS
from mmfe_cache.guides.toy import make_tiny

TOLERANCE = 1e-4
FURTHER = TOY_KINDS[2:]
"""The kinds without a guide of their own."""

GRIDS = {  # rows and columns of a picture of 96×64 (height × width), or how many tokens in runs
    "qwen2-vl": (3, 2),
    "qwen3-vl": (3, 2),
    "gemma3": (4, 4),
    "paligemma": (4, 4),
}


@pytest.fixture(scope="module", params=FURTHER)
def toy(request, tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("toys") / request.param, kind=request.param)


@pytest.fixture(scope="module")
def photographs():
    """Three of one size, one of another; smooth, so that they differ in more than noise."""
    draw = np.random.default_rng(5)
    made = []
    for height, width in ((96, 64), (96, 64), (40, 100), (96, 64)):
        coarse = draw.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
        full = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
        made.append(np.clip(full + draw.normal(0, 9, full.shape), 0, 255).astype(np.uint8))
    return made


def read_slowly(directory, picture):
    """(T, D) hidden states and (T,) ids: one picture, the whole model, every state kept."""
    model = AutoModelForImageTextToText.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(directory)
    image = Image.fromarray(picture)
    if processor.chat_template is None:
        inputs = processor(text=f"<image>{DEFAULT_PROMPT}", images=image, return_tensors="pt")
    else:
        content = [{"type": "image", "image": image}, {"type": "text", "text": DEFAULT_PROMPT}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return output.hidden_states[-1][0].double().numpy(), inputs["input_ids"][0].numpy()


def test_equals_a_slow_independent_reading(toy, photographs, slow):
    guide = load_guide(toy, device="cpu")
    assert (find_guide(toy).kind, guide.dim, guide_dim(toy)) == ("image-text", 64, 64)
    found = guide.encode(photographs)
    config = json.loads((toy / "config.json").read_text(encoding="utf-8"))
    token = config.get("image_token_id", config.get("image_token_index"))
    answers = []
    for place in (0, 2, 3):
        hidden, ids = read_slowly(toy, photographs[place])
        seen = hidden[ids == token]
        grid = GRIDS.get(toy.name) if photographs[place].shape[:2] == (96, 64) else None
        if place == 2 and toy.name in {"gemma3", "paligemma"}:
            grid = (4, 4)  # any picture becomes one square
        if grid is not None:
            assert len(seen) == grid[0] * grid[1]
            image = slow.raster(seen.reshape(*grid, -1))
        elif toy.name.startswith("qwen"):
            rows = round((len(seen) * 40 / 100) ** 0.5)
            image = slow.raster(seen.reshape(rows, -1, seen.shape[1]))
        else:
            image = slow.run(seen)
        assert slow.distance(found.image[place], image) < TOLERANCE
        assert slow.distance(found.joint[place], slow.run(hidden)) < TOLERANCE
        assert slow.distance(found.answer[place], hidden[-1]) < TOLERANCE
        answers.append(hidden[-1])
    assert np.std(answers, axis=0).max() > 0.01  # the toy does react to its picture


def test_joint_from_the_image_on(toy, photographs, slow):
    guide, plain = (load_guide(toy, device="cpu", joint=j) for j in ("from-image", "all"))
    config = json.loads((toy / "config.json").read_text(encoding="utf-8"))
    token = config.get("image_token_id", config.get("image_token_index"))
    hidden, ids = read_slowly(toy, photographs[0])
    first = int(np.flatnonzero(ids == token)[0])
    found = guide.encode(photographs[:1])
    assert slow.distance(found.joint[0], slow.run(hidden[first:])) < TOLERANCE
    assert guide.fingerprint()["joint"] == "from-image"
    assert "joint" not in plain.fingerprint()


def test_one_network_is_asked_several_questions(toy, photographs):
    """As `mmfe cache build` does for a recipe with ``guide.prompts``."""
    plain = load_guide(toy, device="cpu")
    assert isinstance(plain, Promptable)
    assert find_guide(toy).takes_prompt  # so a recipe may ask, and restoring asks the same
    other = plain.with_prompt("Rain?")
    fresh = load_guide(toy, device="cpu", prompt="Rain?")
    assert other.fingerprint() == fresh.fingerprint()
    assert plain.fingerprint()["prompt"] == DEFAULT_PROMPT
    before, mine, theirs = (guide.encode(photographs[:1]) for guide in (plain, other, fresh))
    assert torch.equal(mine.answer, theirs.answer)
    assert torch.equal(mine.joint, theirs.joint)
    assert not torch.equal(mine.joint, before.joint)


@pytest.fixture
def copied(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("toys") / "gemma3", kind="gemma3")


def test_a_language_model_is_refused_by_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(GuideError, match="takes no images") as refused:
        find_guide(tmp_path)
    assert "llama" in refused.value.got


def test_code_of_its_own_is_never_run(tmp_path):
    config = {
        "model_type": "internvl_chat",
        "vision_config": {},
        "hidden_size": 8,
        "auto_map": {"AutoConfig": "configuration.Mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "configuration.py").write_text("raise SystemExit('it was run')")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(GuideError, match="does not know this checkpoint's model") as refused:
        load_guide(tmp_path, device="cpu")
    assert "never run" in refused.value.got


def test_what_transformers_knows_without_images_is_refused(tmp_path):
    config = {"model_type": "clip", "vision_config": {}, "text_config": {"hidden_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(GuideError, match="no image-text model") as refused:
        load_guide(tmp_path, device="cpu")
    assert "clip" in refused.value.got


def test_parts_that_are_missing_are_named(copied):
    with pytest.raises(UsageError, match="prompt is empty"):
        load_guide(copied, device="cpu", prompt=" ")
    tensors = load_file(copied / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("layers.1.mlp.down_proj.weight"))
    kept = {name: tensor for name, tensor in tensors.items() if name != gone}
    save_file(kept, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(GuideError, match="lacks tensors") as refused:
        load_guide(copied, device="cpu")
    assert "down_proj" in str(refused.value)
    # A processor without images: the tokenizer is all that is left.
    for path in (*copied.glob("*processor*.json"), *copied.glob("chat_template*")):
        path.unlink()
    with pytest.raises(GuideError, match=r"takes no images|cannot be loaded"):
        load_guide(copied, device="cpu")


@pytest.mark.parametrize(
    ("token", "said"),
    [(255, "no usable image tokens"), (70, "do not fit together")],  # never, and twice, in the text
)
def test_an_image_token_that_is_none_is_refused(copied, token, said):
    path = copied / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["image_token_id"] = token
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(GuideError, match=said):
        load_guide(copied, device="cpu").encode([np.zeros((64, 64, 3), np.uint8)])


def test_prompt_and_weights_are_in_the_fingerprint(copied, tmp_path):
    guide = load_guide(copied, device="cpu")
    asked = load_guide(copied, device="cpu", prompt="Is it dark?")
    assert guide.fingerprint() != asked.fingerprint()
    assert guide.fingerprint()["model"] == "gemma3"
    other = shutil.copytree(copied, tmp_path / "other")
    assert load_guide(other, device="cpu").fingerprint() == guide.fingerprint()
    tensors = load_file(other / "model.safetensors")
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1}, other / "model.safetensors", {"format": "pt"})
    assert load_guide(other, device="cpu").fingerprint() != guide.fingerprint()
