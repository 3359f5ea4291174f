"""The guide `scene` as shipped: any size, any batch, whole or refused, and it sees."""

import hashlib
import json
import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs, io

from mmfe_cache.degradations import KINDS
from mmfe_cache.errors import GuideError
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.base import Guide, guide_calls
from mmfe_cache.guides.scene import guide as guide_module
from mmfe_cache.guides.scene.data import compose
from mmfe_cache.guides.scene.guide import load_scene, save_scene
from mmfe_cache.guides.scene.network import SceneNetwork
from mmfe_cache.views import View


@pytest.fixture(scope="module")
def guide():
    return load_guide("scene", device="cpu")


@pytest.fixture(scope="module")
def photos():
    """Photographs that lie as files in scikit-image's wheel; none was trained on."""
    folder = Path(photographs.__file__).parent
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    found = [io.imread(folder / name)[..., :3] for name in names if (folder / name).is_file()]
    assert len(found) >= 2
    return [np.ascontiguousarray(image[:384, :384]) for image in found]


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_what_is_shipped_is_small_and_is_what_its_card_says():
    folder = resources.files("mmfe_cache.guides.scene")
    content = folder.joinpath("scene.safetensors").read_bytes()
    card = json.loads(folder.joinpath("scene.json").read_text())
    assert len(content) <= 4_000_000
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert card["sha256"][:16] in folder.joinpath("scene.md").read_text()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (7, 5), (63, 65), (64, 64), (128, 128), (224, 224), (700, 900)]
)
def test_it_takes_any_size(guide, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = guide.encode([image])
    assert found.image.shape == found.joint.shape == (1, 17, 128)
    assert found.answer.shape == (1, 128)
    for tensor in (found.image, found.joint, found.answer):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()


def test_batches_and_order_do_not_matter(guide, photos):
    views = [View.parse(name) for name in ("whole@64", "whole@128", "crop@128#2", "crop@96")]
    images = [view.render(photo) for photo in photos for view in views]
    together, backwards = guide.encode(images), guide.encode(images[::-1])
    alone = [guide.encode([image]) for image in images]
    for name in ("image", "joint", "answer"):
        whole = getattr(together, name)
        assert distance(torch.cat([getattr(one, name) for one in alone]), whole) < 1e-4
        assert distance(getattr(backwards, name).flip(0), whole) < 1e-4


def test_embeddings_are_those_of_the_network_before_folding(guide, photos):
    # The guide folds batch norms into convolutions; the plain network must say the same.
    content = resources.files("mmfe_cache.guides.scene").joinpath("scene.safetensors").read_bytes()
    state = guide_module.load_tensors(content)
    assert not any(name.startswith("clean_head") for name in state)  # only training uses it
    plain = SceneNetwork()
    full = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    plain.load_state_dict(full, strict=False)
    image = View.parse("whole@128").render(photos[0])
    with torch.no_grad():
        output = plain.eval()(torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255)
        tokens = plain.tokens(output)
    found = guide.encode([image])
    assert distance(found.answer, output.answer) < 1e-4
    assert distance(found.image, tokens[0]) < 1e-4
    assert distance(found.joint, tokens[1]) < 1e-4


def test_embeddings_are_well_scaled(guide, photos):
    images = [
        View.parse(view).render(compose(photo, name, seed_parts=(name,), uniform=False).degraded)
        for photo in photos
        for name in ("clear", "low", "haze", "rain", "snow", "low_haze_rain")
        for view in ("whole@128", "whole@224")
    ]
    found = guide.encode(images)
    for tensor in (found.image[:, 1:], found.joint[:, 1:], found.answer):
        assert 0.4 < tensor.std() < 2.5
        # In every picture, not only on average: a few must not hold all of the variance.
        assert tensor.flatten(1).std(dim=1).min() > 0.3
    for tensor in (found.image, found.joint, found.answer):
        assert tensor.abs().max() < 20


def test_it_sees_what_was_done(guide, photos):
    names = ("clear", "low", "haze", "rain", "snow", "low_haze", "haze_rain", "low_snow")
    made = [compose(p, n, seed_parts=(n,), uniform=False) for p in photos for n in names]
    images = [View.parse("whole@224").render(picture.degraded) for picture in made]
    said = guide.estimate(guide.encode(images).answer)
    present = np.stack([picture.present for picture in made])
    assert ((said.present > 0.5) == present).mean() > 0.9
    assert (said.severities[present] > 0.3).mean() > 0.9
    for values in (said.severities, said.traits):
        assert values.min() >= 0
        assert values.max() <= 1


def test_it_sees_what_undoing_the_damage_takes(guide, photos):
    made = [
        compose(photo, name, seed_parts=(name, number), uniform=False)
        for photo in photos
        for name in ("low", "haze")
        for number in range(12)
    ]
    scene = np.arange(len(made)) // 24
    views = [(View.parse("crop@224").render(p.degraded), p) for p in made]
    said = guide.estimate(guide.encode([view for view, _ in views]).answer).traits
    truth = np.stack([p.traits for p in made])
    for index in range(2):
        known = ~np.isnan(truth[:, index])
        assert known.sum() == len(made) / 2
        # Within each photograph: a pale one offsets all that is said of its haze alike, and four
        # photographs are too few for that to cancel out.
        pair = said[known, index], truth[known, index]
        here = scene[known]
        centred = [x - np.array([x[here == one].mean() for one in here]) for x in pair]
        assert np.corrcoef(*centred)[0, 1] > (0.55, 0.9)[index]
        if index == 1:  # noise is noise, whatever the scene
            assert np.corrcoef(*pair)[0, 1] > 0.5
    bright = np.array([View.parse("crop@224").render(p.clean).mean() / 255 for p in made])
    # Hardest to see: a dark picture may be of a dark scene, or underexposed beyond CDD11's range.
    assert np.corrcoef(said[:, 2], bright)[0, 1] > 0.35


def test_stronger_damage_is_called_stronger(guide, photos):
    from mmfe_cache.degradations import degrade

    for kind in KINDS:
        answers = []
        for severity in (0.15, 0.5, 0.95):
            images = [
                degrade(photo, kind, seed_parts=("s", i), severities={kind: severity}).image
                for i, photo in enumerate(photos)
            ]
            views = [View.parse("whole@224").render(image) for image in images]
            said = guide.estimate(guide.encode(views).answer).severities
            answers.append(said[:, KINDS.index(kind)].mean())
        assert answers[0] < answers[1] < answers[2]


def test_it_is_a_guide_that_counts_and_travels(guide, photos):
    assert isinstance(guide, Guide)
    before, count = guide_calls(), guide.calls
    prepared = [pickle.loads(pickle.dumps(guide.prepare))(photo) for photo in photos]
    ours = guide.encode_prepared(prepared)
    assert guide.calls - count == guide_calls() - before == len(photos)
    assert torch.equal(ours.answer, guide.encode(photos).answer)
    assert len(pickle.dumps(guide.prepare)) < 4000


def test_the_fingerprint_holds_the_weights(guide, tmp_path):
    assert json.loads(json.dumps(guide.fingerprint())) == guide.fingerprint()
    torch.manual_seed(0)
    digest = save_scene(SceneNetwork(), tmp_path / "mine.safetensors", {"steps": 0})
    mine = load_guide(tmp_path / "mine.safetensors", device="cpu")
    assert mine.name == "mine"
    assert mine.fingerprint()["weights"] == digest
    assert mine.fingerprint() != guide.fingerprint()


def test_the_same_weights_make_the_same_file(tmp_path):
    torch.manual_seed(0)
    network = SceneNetwork()
    # safetensors orders its metadata anew in every call.
    digests = {save_scene(network, tmp_path / f"{n}.safetensors", {"steps": 0}) for n in range(6)}
    assert len(digests) == 1
    loaded, _ = load_scene(tmp_path / "0.safetensors")
    assert not loaded.training


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    good = tmp_path / "good.safetensors"
    save_scene(SceneNetwork(), good, {})
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(GuideError, match="no weights"):
        load_scene(bad)
    with pytest.raises(GuideError, match="missing"):
        load_scene(tmp_path / "none.safetensors")
    monkeypatch.setattr(guide_module, "SHIPPED", "scene.json")
    with pytest.raises(GuideError, match="not the ones that were shipped"):
        load_scene()
