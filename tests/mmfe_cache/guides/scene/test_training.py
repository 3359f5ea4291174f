"""Training `scene`: seeded to the bit, on the right truth, and it learns."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

from mmfe_cache.datasets.photographs import photographs_below
from mmfe_cache.degradations import COMPOSITIONS, KINDS
from mmfe_cache.degradations.light import NOISE
from mmfe_cache.errors import DataError
from mmfe_cache.guides.pooling import pool_grid
from mmfe_cache.guides.scene import data, training
from mmfe_cache.guides.scene.data import (
    clean_statistics,
    compose,
    render,
    stream,
    training_batches,
)
from mmfe_cache.guides.scene.network import DIM, LOCAL, TRAITS, SceneNetwork
from mmfe_cache.guides.scene.training import (
    COMMON,
    LOCAL_SCALE,
    losses,
    recompute_norm_statistics,
    split_photos,
    train_scene,
)
from mmfe_cache.images import write_png


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six smooth synthetic photographs."""
    made = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(6):
        coarse = draw.integers(30, 226, (6, 9, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((180, 120), Image.Resampling.BICUBIC)
        (made / f"{number % 2}").mkdir(exist_ok=True)
        picture.save(made / f"{number % 2}" / f"{number}.png")
    return made


def files(folder):
    return [photo.path for photo in photographs_below(folder)]


def test_photographs_are_found_in_subfolders_and_split_once_and_for_all(folder):
    (folder / "folder.png").mkdir()
    photos = photographs_below(folder)
    assert [photo.path for photo in photos] == sorted(folder.rglob("?.png"))
    first, aside = split_photos(photos, 2)
    assert len(first) == 4
    assert len(aside) == 2
    assert not set(first) & set(aside)
    assert split_photos(photos, 2) == (first, aside)


def test_one_photograph_in_two_formats_is_on_one_side_of_the_split(folder, tmp_path):
    """A camera's JPEG and what was made of it; two views of one scene likewise."""
    picture = Image.open(folder / "0" / "0.png")
    for name in ("IMG_1", "IMG_2", "IMG_3", "IMG_4_left", "IMG_4_right"):
        for ending in ("jpg", "png"):
            picture.save(tmp_path / f"{name}.{ending}")
    for count in (1, 2, 3, 5):
        learnt, aside = split_photos(photographs_below(tmp_path), count)
        assert len(aside) >= count
        shown = [{photo.path.stem[:5] for photo in part} for part in (learnt, aside)]
        assert not shown[0] & shown[1]
    assert split_photos(photographs_below(tmp_path), 0)[1] == []
    with pytest.raises(DataError, match="too few") as refused:
        split_photos(photographs_below(tmp_path), 9)
    assert refused.value.got == "10 photographs of 4 scenes"


def test_a_folder_without_photographs_is_a_data_error(tmp_path, folder):
    with pytest.raises(DataError, match="no such folder"):
        photographs_below(tmp_path / "gone")
    with pytest.raises(DataError, match="no photographs"):
        photographs_below(tmp_path)
    with pytest.raises(DataError, match="too few"):
        split_photos(photographs_below(folder), 6)


def test_truth_is_what_was_applied(folder):
    clean = np.full((80, 90, 3), 120, np.uint8)
    for name in COMPOSITIONS:
        made = compose(clean, name, seed_parts=(1,), uniform=False)
        held = np.array([kind in name.split("_") for kind in KINDS])
        np.testing.assert_array_equal(made.present, held)
        assert (made.severities[held] >= 0.49).all()
        assert (made.severities[~held] == 0).all()
        assert not np.array_equal(made.degraded, clean)
    clear = compose(clean, "clear", seed_parts=(1,), uniform=True)
    np.testing.assert_array_equal(clear.degraded, clean)
    assert not clear.present.any()


def test_uniform_severities_cover_weak_ones(folder):
    clean = np.full((64, 64, 3), 120, np.uint8)
    drawn = [compose(clean, "haze", seed_parts=(i,), uniform=True).severities[1] for i in range(60)]
    assert min(drawn) < 0.2
    assert max(drawn) > 0.8


def test_pictures_depend_on_their_number_alone(folder):
    photos = files(folder)
    first, again = render(photos[0], 0, 5), render(photos[0], 0, 5)
    np.testing.assert_array_equal(first.degraded, again.degraded)
    alone, helped = stream(photos, 3, 0), stream(photos, 3, 1)
    for _ in range(4):
        a, b = next(alone), next(helped)
        np.testing.assert_array_equal(a.degraded, b.degraded)
        assert a.composition == b.composition
    alone.close()
    helped.close()


def test_batches_hold_one_size_and_true_statistics(folder):
    for batch in training_batches(files(folder), 0, 3, 0):
        count, _, side, _ = batch.degraded.shape
        assert batch.clean.shape == (count, 6, side // 16, side // 16)
        assert batch.severities.shape == batch.present.shape == (count, 4)
        assert ((batch.severities > 0) <= batch.present).all()
        airlight, noise, luminance = batch.traits.unbind(dim=1)
        assert torch.equal(~airlight.isnan(), batch.present[:, KINDS.index("haze")])
        assert torch.equal(~noise.isnan(), batch.present[:, KINDS.index("low")])
        known = batch.traits[~batch.traits.isnan()]
        assert ((known >= 0) & (known <= 1)).all()
        torch.testing.assert_close(luminance, batch.clean[:, :3].mean(dim=(1, 2, 3)))


def test_clean_statistics_are_mean_and_spread():
    picture = torch.rand(2, 3, 32, 48)
    found = clean_statistics(picture)
    cell = picture[1, 2, 16:32, 32:48]
    assert found[1, 2, 1, 2] == pytest.approx(cell.mean().item(), abs=1e-5)
    assert found[1, 5, 1, 2] == pytest.approx(2 * cell.std(correction=0).item(), abs=1e-4)


def test_perfect_answers_cost_less_than_wrong_ones(folder):
    network = SceneNetwork().eval()
    batch = next(training_batches(files(folder), 1, 1, 0))
    with torch.no_grad():
        output = network(batch.degraded)
    right = {
        "labels": (batch.present.float() - 0.5) * 20,
        "severities": batch.severities,
        "traits": batch.traits,
        "clean": batch.clean,
    }
    wrong = {
        "labels": -right["labels"],
        "severities": 1 - batch.severities,
        "traits": 1 - batch.traits,
        "clean": -batch.clean,
    }
    good, bad = (losses(replace(output, **said), batch) for said in (right, wrong))
    for name in right:
        assert good[name].isfinite()
        assert good[name] < bad[name]


def test_training_learns_and_is_the_same_twice(folder):
    settings = {"steps": 4, "seed": 4, "hold_out": 1, "workers": 0}
    threads, seen = torch.get_num_threads(), set()
    torch.set_num_threads(1)
    allowed = torch.backends.cuda.matmul, torch.backends.cudnn
    hook = register_module_forward_hook(lambda *_: seen.update(b.allow_tf32 for b in allowed))
    try:
        first = train_scene(folder, **settings)
        again = train_scene(folder, **settings)
    finally:
        torch.set_num_threads(threads)
        hook.remove()
    assert seen == {False}
    ours, theirs = first.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.pictures > 4 * 12
    assert len(first.held_out) == 1
    fresh = SceneNetwork()
    batch = next(training_batches([photo.path for photo in first.photos], 9, 1, 0, part=0))
    recompute_norm_statistics(fresh, [batch.degraded])
    with torch.no_grad():
        trained = losses(first.network(batch.degraded), batch)
        untrained = losses(fresh(batch.degraded), batch)
    assert trained["clean"] < untrained["clean"]


def test_settling_scales_pooled_tokens_and_keeps_the_heads(folder, monkeypatch):
    torch.manual_seed(0)
    network = SceneNetwork()
    batches = training_batches(files(folder), 0, 6, 0, part=0)
    pictures = [batch.degraded for batch in batches]
    same, plain = deepcopy(network), deepcopy(network)
    recompute_norm_statistics(network, pictures)
    assert not network.training
    with torch.no_grad():
        output = network(pictures[-1])
    for found in (output.image, output.joint):
        tokens = pool_grid(found.permute(0, 2, 3, 1))[:, 1:].flatten(0, 1)
        assert tokens.std(dim=0).median() == pytest.approx(LOCAL_SCALE, rel=0.1)
        assert tokens.mean(dim=0).abs().median() < 0.1 * LOCAL_SCALE
    recompute_norm_statistics(same, pictures)
    ours, theirs = network.state_dict(), same.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # What it says of a picture depends neither on the scale nor on the common part.
    monkeypatch.setattr(training, "LOCAL_SCALE", 1.0)
    monkeypatch.setattr(training, "COMMON", 0.0)
    recompute_norm_statistics(plain, pictures)
    with torch.no_grad():
        before = plain(pictures[-1])
    for name in ("labels", "severities", "traits", "clean"):
        torch.testing.assert_close(
            getattr(output, name), getattr(before, name), rtol=1e-3, atol=1e-4
        )
    torch.testing.assert_close(output.answer, before.answer + COMMON, rtol=1e-3, atol=1e-4)


def test_every_token_says_what_the_picture_suffers_from_and_what_its_cells_show():
    torch.manual_seed(0)
    network = SceneNetwork().eval()
    pictures = torch.rand(60, 3, 64, 128)  # each token of equally many cells
    with torch.no_grad():
        output = network(pictures)
    severe = replace(
        output,
        labels=torch.full((60, len(KINDS)), 20.0),
        severities=torch.rand(60, len(KINDS)),
        traits=torch.rand(60, len(TRAITS)),
    )
    truth = torch.cat([severe.severities, severe.traits], dim=1).double()
    truth -= truth.mean(0)
    for tokens, own in zip(network.tokens(severe), (output.image, output.joint), strict=True):
        assert tokens.shape == (60, 17, DIM)
        torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1), rtol=0, atol=1e-5)
        features = tokens[:, 7].double() - tokens[:, 7].double().mean(0)
        left = truth - features @ torch.linalg.lstsq(features, truth).solution
        assert left.square().sum() < 1e-3 * truth.square().sum()
        # The same severities in all pictures: what is left is the cells' own.
        same = replace(
            severe,
            severities=torch.full((60, len(KINDS)), 0.5),
            traits=torch.full((60, len(TRAITS)), 0.5),
        )
        index = 0 if own is output.image else 1
        rest = network.tokens(same)[index]
        pooled = pool_grid(own.permute(0, 2, 3, 1))
        torch.testing.assert_close(
            rest[:, :, :LOCAL] - rest[:1, :, :LOCAL],
            pooled - pooled[:1],
            rtol=0,
            atol=1e-5,
        )
        assert (rest[:, 3, LOCAL:] - rest[:, 4, LOCAL:]).abs().mean() > 0.3


@pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (1.0, 0.41)])
def test_noise_fades_where_a_picture_shrinks_after_it_was_degraded(
    share, left, tmp_path, monkeypatch
):
    # An even grey, so that all that varies is noise. Pillow's antialiased bicubic at half size
    # averages it to 0.41 of its standard deviation; its severities and traits stay what they were.
    write_png(tmp_path / "grey.png", np.full((300, 400, 3), 160, np.uint8))
    monkeypatch.setattr(data, "LARGE_SHARE", 0.0)
    monkeypatch.setattr(data, "SHRUNK_SHARE", share)
    monkeypatch.setattr(data, "SHRINKING", (2.0, 2.0 + 1e-9))
    monkeypatch.setattr(data, "LONG_SIDES", (300, 300 + 1e-9))
    made = [data.render(tmp_path / "grey.png", 0, number) for number in range(120)]
    assert all(one.degraded.shape == one.clean.shape for one in made)
    assert {max(one.degraded.shape) for one in made} == {300}
    noisy = [one for one in made if one.composition == "low" and one.traits[1] > 0.3]
    assert len(noisy) >= 3
    for one in noisy:
        deviation = one.degraded.std(axis=(0, 1)).mean() / 255
        assert deviation / (one.traits[1] * NOISE[1]) == pytest.approx(left, abs=0.06)


