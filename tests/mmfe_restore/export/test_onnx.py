"""ONNX files beside the network that they were written from."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.images import read_rgb8
from mmfe_cache.images.colour_tags import make_grey_profile, make_profile
from mmfe_cache.views import View
from mmfe_restore import Restorer
from mmfe_restore.export import export_model
from mmfe_restore.export.graph import OPSET, Graph
from mmfe_restore.export.scene_graph import write_view
from mmfe_restore.inference import guide_for, restore_image
from mmfe_restore.recipes import load_recipe

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

ROOT = Path(__file__).parents[3]
P3 = make_profile((0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060), None)
SIZES = [(64, 96), (37, 53), (1, 1), (5, 1300), (640, 500)]
"""Multiples of 16, odd, a single pixel, long, and above the guide's budget of 512² pixels."""


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    return found


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks with noise on them, dark: all that the guide knows has something to see."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 120, (height // 24 + 1, width // 24 + 1, 3))
    large = np.kron(blocks, np.ones((24, 24, 1)))[:height, :width]
    return (large + random.integers(0, 30, (height, width, 3))).astype(np.uint8)


def batch(*pictures: np.ndarray) -> np.ndarray:
    return (np.stack(pictures) / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2).copy()


def by_windows(restorer: Restorer, window: int | None) -> Restorer:
    """The same weights with other windows."""
    other = deepcopy(restorer)
    other.attend_within(window)
    return other


@pytest.fixture(scope="module")
def small() -> Restorer:
    return Restorer.from_pretrained("mmfe-small")


