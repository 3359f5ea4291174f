"""A student in its teacher's place: taken by a network of the teacher's, refused by any other."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmfe_cache.errors import CacheError, GuideError
from mmfe_cache.guides import load_guide
from mmfe_cache.guides.student.guide import Student, save_student
from mmfe_cache.guides.student.network import Basis, StudentNetwork
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store import open_cache
from mmfe_cli.app import run
from mmfe_restore.evaluation import evaluate
from mmfe_restore.inference import guide_for
from mmfe_restore.model import Restorer

from ...small import ArraySource, small_recipe

VIEW = "whole@64"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    draw = np.random.default_rng(0)
    found = []
    for number in range(3):
        clean = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        dark = ArraySource("dark", (clean * 0.5).astype(np.uint8))
        found.append(Sample(f"low/{number}", dark, ArraySource("clean", clean), "low", f"{number}"))
    return SampleSet("mine", "test", tmp_path_factory.mktemp("set"), "made up", tuple(found))


@pytest.fixture(scope="module")
def teacher(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.zarr"
    build_cache(samples, load_guide("scene", device="cpu"), [VIEW], path)
    return open_cache(path)


@pytest.fixture(scope="module")
def fingerprint(teacher):
    return {k: v for k, v in teacher.fingerprint.items() if k.startswith("guide.")}


@pytest.fixture(scope="module")
def student(fingerprint, tmp_path_factory):
    torch.manual_seed(1)
    bases = {
        n: Basis(torch.randn(t, 128), torch.randn(4, 128), 0.9)
        for n, t in (("image", 17), ("joint", 17), ("answer", 1))
    }
    made = Student(StudentNetwork(bases).eval(), "scene", fingerprint, (VIEW,), {})
    path = tmp_path_factory.mktemp("student") / "pupil.safetensors"
    save_student(made, path)
    return path


@pytest.fixture
def recipe():
    return small_recipe(view=VIEW)


@pytest.fixture
def network(recipe, fingerprint, tmp_path):
    """A folder as training writes it: weights, recipe, and the guide's fingerprint."""
    torch.manual_seed(0)
    Restorer(recipe.model).save_pretrained(tmp_path / "model", recipe=recipe)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "guide_fingerprint": fingerprint}), encoding="utf-8")
    return tmp_path / "model"


def test_it_is_taken_and_named(network, student):
    restorer = Restorer.from_pretrained(network)
    looking = guide_for(restorer, name=str(student), device="cpu")
    assert (looking.guide.name, looking.teacher) == ("pupil", "scene")
    assert guide_for(restorer, name="scene", device="cpu").teacher is None


def test_another_view_or_teacher_is_refused_by_name(network, student):
    restorer = Restorer.from_pretrained(network)
    with pytest.raises(GuideError, match="did not learn at the view whole@96"):
        guide_for(restorer, name=str(student), device="cpu", view="whole@96")
    restorer.guide_fingerprint = {**restorer.guide_fingerprint, "guide.weights": "others"}
    with pytest.raises(GuideError, match="student of scene, and not of the guide") as refused:
        guide_for(restorer, name=str(student), device="cpu")
    assert "weights: 'others'" in refused.value.got


def test_restore_says_whose_student_guided(network, student, tmp_path, capsys):
    Image.fromarray(np.full((40, 48, 3), 60, np.uint8)).save(tmp_path / "a.png")
    words = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--checkpoint", str(network), "--guide", str(student), "--json"]
    assert run(words) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert (report["guide"], report["teacher"]) == ("pupil", "scene")
    assert "a student of scene" in said.err


def test_its_cache_is_evaluated_in_the_teachers_place(
    network, recipe, student, samples, fingerprint, tmp_path
):
    path = tmp_path / "pupil.zarr"
    build_cache(samples, load_guide(student, device="cpu"), [VIEW, "whole@96"], path)
    restorer, cache = Restorer.from_pretrained(network), open_cache(path)
    judged = evaluate(restorer, recipe, samples, cache, checkpoint=network, device="cpu")
    assert any("pupil, a student of scene" in note for note in judged.notes)
    assert (judged.guide, judged.embeddings) == ("scene", "pupil")
    with pytest.raises(CacheError, match="did not learn at the view whole@96"):
        evaluate(
            restorer, recipe, samples, cache, checkpoint=network, device="cpu", view="whole@96"
        )
    config = json.loads((network / "config.json").read_text(encoding="utf-8"))
    config["guide_fingerprint"] = fingerprint | {"guide.tokens": "the mean alone"}
    (network / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CacheError, match="student of scene, and not of the guide") as refused:
        evaluate(restorer, recipe, samples, cache, checkpoint=network, device="cpu")
    assert "tokens: 'the mean alone'" in refused.value.got
