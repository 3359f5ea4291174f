"""The discrete guide: a class, its vector, and nothing of the picture beside it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from mmfe_cache.degradations import COMPOSITIONS, DegradationConfig, degrade
from mmfe_cache.errors import DataError, GuideError
from mmfe_cache.guides import find_guide, load_guide
from mmfe_cache.guides.prompt import CLASSES, load_prompt, save_prompt
from mmfe_cache.guides.prompt_training import fit_classes, train_prompt
from mmfe_cache.guides.scene.evaluation import evaluate_guide, most_likely_classes


@pytest.fixture(scope="module")
def guide():
    return load_guide("prompt", device="cpu")


@pytest.fixture(scope="module")
def degraded():
    """One photograph in every class, and in which."""
    clean = data.rocket()[60:284, 200:424]
    pictures = {"clear": clean}
    for name in COMPOSITIONS:
        parts = dict.fromkeys(name.split("_"), 0.8)
        pictures[name] = degrade(clean, name, seed_parts=("prompt", 1), severities=parts).image
    return pictures


def test_a_photograph_in_every_class_is_mostly_named_rightly(guide, degraded):
    named = guide.classify(list(degraded.values()))
    assert set(named) <= set(CLASSES)
    right = [ours == truth for ours, truth in zip(named, degraded, strict=True)]
    assert sum(right) >= 9, dict(zip(degraded, named, strict=True))


def test_everything_is_a_function_of_the_class_alone(guide, degraded):
    clean = degraded["clear"]
    weak, strong = (
        degrade(clean, "low", seed_parts=("x", 2), severities={"low": s}).image for s in (0.6, 1.0)
    )
    found = guide.encode([weak, strong, clean])
    assert guide.classify([weak, strong, clean]) == ["low", "low", "clear"]
    for tensor in found.present().values():
        assert torch.equal(tensor[0], tensor[1])
        assert not torch.equal(tensor[0], tensor[2])
    head, _ = load_prompt()
    assert torch.equal(found.answer[0], head.vectors[CLASSES.index("low")])
    # scene, which looks with the same eyes, does tell the two apart.
    scene = load_guide("scene", device="cpu").encode([weak, strong])
    assert (scene.answer[0] - scene.answer[1]).abs().max() > 0.1


def test_the_tokens_are_what_scene_would_say_of_the_vector(guide):
    from mmfe_cache.guides.scene.guide import SceneGuide

    scene = SceneGuide(device=torch.device("cpu"))
    vectors = load_prompt()[0].vectors
    judged = scene.estimate(vectors)
    present = judged.present.astype(np.float64)
    airlight, noise, luminance = judged.traits.T
    said = np.c_[
        present * judged.severities,
        present[:, 1] * (1 + airlight) / 2,
        present[:, 0] * noise,
        2 * luminance,
    ]
    for kind in ("image", "joint"):
        own = getattr(scene._network, f"{kind}_said")
        features = np.sqrt(2) * np.tanh(said @ own.weights.numpy() + own.bias.numpy())
        tokens = features.reshape(len(CLASSES), 16, -1)
        expected = np.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        assert np.abs(getattr(guide, f"_{kind}").numpy() - expected).max() < 1e-4


def test_weights_of_another_scene_are_refused(tmp_path):
    head, _ = load_prompt()
    other = type(head)(head.weight, head.bias, head.vectors, "0" * 64)
    save_prompt(other, tmp_path / "p.safetensors", {})
    assert find_guide(tmp_path / "p.safetensors").kind == "prompt"
    with pytest.raises(GuideError, match="made for another scene"):
        load_guide(tmp_path / "p.safetensors", device="cpu")


def test_damaged_weights_are_refused(tmp_path):
    head, _ = load_prompt()
    path = tmp_path / "p.safetensors"
    save_prompt(head, path, {})
    again, _ = load_prompt(path)
    assert torch.equal(again.vectors, head.vectors)
    tensors = load_file(path)
    save_file(tensors | {"bias": torch.zeros(3)}, path, {"format": "mmfe-prompt", "dim": "128"})
    with pytest.raises(GuideError, match="no weights of the guide prompt"):
        load_guide(path, device="cpu")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(GuideError):
        load_guide(path, device="cpu")


def test_fit_classes_finds_the_maximum_of_the_penalised_likelihood():
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = torch.randn(90, 4, generator=draw) + 0.7 * torch.eye(3, 4)[y]
    weight, bias = fit_classes(x, y, 3)
    from sklearn.linear_model import LogisticRegression

    spread, middle = x.std(dim=0), x.mean(dim=0)
    known = LogisticRegression(C=1 / (2 * 1e-3 * len(x)), tol=1e-8, max_iter=10000)
    known.fit(((x - middle) / spread).double().numpy(), y.numpy())
    ours = (x @ weight.T + bias).softmax(dim=1).numpy()
    theirs = known.predict_proba(((x - middle) / spread).double().numpy())
    assert np.abs(ours - theirs).max() < 1e-3


def test_the_untrained_rule_takes_the_likeliest_of_the_twelve():
    # Rain and snow together are no class: the surer of the two stays.
    present = np.array([[0.1, 0.2, 0.9, 0.7], [0.9, 0.8, 0.6, 0.1], [0.1, 0.1, 0.1, 0.1]])
    assert most_likely_classes(present.astype(np.float32)) == ["rain", "low_haze_rain", "clear"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate((data.chelsea(), data.rocket(), data.coffee())):
        Image.fromarray(picture[:128, 100:228]).save(folder / f"{number}.png")
    return folder


def test_photographs_without_their_maps_are_named(photos, tmp_path):
    (tmp_path / "depth").mkdir()
    shutil.copy(photos / "0.png", tmp_path / "depth" / "another.png")
    config = DegradationConfig.from_folders(depth=tmp_path / "depth")
    with pytest.raises(DataError, match="photographs have no depth map"):
        train_prompt(photos, hold_out=1, config=config)


def test_photographs_of_one_stem_have_maps_of_their_own(photos, tmp_path):
    """They are named as by `data synth`, which a map must not have to guess."""
    for number, folder in enumerate(("a", "b")):
        (photos / folder).mkdir()
        (photos / f"{number}.png").rename(photos / folder / "IMG_1.png")
    (tmp_path / "depth").mkdir()
    grey = Image.fromarray(np.full((16, 16), 128, np.uint8))
    grey.save(tmp_path / "depth" / "2.png")
    grey.save(tmp_path / "depth" / "IMG_1.png")
    config = DegradationConfig.from_folders(depth=tmp_path / "depth")
    with pytest.raises(DataError, match="2 of 3 photographs have no depth map") as caught:
        train_prompt(photos, hold_out=0, config=config)
    assert caught.value.got == "a-IMG_1, b-IMG_1"
    for folder in ("a", "b"):
        grey.save(tmp_path / "depth" / f"{folder}-IMG_1.png")
    config = DegradationConfig.from_folders(depth=tmp_path / "depth")
    used = []
    choose = DegradationConfig.choose

    def noted(self, kind, photograph, seed_parts):
        choice = choose(self, kind, photograph, seed_parts)
        used.append((kind, photograph, choice.depth))
        return choice

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DegradationConfig, "choose", noted)
        found = train_prompt(photos, hold_out=0, config=config).photos
        trained, used = used, []
        evaluate_guide(load_guide("prompt", device="cpu"), found, view="whole@64", config=config)
    for drawn in (trained, used):
        assert {(name, path) for kind, name, path in drawn if kind == "haze"} == {
            (name, tmp_path / "depth" / f"{name}.png") for name in ("2", "a-IMG_1", "b-IMG_1")
        }


def test_training_is_seeded_and_evaluation_counts_classes(photos, tmp_path):
    done = train_prompt(photos, hold_out=1)
    again = train_prompt(photos, hold_out=1)
    assert torch.equal(done.head.weight, again.head.weight)
    assert (done.pictures, len(done.photos), len(done.held_out)) == (24, 2, 1)
    assert done.accuracy > 0.8  # 24 pictures in 128 dimensions
    save_prompt(done.head, tmp_path / "p.safetensors", {"seed": 0})
    mine = load_guide(tmp_path / "p.safetensors", device="cpu")
    scores = evaluate_guide(mine, done.held_out, view="whole@64")
    assert set(scores.class_accuracy) == set(CLASSES)
    assert scores.mean_class_accuracy == pytest.approx(np.mean([*scores.class_accuracy.values()]))
    assert scores.spearman is None