@pytest.mark.parametrize(("wanted", "long_side"), [(700, 700), (1080, 900)])
def test_a_large_picture_is_enlarged_before_it_suffers_and_by_2_25_at_most(
    wanted, long_side, tmp_path, monkeypatch
):
    write_png(tmp_path / "grey.png", np.full((300, 400, 3), 160, np.uint8))
    monkeypatch.setattr(data, "LARGE_SHARE", 1.0)
    monkeypatch.setattr(data, "LARGE_SIDES", (wanted, wanted + 1e-9))
    made = [data.render(tmp_path / "grey.png", 0, number) for number in range(60)]
    assert {one.degraded.shape for one in made} == {(long_side * 3 // 4, long_side, 3)}
    # Noise that was enlarged with the picture would have lost much of its deviation.
    noisy = [one for one in made if one.composition == "low" and one.traits[1] > 0.3]
    assert len(noisy) >= 1
    for one in noisy:
        deviation = one.degraded.std(axis=(0, 1)).mean() / 255
        assert deviation / (one.traits[1] * NOISE[1]) == pytest.approx(1.0, abs=0.06)


def test_a_quarter_of_the_pictures_is_large_and_a_quarter_clear(tmp_path):
    write_png(tmp_path / "grey.png", np.full((300, 400, 3), 160, np.uint8))
    made = [data.render(tmp_path / "grey.png", 0, number) for number in range(240)]
    large = np.mean([max(one.degraded.shape) > 600 for one in made])
    clear = np.mean([one.composition == "clear" for one in made])
    assert large == pytest.approx(0.25, abs=0.08) and clear == pytest.approx(0.25, abs=0.08)
