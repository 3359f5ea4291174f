"""What every guide must do. Add a guide to `GUIDES` below, and it is held to all of it."""

import json
import pickle

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import ARRAY_NAMES, DEFAULT_PROMPT
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides import find_guide, load_guide
from mmfe_cache.guides.base import Guide, guide_calls
from mmfe_cache.guides.toy import make_tiny
from mmfe_cache.guides.toy_families import FAMILY_TOYS
from mmfe_cache.samples import Sample

GUIDES = (
    *("toy qwen", "toy fastvlm", *(f"toy {kind}" for kind in FAMILY_TOYS)),
    *("timm", "scene", "prompt", "student", "oracle"),
)


@pytest.fixture(scope="module", params=GUIDES)
def named(request, tmp_path_factory):
    """What `load_guide` is given."""
    kind = request.param.removeprefix("toy ")
    if kind in FAMILY_TOYS:
        return make_tiny(tmp_path_factory.mktemp("toys") / kind, kind=kind)
    if request.param.startswith("toy"):
        return request.getfixturevalue(request.param.replace("toy ", "tiny_"))
    if request.param in {"timm", "student"}:
        return request.getfixturevalue({"timm": "encoder"}.get(request.param, request.param))
    return request.param


@pytest.fixture(scope="module")
def guide(named):
    return load_guide(named, device="cpu")


@pytest.fixture
def inputs(guide, pictures):
    """Seven inputs of the kind that the guide reads, no two alike."""
    if guide.reads == "pixels":
        return pictures
    severities = [{"low": 0.1 * k, "rain": 0.9 - 0.1 * k} for k in range(7)]
    return [Sample(f"x/{k}", None, None, "x", "s", s) for k, s in enumerate(severities)]


def encode(guide, inputs):
    return guide.encode(inputs) if guide.reads == "pixels" else guide.encode_samples(inputs)


