"""Vision encoders of timm: the embeddings are what timm's own model gives, pooled as we say."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data

from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides import find_guide, guide_dim, load_guide
from mmfe_cache.guides.timm_models import TimmName
from mmfe_cache.store import store_path

TOLERANCE = 1e-4


def moments(raster_hwC, slow):
    """(17, 2C) mean and spread over the picture and over 4×4 cells, in float64."""
    mean, square = (slow.raster(x) for x in (raster_hwC, raster_hwC**2))
    return np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1)


def read_slowly(network, picture_HWC, mean, spread, slow, *, channels_last=False):
    """(17, D) by timm's network as it comes, one picture, pooled in NumPy."""
    pixels = (picture_HWC / 255.0 - np.array(mean)) / np.array(spread)
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        stages = [stage[0] for stage in network.double()(given)]
    maps = [(x if channels_last else x.permute(1, 2, 0)).numpy() for x in stages]
    parts = [moments(stage, slow) for stage in maps]
    return np.concatenate([p / np.sqrt((p[0] ** 2).mean()) for p in parts], axis=1)


def unit(tokens):
    middle = tokens.mean(axis=-1, keepdims=True)
    return (tokens - middle) / np.sqrt(tokens.var(axis=-1, keepdims=True) + 1e-5)


def random_features(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(model, features_only=True).eval()


@pytest.fixture(scope="module")
def photographs():
    cat, rocket = data.chelsea(), data.rocket()
    return [cat[:128, :128], rocket[:64, 200:296], cat[100:228, 200:328]]


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0", "resnet10t"])
def test_equals_timms_own_network_read_slowly(model, photographs, slow):
    guide = load_guide(f"timm:{model}", weights="random", device="cpu")
    found = guide.encode(photographs)
    config = timm.get_pretrained_cfg(model)
    network = random_features(model)
    truth = np.stack([read_slowly(network, x, config.mean, config.std, slow) for x in photographs])
    assert slow.distance(found.image, truth) < TOLERANCE
    assert slow.distance(found.joint, unit(truth)) < TOLERANCE
    assert slow.distance(found.answer, truth[:, 0]) < TOLERANCE
    assert truth[:, 0].std(axis=0).max() > 0.01  # it does react to its picture


def test_the_last_stage_alone_is_the_models_own_grid(photographs, slow):
    guide = load_guide("timm:resnet10t,pool=last", weights="random", device="cpu")
    network = random_features("resnet10t").double()
    config = timm.get_pretrained_cfg("resnet10t")
    for picture in photographs:
        pixels = (picture / 255.0 - np.array(config.mean)) / np.array(config.std)
        with torch.no_grad():
            last = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])[-1][0]
        found = guide.encode([picture])
        assert slow.distance(found.image[0], slow.raster(last.permute(1, 2, 0).numpy())) < TOLERANCE
    assert guide.dim == 512
    assert guide.fingerprint()["pooling"].startswith("last stage")


@pytest.mark.parametrize(
    ("model", "dim", "channels_last"),
    [
        ("vit_tiny_patch16_224", 2 * 3 * 192, False),  # tokens in a grid, pictures of one size
        ("swin_tiny_patch4_window7_224", 2 * (96 + 192 + 384 + 768), True),
    ],
)
def test_transformers_see_the_picture_at_their_own_size(
    model, dim, channels_last, photographs, slow
):
    guide = load_guide(f"timm:{model}", weights="random", device="cpu")
    assert guide.dim == guide_dim(f"timm:{model}") == dim
    seen = guide.prepare(photographs[1])
    assert seen.shape == (224, 224, 3)
    found = guide.encode([photographs[0], photographs[1]])
    assert found.image.shape == (2, 17, dim)
    config, network = timm.get_pretrained_cfg(model), random_features(model)
    truth = read_slowly(network, seen, config.mean, config.std, slow, channels_last=channels_last)
    assert slow.distance(found.image[1], truth) < TOLERANCE


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_map_with_as_many_rows_as_channels_is_read_the_right_way(channels_last, slow):
    guide = load_guide("timm:resnet10t", weights="random", device="cpu")
    cube = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    guide._network = lambda _pictures: [cube]
    guide._encoder = replace(guide._encoder, channels=(8,), channels_last=channels_last)
    found = guide.encode([np.zeros((64, 64, 3), np.uint8)])
    raster = cube[0] if channels_last else cube[0].permute(1, 2, 0)
    truth = moments(raster.double().numpy(), slow)
    truth /= np.sqrt((truth[0] ** 2).mean())
    assert slow.distance(found.image[0], truth) < TOLERANCE