@pytest.fixture(scope="module")
def small_file(small: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    done = export_model(small, path, source="mmfe-small")
    assert done.inputs == ("image",)
    return path


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_guide_and_network_in_one_file_equal_mmfe_restore(small, small_file, size):
    image = picture(*size)
    seen = guide_for(small).look(image)
    expected = restore_image(small, image / np.float32(255), seen, tile="off")
    found = run(small_file, image=batch(image))[0].transpose(1, 2, 0)
    assert np.abs(found - expected).max() <= 1e-4
    if min(size) > 30:
        assert np.abs(found - image / 255).max() > 0.05  # the network did something


def test_what_is_not_shrunk_is_not_multiplied_by_an_identity(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    graph = Graph()
    view = write_view(graph, "image", View("native"))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 3, "h", "w"])]
        for name in ("image", view)
    ]
    constants = [numpy_helper.from_array(a, name) for name, a in graph.constants.items()]
    whole = helper.make_graph(graph.nodes, "view", *ends, constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(whole, opset_imports=opset, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = picture(8, 3000)
    (found,) = session.run(None, {"image": batch(image)})
    steps = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    sizes = [int(step["args"].get("output_size", 0)) for step in steps if "args" in step]
    assert found.nbytes <= max(sizes) < 3000 * 3000  # bytes: not one for each pair of columns
    top = (found.shape[2] - 8) // 2
    seen = found[0, :, top : top + 8].transpose(1, 2, 0)
    np.testing.assert_allclose(seen, image / 255, atol=1e-6)


@pytest.mark.parametrize("size", [(48, 48), (1, 1), (5, 300), (64, 49), (130, 211)], ids=str)
def test_attention_by_windows_is_exported(small, size, tmp_path):
    restorer = by_windows(small, 48)
    path = tmp_path / "windows.onnx"
    export_model(restorer, path, source="mmfe-small")
    image = picture(*size)
    pixels = image / np.float32(255)
    seen = guide_for(small).look(image)
    expected = restore_image(restorer, pixels, seen, tile="off")
    found = run(path, image=batch(image))[0].transpose(1, 2, 0)
    assert np.abs(found - expected).max() <= 1e-4
    whole = restore_image(by_windows(small, None), pixels, seen, tile="off")
    assert (np.abs(whole - expected).max() > 1e-2) == (max(size) > 48)


def test_each_picture_of_a_batch_has_its_own_guidance(small_file):
    first, second = picture(40, 56), 255 - picture(40, 56, seed=1)
    both = run(small_file, image=batch(first, second))
    for index, one in enumerate((first, second)):
        np.testing.assert_allclose(both[index], run(small_file, image=batch(one))[0], atol=1e-5)


def test_a_static_file_takes_its_size_and_no_other(small, small_file, tmp_path):
    path = tmp_path / "static.onnx"
    export_model(small, path, source="mmfe-small", static=(40, 56))
    image = batch(picture(40, 56))
    np.testing.assert_allclose(run(path, image=image), run(small_file, image=image), atol=1e-5)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(path, image=batch(picture(41, 56)))


@pytest.mark.parametrize(
    "changes",
    [  # The default without a low band is in the next test.
        {"low_band": True, "guidance_dropout": 0.1},
        {"experts": "spatial", "num_heads": (1, 2, 2, 4)},
        {"experts": "none", "decoder_guidance": "none"},
    ],
    ids=str,
)
def test_a_network_of_another_guide_takes_embeddings(
    tiny: Callable[..., Restorer], tmp_path: Path, changes: dict[str, object]
):
    restorer = tiny(torch.float32, **changes)
    done = export_model(restorer, tmp_path / "r.onnx", inside="inputs")
    torch.manual_seed(1)
    given = {
        "image": torch.rand(2, 3, 33, 47),
        "e_image": torch.randn(2, 16, 12),
        "e_joint": torch.randn(2, 16, 12),
        "e_answer": torch.randn(2, 12),
    }
    asked = {name: given[name] for name in done.inputs}
    assert list(asked) == ["image", *(f"e_{name}" for name in restorer.config.reads)]
    assert "tokens" not in done.facts  # nobody says how it was trained
    restorer.recipe = load_recipe("small")
    told = export_model(restorer, tmp_path / "told.onnx", inside="inputs").facts
    assert (told["view"], told["tokens"]) == ("native", "grid")
    seen = Embeddings(given["e_image"], given["e_joint"], given["e_answer"])
    with torch.no_grad():
        expected = restorer(given["image"], seen).clamp(0, 1)
    found = run(tmp_path / "r.onnx", **{name: tensor.numpy() for name, tensor in asked.items()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_null_guidance_stands_for_a_guide(tiny: Callable[..., Restorer], tmp_path: Path):
    restorer = tiny(torch.float32, guidance_dropout=0.1)
    done = export_model(restorer, tmp_path / "r.onnx", inside="none")
    assert done.inputs == ("image",)
    image = torch.rand(2, 3, 20, 30)
    with torch.no_grad():
        expected = restorer(image).clamp(0, 1)
    found = run(tmp_path / "r.onnx", image=image.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_view_of_one_size_is_exported_too(small, tmp_path):

    other = Restorer(small.config)
    other.load_state_dict(small.state_dict())
    other.guide_fingerprint = small.guide_fingerprint
    other.recipe = replace(small.recipe, eval=replace(small.recipe.eval, view="whole@96"))
    other.eval()
    export_model(other, tmp_path / "r.onnx")
    image = picture(50, 130)
    expected = restore_image(other, image / np.float32(255), guide_for(other).look(image))
    found = run(tmp_path / "r.onnx", image=batch(image))[0].transpose(1, 2, 0)
    assert np.abs(found - expected).max() <= 1e-4

    other.recipe = replace(small.recipe, eval=replace(small.recipe.eval, view="crop@96"))
    with pytest.raises(UsageError, match="sees a crop"):
        export_model(other, tmp_path / "no.onnx")
    other.recipe = replace(small.recipe, guide=replace(small.recipe.guide, name="qwen2.5-vl-3b"))
    with pytest.raises(UsageError, match="another guide"):
        export_model(other, tmp_path / "no.onnx", inside="scene")
    assert "too large" in (export_model(other, tmp_path / "yes.onnx").note or "")
    other.recipe, other.guide_fingerprint = small.recipe, {"guide.weights": "others"}
    with pytest.raises(GuideError, match="not in the state"):
        export_model(other, tmp_path / "no.onnx")
    assert not (tmp_path / "no.onnx").exists()


def test_the_example_runs_without_torch_and_mmfe(small, small_file, tmp_path):
    image = picture(40, 56)
    Image.fromarray(image).save(tmp_path / "in.png")
    expected = restore_image(small, image, guide_for(small).look(image), tile="off")
    done = example(small_file, tmp_path / "in.png", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    found = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("profile", [False, True])
def test_the_example_reads_a_picture_as_mmfe_does(tmp_path: Path, mode: str, profile: bool):
    to_srgb = runpy.run_path(str(ROOT / "examples" / "restore_onnx.py"))["to_srgb"]
    image = picture(40, 56)
    if mode == "I;16":
        photo = Image.fromarray(image[:, :, 0].astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        photo = Image.fromarray(np.dstack([image, image[:, :, 0] * 2])).convert(mode)
    else:
        photo = Image.fromarray(image).convert(mode)
    linear = make_grey_profile(1.0) if mode in ("I;16", "L", "LA", "1") else P3
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    photo.save(path, **({"icc_profile": linear} if profile else {}))
    with Image.open(path) as opened:
        found = np.asarray(to_srgb(opened)).astype(int)
    # LittleCMS samples a linear curve coarsely in the shadows.
    assert np.abs(found - read_rgb8(path)).max() <= (6 if profile else 2)


def test_the_example_says_in_one_line_what_is_wrong(small_file, tmp_path):
    import onnx

    Image.fromarray(picture(16, 16)).save(tmp_path / "in.png")
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    model = onnx.load(small_file)
    onnx.helper.set_model_props(model, {"format": "mmfe-onnx-9", "mmfe": "9.1"})
    onnx.save(model, tmp_path / "later.onnx")
    for model_path, photo, words in (
        (small_file, tmp_path / "text.jpg", "text.jpg is no picture"),
        (small_file, tmp_path / "gone.png", "gone.png cannot be read"),
        (tmp_path / "text.onnx", tmp_path / "in.png", "text.onnx is not an ONNX file"),
        (tmp_path / "later.onnx", tmp_path / "in.png", "another version (mmfe-onnx-9, mmfe 9.1"),
    ):
        done = example(model_path, photo, tmp_path / "out.png")
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not (tmp_path / "out.png").exists()
    for out in (tmp_path / "gone" / "out.png", tmp_path / "out.xyz"):
        done = example(small_file, tmp_path / "in.png", out)
        assert done.returncode == 1
        assert f"{out} cannot be written" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not out.exists()


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {"torch", "mmfe_cache", "mmfe_restore", "onnx", "safetensors"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def example(*words: Path) -> subprocess.CompletedProcess[str]:
    """Run examples/restore_onnx.py where torch and mmfe cannot be imported."""
    program = ROOT / "examples" / "restore_onnx.py"
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(program), *map(str, words), "--threads", "1"],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