class TestEveryGuide:
    def test_it_is_what_the_registry_says(self, guide, named):
        info = find_guide(named)
        assert isinstance(guide, Guide)
        assert (guide.name, guide.dim, guide.reads) == (info.name, info.dim, info.reads)

    def test_seventeen_finite_tokens_on_the_cpu(self, guide, inputs):
        found = encode(guide, inputs)
        shapes = {name: tuple(tensor.shape) for name, tensor in found.present().items()}
        tokens = (7, 17, guide.dim)
        assert shapes == {"image": tokens, "joint": tokens, "answer": (7, guide.dim)}
        for tensor in found.present().values():
            assert tensor.dtype == torch.float32
            assert tensor.device.type == "cpu"
            assert torch.isfinite(tensor.half()).all()  # as the store keeps it
            assert not tensor.requires_grad

    def test_a_sample_does_not_depend_on_its_batch(self, guide, inputs):
        together, alone = encode(guide, inputs), [encode(guide, [item]) for item in inputs]
        for name in ARRAY_NAMES:
            expected = torch.cat([getattr(one, name) for one in alone])
            found = getattr(together, name)
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

    def test_it_tells_inputs_apart_and_repeats_itself(self, guide, inputs):
        snaps = guide.fingerprint()["guide"] == "prompt"  # to a class and nothing more
        if snaps:  # seven undamaged pictures may be of one class
            inputs = [*inputs, *(picture // 5 for picture in inputs)]
        first, again = encode(guide, inputs), encode(guide, inputs)
        for name in ARRAY_NAMES:
            rows = getattr(first, name).flatten(1)
            assert torch.equal(rows, getattr(again, name).flatten(1))
            if snaps:
                classes = len(set(guide.classify(inputs)))
                assert 1 < len(rows.unique(dim=0)) == classes
            else:
                assert torch.pdist(rows).min() > 0

    def test_calls_are_counted(self, guide, inputs):
        before, everywhere = guide.calls, guide_calls()
        encode(guide, inputs[:3])
        assert (guide.calls - before, guide_calls() - everywhere) == (3, 3)

    def test_its_fingerprint_is_plain_json_and_lasts(self, guide, named):
        text = json.dumps(guide.fingerprint(), sort_keys=True)
        other = load_guide(named, device="cpu")
        assert json.dumps(other.fingerprint(), sort_keys=True) == text
        assert guide.fingerprint()["guide"] == find_guide(named).kind
        assert guide.fingerprint()["dtype"] == "float32"

    def test_a_prompt_is_in_the_fingerprint_or_refused(self, guide, named):
        if not guide.takes_prompt:
            with pytest.raises(UsageError, match="takes no prompt"):
                load_guide(named, device="cpu", prompt="Is it dark?")
            return
        assert guide.fingerprint()["prompt"] == DEFAULT_PROMPT
        asked = load_guide(named, device="cpu", prompt="Is it dark?")
        differing = {k for k, v in asked.fingerprint().items() if guide.fingerprint()[k] != v}
        assert differing == {"prompt"}

    def test_it_describes_itself(self, guide, named):
        about = json.loads(json.dumps(guide.describe()))
        assert {"name", "kind", "dim", "licence", "weights"} <= set(about)
        assert (about["kind"], about["dim"]) == (find_guide(named).kind, guide.dim)

    def test_what_it_does_not_read_is_refused(self, guide, pictures):
        sample = Sample("x/0", None, None, "x", "s", {"low": 1.0})
        wrong = guide.encode_samples if guide.reads == "pixels" else guide.encode
        with pytest.raises(GuideError):
            wrong([sample] if guide.reads == "pixels" else pictures)

    def test_no_class_of_transformers_is_named_by_the_registry(self, named):
        module, _, name = find_guide(named).implementation.partition(":")
        assert module.startswith("mmfe_cache.guides.")
        assert name.endswith("Guide")


class TestEveryGuideThatSeesPictures:
    @pytest.fixture(autouse=True)
    def _sees(self, guide):
        if guide.reads != "pixels":
            pytest.skip(f"{guide.name} sees no picture")

    def test_a_copy_for_workers_prepares_the_same_and_encodes_nothing(self, guide, pictures):
        copy = pickle.loads(pickle.dumps(guide))
        for picture in pictures:
            assert np.array_equal(copy.prepare(picture), guide.prepare(picture))
        with pytest.raises(GuideError, match="only prepares"):
            copy.encode(pictures)

    def test_prepared_pictures_encode_to_the_same(self, guide, pictures):
        found = guide.encode_prepared([guide.prepare(picture) for picture in pictures])
        for name, tensor in guide.encode(pictures).present().items():
            assert torch.equal(tensor, getattr(found, name))

    def test_preparing_leaves_the_picture_as_it_was(self, guide, pictures):
        before = [picture.copy() for picture in pictures]
        guide.encode(pictures)
        assert all(np.array_equal(a, b) for a, b in zip(before, pictures, strict=True))

    def test_no_pictures_give_no_rows(self, guide):
        shapes = [tuple(t.shape) for t in guide.encode([]).present().values()]
        assert shapes == [(0, 17, guide.dim), (0, 17, guide.dim), (0, guide.dim)]

    @pytest.mark.parametrize(
        "wrong",
        [
            np.zeros((8, 8), np.uint8),
            np.zeros((8, 8, 4), np.uint8),
            np.zeros((8, 8, 3), np.float32),
            np.zeros((0, 8, 3), np.uint8),
            "a path",
        ],
        ids=["grey", "alpha", "float", "empty", "text"],
    )
    def test_what_is_no_picture_is_refused(self, guide, wrong):
        with pytest.raises(GuideError, match="RGB"):
            guide.encode([wrong])

    def test_an_unknown_device_is_refused(self, named):
        with pytest.raises(UsageError, match="device"):
            load_guide(named, device="abacus")


def test_every_kind_of_guide_in_the_registry_is_held_to_it():
    from mmfe_cache.guides import FAMILIES, GUIDES as REGISTERED

    kinds = {"toy qwen": "qwen2.5-vl", "toy fastvlm": "fastvlm"}
    kinds |= {f"toy {kind}": "image-text" for kind in FAMILY_TOYS}
    assert set(FAMILIES) == {kinds.get(g, g) for g in GUIDES}
    assert {info.kind for info in REGISTERED.values()} <= set(FAMILIES)