def test_real_weights_know_a_cat_and_are_the_same_by_name_or_in_order(lite0_weights, tmp_path):
    guide = load_guide("timm:tf_efficientnet_lite0", weights=lite0_weights, device="cpu")
    tensors = torch.load(lite0_weights, weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0").eval()
    named = dict(zip(full.state_dict(), tensors.values(), strict=True))
    assert not named.keys() & tensors.keys()
    full.load_state_dict(named)
    cat = torch.from_numpy(data.chelsea()[30:254, 100:324]).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert 281 <= int(full(cat / 127.5 - 1).argmax()) <= 285  # ImageNet's cats
    save_file({k: v.contiguous() for k, v in named.items()}, tmp_path / "named.safetensors")
    again = load_guide(
        "timm:tf_efficientnet_lite0", weights=tmp_path / "named.safetensors", device="cpu"
    )
    assert again.fingerprint() == guide.fingerprint()
    picture = data.chelsea()[30:158, 100:228]
    assert torch.equal(again.encode([picture]).answer, guide.encode([picture]).answer)


def test_published_weights_come_from_the_local_hub_cache_only(tmp_path, monkeypatch):
    with pytest.raises(GuideError, match="not on this machine") as missing:
        load_guide("timm:resnet10t", device="cpu")
    assert missing.value.remedy.startswith("hf download timm/resnet10t.c3_in1k")
    cached = tmp_path / "model.safetensors"
    torch.manual_seed(5)
    save_file(timm.create_model("resnet10t").state_dict(), cached)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, name: str(cached) if (repository, name) == (
            "timm/resnet10t.c3_in1k", "model.safetensors"
        ) else None,
    )  # fmt: skip
    guide = load_guide("timm:resnet10t", device="cpu")
    random = load_guide("timm:resnet10t", weights="random", device="cpu")
    assert guide.fingerprint()["weights"] != random.fingerprint()["weights"]
    differing = {k for k, v in guide.fingerprint().items() if random.fingerprint()[k] != v}
    assert differing == {"weights"}


@pytest.mark.parametrize("how", ["text", "other model", "one tensor less", "no tensors"])
def test_what_is_no_weights_of_the_model_is_refused(how, tmp_path):
    path = tmp_path / "x.pth"
    if how == "text":
        path.write_text("no weights")
    elif how == "no tensors":
        torch.save({"epoch": 3}, path)
    else:
        state = timm.create_model("resnet14t" if how == "other model" else "resnet10t").state_dict()
        if how == "one tensor less":
            del state["layer4.0.bn2.weight"]
        torch.save(state, path)
    with pytest.raises(GuideError, match="no weights of timm's resnet10t") as refused:
        load_guide("timm:resnet10t", weights=path, device="cpu")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet9000", "no such model"),
        ("timm:resnet18.nobody", "that tag"),
        ("timm:", "no name of a timm encoder"),
        ("timm:resnet18,pool=max", "no name of a timm encoder"),
        ("timm:resnet18,crop=3", "no name of a timm encoder"),
    ],
)
def test_names_that_mean_nothing_are_usage_errors(name, said):
    with pytest.raises(UsageError, match=said):
        find_guide(name)


def test_weights_belong_to_encoders_alone_and_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="timm encoders only"):
        load_guide("scene", weights=tmp_path / "x.pth", device="cpu")
    with pytest.raises(UsageError, match="timm encoders only"):
        load_guide("timm:resnet10t,weights=random", weights="random", device="cpu")
    with pytest.raises(GuideError, match="are not there"):
        load_guide("timm:resnet10t", weights=tmp_path / "x.pth", device="cpu")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(GuideError, match="an extra") as missing:
        load_guide("timm:resnet14t", weights="random", device="cpu")
    assert "[timm]" in missing.value.remedy


def test_names_are_taken_apart_and_caches_called_after_them(tmp_path):
    name = TimmName.parse("timm:a.b,pool=last,weights=/x/y,z=1.pth")
    assert name == TimmName("a.b", "last", "/x/y,z=1.pth")
    assert name.plain == "timm:a.b,pool=last"
    weights = tmp_path / "w,1.pth"
    weights.write_bytes(b"one")
    plain = store_path("cdd11", "test", "timm:a.b").name
    mine = store_path("cdd11", "test", f"timm:a.b,weights={weights}").name
    shutil.copy(weights, tmp_path / "w2.pth")
    assert plain == "timm-a.b.zarr"
    assert mine.startswith("timm-a.b-") and mine != plain
    assert store_path("cdd11", "test", f"timm:a.b,weights={tmp_path / 'w2.pth'}").name == mine
    weights.write_bytes(b"two")
    assert store_path("cdd11", "test", f"timm:a.b,weights={weights}").name != mine
    assert store_path("c", "test", "timm:a,weights=random").name == "timm-a-weights-random.zarr"


def test_how_a_picture_is_shrunk_is_part_of_the_fingerprint(monkeypatch):
    tags = ("resnet18.a1_in1k", "resnet18.fb_ssl_yfcc100m_ft_in1k")
    bicubic, bilinear = (load_guide(f"timm:{tag}", weights="random", device="cpu") for tag in tags)
    assert "interpolation" not in bicubic.fingerprint()  # as before there was another
    assert bilinear.fingerprint() == bicubic.fingerprint() | {"interpolation": "bilinear"}
    monkeypatch.setattr("mmfe_cache.guides.timm_encoder.MAX_PIXELS", 48 * 48)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    first, second = (guide.encode([picture]).answer for guide in (bicubic, bilinear))
    assert not torch.allclose(first, second)
