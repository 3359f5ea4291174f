"""Students: what they learn, how they go on, and whose place they may take."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from mmfe_cache.degradations import degrade
from mmfe_cache.errors import CacheError, DataError, GuideError, UsageError
from mmfe_cache.guides import find_guide, load_guide
from mmfe_cache.guides.lineage import stands_in
from mmfe_cache.guides.scene.training import average_from_now
from mmfe_cache.guides.student.agreement import (
    compare,
    measure_agreement,
    measure_student,
    rank_correlation,
)
from mmfe_cache.guides.student.data import split_scenes
from mmfe_cache.guides.student.network import MAX_PARAMETERS, Basis, StudentNetwork, make_basis
from mmfe_cache.guides.student.training import (
    Settings,
    distill,
    extract_features,
    state_path,
)
from mmfe_cache.parsing import flatten
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store import open_cache

VIEWS = ("whole@64", "crop@64#1", "native")
QUICK = Settings(steps=6, hold_out=0.3)
BRIEF = Settings(steps=1)


class Source:
    def __init__(self, name, pixels):
        self.name, self.pixels = name, pixels

    def size(self):
        return self.pixels.shape[:2]

    def read(self):
        return self.pixels

    def read_crop(self, top, left, height, width):
        return self.pixels[top : top + height, left : left + width]


def make_samples(root):
    """Five scenes of two sizes, each in four classes."""
    draw = np.random.default_rng(0)
    found = []
    for scene in range(5):
        height, width = (72, 96) if scene % 2 else (96, 72)
        coarse = draw.integers(20, 236, (height // 24, width // 24, 3))
        clean = np.kron(coarse, np.ones((24, 24, 1))).astype(np.uint8)
        for label in ("low", "haze", "rain", "low_haze"):
            image = degrade(clean, label, seed_parts=("student", scene)).image
            name = f"{label}/{scene}"
            found.append(Sample(name, Source(name, image), Source("c", clean), label, str(scene)))
    return SampleSet("mine", "train", root, "made up", tuple(sorted(found, key=lambda s: s.id)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_samples(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def cache(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "scene.zarr"
    build_cache(samples, load_guide("scene", device="cpu"), VIEWS, path)
    return open_cache(path)


@pytest.fixture(scope="module")
def student(cache, samples, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "mine.safetensors"
    return out, distill(cache, samples, out, QUICK)


def test_it_is_a_guide_that_names_its_teacher(student, cache):
    out, done = student
    guide = load_guide(out, device="cpu")
    assert (find_guide(out).kind, guide.dim, guide.name) == ("student", 128, "mine")
    assert guide.teacher == "scene"
    assert set(guide.views) == set(VIEWS)
    teacher = guide.fingerprint()["teacher"]
    assert teacher["name"] == "scene"
    mine = {k: v for k, v in cache.fingerprint.items() if k.startswith("guide.")}
    assert teacher["fingerprint"] == mine
    assert guide.fingerprint()["weights"] == done.sha256
    assert guide.parameter_count == done.facts["parameters"] <= MAX_PARAMETERS
    assert guide.facts["held_out_scenes"] == done.facts["held_out_scenes"]
    assert len(done.facts["held_out_scenes"]) == 2
    assert not state_path(out).exists()


def test_it_learns_in_true_float32(cache, samples, tmp_path, monkeypatch):
    seen, numbers = [], StudentNetwork.numbers
    allowed = torch.backends.cuda.matmul, torch.backends.cudnn

    def watched(self, *arguments):
        seen.append([one.allow_tf32 for one in allowed])
        return numbers(self, *arguments)

    monkeypatch.setattr(StudentNetwork, "numbers", watched)
    distill(cache, samples, tmp_path / "s.safetensors", Settings(steps=1, hold_out=0))
    # Of the step, and of the norms' averages, which float32 convolutions make.
    assert len(seen) > 1
    assert all(one == [False, False] for one in seen)


def test_a_few_steps_come_nearer_to_the_teacher_than_its_mean(cache, samples, tmp_path):
    # With the teacher's own eyes to begin with, this is what the heads learn.
    done = distill(cache, samples, tmp_path / "s.safetensors", Settings(steps=30, hold_out=0.2))
    average = done.agreement.average
    assert average["answer"]["r2"] > 0.5
    assert average["similarities"] > 0.5
    assert average["image"]["r2"] > 0.2


def test_agreement_is_what_numpy_says(student, cache, samples):
    guide = load_guide(student[0], device="cpu")
    found = measure_agreement(guide, cache, samples.samples, ["whole@64"])
    from mmfe_cache.views import View

    look = View.parse("whole@64")
    mine = guide.encode([look.render(s.degraded.read()) for s in samples]).joint.double().numpy()
    truth = cache.gather(np.arange(len(samples)), "whole@64", tokens="all").joint.double().numpy()
    mean = truth.mean(axis=0)
    r2 = 1 - ((mine - truth) ** 2).sum() / ((truth - mean) ** 2).sum()
    assert found.views["whole@64"]["joint"].r2 == pytest.approx(r2, abs=1e-6)


def test_a_student_is_measured_on_what_it_did_not_learn_from(student, cache, samples, tmp_path):
    guide = load_guide(student[0], device="cpu")
    found, learnt_here = measure_student(guide, cache, samples.samples)
    assert learnt_here
    assert found == student[1].agreement  # as distilling measured it, on the photographs set aside
    aside = [s for s in samples if s.scene in student[1].facts["held_out_scenes"]]
    assert found.samples == len(aside) < len(samples)
    # Its teacher's cache of the same photographs, built anew with other shards.
    build_cache(samples, load_guide("scene", device="cpu"), VIEWS, tmp_path / "a.zarr",
                shard_samples=4)  # fmt: skip
    again = open_cache(tmp_path / "a.zarr")
    assert again.metadata.id != cache.metadata.id
    assert measure_student(guide, again, samples.samples)[1]
    guide.facts = {**guide.facts, "cache": "another", "split": "test"}
    found, learnt_here = measure_student(guide, cache, samples.samples)
    assert (found.samples, learnt_here) == (len(samples), False)
    other = [replace(s, degraded=Source(s.id, s.degraded.read() // 2)) for s in samples]
    with pytest.raises(CacheError, match="built from other pixels"):
        measure_student(guide, cache, other)
    guide.views = ("whole@512",)
    with pytest.raises(CacheError, match="no view that the student learnt"):
        measure_student(guide, cache, samples.samples)
    guide.teacher_fingerprint = {**guide.teacher_fingerprint, "guide.weights": "0"}
    with pytest.raises(GuideError, match="student of scene"):
        measure_student(guide, cache, samples.samples)


def test_figures_of_agreement_on_known_vectors():
    draw = np.random.default_rng(2)
    truth = draw.normal(size=(9, 5)) + 3
    same = compare(truth, truth)
    assert (same.r2, same.cosine, same.cosine_centred) == pytest.approx((1, 1, 1))
    means = compare(np.broadcast_to(truth.mean(axis=0), truth.shape), truth)
    assert means.r2 == pytest.approx(0)
    assert means.cosine > 0.8  # what is common to all counts here, and not below
    assert means.cosine_centred == pytest.approx(0)
    other = draw.normal(size=(9, 5)) + 1
    pairs = np.triu_indices(9, k=1)

    def similarities(x):
        return np.array(
            [x[i] @ x[j] / np.sqrt(x[i] @ x[i] * (x[j] @ x[j])) for i, j in np.transpose(pairs)]
        )

    expected = spearmanr(similarities(other), similarities(truth)).statistic
    assert rank_correlation(other, truth) == pytest.approx(expected)
    assert np.isnan(rank_correlation(np.ones((9, 5)), truth))


@pytest.mark.parametrize("samples_count", [6, 400])
def test_a_basis_holds_the_stated_share_of_the_variance(samples_count):
    draw = torch.Generator().manual_seed(0)
    spread = 0.7 ** torch.arange(30.0)
    vectors = torch.randn(samples_count, 3, 30, generator=draw, dtype=torch.float64) * spread
    vectors += 5 * torch.randn(1, 3, 30, generator=draw)  # each token has a mean of its own
    basis = make_basis(vectors, 0.95, 99)
    centred = (vectors - vectors.mean(dim=0)).flatten(0, 1)
    unit = basis.axes.double() / basis.axes.double().norm(dim=1, keepdim=True)
    held = ((centred @ unit.T) ** 2).sum() / (centred**2).sum()
    assert held == pytest.approx(basis.share, abs=1e-5)
    assert held >= 0.95
    fewer = make_basis(vectors, 0.95, basis.rank - 1)
    assert fewer.share < 0.95
    numbers = centred @ unit.T / basis.axes.double().norm(dim=1)
    assert numbers.square().mean(dim=0).numpy() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dim", [64, 4096])
def test_the_network_stays_small_whatever_the_teachers_width(dim):
    bases = {
        name: Basis(torch.zeros(tokens, dim), torch.zeros(min(dim, 512), dim), 1.0)
        for name, tokens in (("image", 17), ("joint", 17), ("answer", 1))
    }
    with torch.device("meta"):
        network = StudentNetwork(bases)
    assert network.parameter_count <= MAX_PARAMETERS


@pytest.mark.parametrize("sizes", [[(64, 64)] * 6, [(64 + 2 * i, 74 - 2 * i) for i in range(6)]])
def test_features_in_training_are_those_in_use_whatever_the_sizes(sizes):
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    tokens = {"image": 17, "joint": 17, "answer": 1}
    network = StudentNetwork(
        {name: Basis(torch.zeros(t, 8), torch.ones(2, 8), 1.0) for name, t in tokens.items()}
    ).train()
    average_from_now(network)
    lights = np.linspace(20, 255, len(sizes))
    pictures = [
        (draw.random((*size, 3)) * light).astype(np.uint8)
        for size, light in zip(sizes, lights, strict=True)
    ]
    with torch.no_grad():
        learnt, _ = extract_features(network, pictures, torch.device("cpu"))
        used, _ = extract_features(network.eval(), pictures, torch.device("cpu"))
    maps = slice(0, 2 * (48 + 96 + 128))  # of the trunk: what follows is not normalised
    far = (learnt - used)[:, maps].square().mean().sqrt()
    assert far < 0.2 * used[:, maps].std(dim=0).mean()


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_student import make_samples, open_cache, distill, QUICK
out = Path(sys.argv[3])
distill(open_cache(sys.argv[2]), make_samples(out.parent), out, QUICK, save_every=0)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(cache, samples, student, tmp_path):
    out = tmp_path / "mine.safetensors"
    here = Path(__file__).parent
    child = subprocess.Popen([sys.executable, "-c", CHILD, here, str(cache.path), str(out)])
    try:
        while not state_path(out).exists():
            assert child.poll() is None
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not out.exists()
    done = distill(cache, samples, out, QUICK)
    assert 0 < done.resumed < QUICK.steps
    assert done.sha256 == student[1].sha256
    assert not state_path(out).exists()


def test_a_finished_student_is_not_trained_again_and_another_file_not_replaced(
    cache, samples, student, tmp_path
):
    out, first = student
    before = out.stat().st_mtime_ns
    done = distill(cache, samples, out, QUICK)
    assert (done.sha256, done.facts) == (first.sha256, first.facts)
    assert (done.resumed, out.stat().st_mtime_ns) == (QUICK.steps, before)
    with pytest.raises(UsageError, match="not the student that this command trains") as refused:
        distill(cache, samples, out, replace(QUICK, steps=7))
    assert refused.value.got == f"steps: {QUICK.steps}"
    assert out.stat().st_mtime_ns == before
    (tmp_path / "scene.safetensors").write_bytes(b"a guide of another kind")
    with pytest.raises(UsageError, match="not the student"):
        distill(cache, samples, tmp_path / "scene.safetensors", QUICK)


def test_the_state_of_another_run_or_a_damaged_one_is_not_gone_on_with(cache, samples, tmp_path):
    out = tmp_path / "s.safetensors"

    class StoppedError(Exception):
        pass

    class Stops:
        def __init__(self):
            from mmfe_cache.progress import Progress

            self._silent = Progress()
            self.message = self.warn = self._silent.message

        def task(self, title, total, unit="samples", done=0):
            if title.startswith("comparing"):
                raise StoppedError
            return self._silent.task(title, total, unit, done)

    with pytest.raises(StoppedError):
        distill(cache, samples, out, QUICK, save_every=0, progress=Stops())
    assert state_path(out).exists()
    with pytest.raises(UsageError, match="another distillation") as other:
        distill(cache, samples, out, Settings(steps=7, hold_out=0.3))
    assert "steps: 6" in other.value.got and "steps: 7" in other.value.expected
    fewer = replace(samples, samples=samples.samples[:-1])  # as before a repair took one in
    with pytest.raises(UsageError, match="another distillation") as other:
        distill(cache, fewer, out, QUICK)
    assert other.value.got.startswith("learnt: ") and "steps" not in other.value.got
    state_path(out).write_bytes(state_path(out).read_bytes()[:-5])
    with pytest.raises(UsageError, match="damaged"):
        distill(cache, samples, out, QUICK)


def test_of_photographs_with_one_picture_each_enough_are_set_aside(cache, samples, tmp_path):
    few = [replace(s, scene=s.id) for s in samples.samples[:12]]
    learnt, aside, scenes = split_scenes(few, 0.1, 0)
    assert (len(learnt), len(aside), len(scenes)) == (10, 2, 2)
    done = distill(cache, replace(samples, samples=tuple(few)), tmp_path / "s.safetensors", BRIEF)
    assert done.agreement.samples == 2
    with pytest.raises(DataError, match="too few photographs"):
        split_scenes(few[:3], 0.1, 0)


def test_teachers_and_sets_that_will_not_do_are_refused(cache, samples, student, tmp_path):
    truth = [Sample(s.id, s.degraded, s.clean, s.label, s.scene, {"low": 0.5}) for s in samples]
    known = SampleSet("mine", "train", samples.root, "made up", tuple(truth))
    build_cache(known, load_guide("oracle"), ["whole@64"], tmp_path / "oracle.zarr")
    build_cache(samples, load_guide(student[0], device="cpu"), ["whole@64"], tmp_path / "s.zarr")
    out = tmp_path / "out.safetensors"
    for name, said in (("oracle.zarr", "recorded severities"), ("s.zarr", "a student itself")):
        with pytest.raises(GuideError, match="no teacher") as refused:
            distill(open_cache(tmp_path / name), samples, out, QUICK)
        assert said in refused.value.got
    swapped = [
        Sample(s.id, t.degraded, s.clean, s.label, s.scene)
        for s, t in zip(samples.samples, reversed(samples.samples), strict=True)
    ]
    with pytest.raises(CacheError, match="other pixels"):
        distill(cache, SampleSet("mine", "train", samples.root, "x", tuple(swapped)), out, QUICK)
    one = [s for s in samples if s.scene == "0"]
    with pytest.raises(DataError, match="too few photographs"):
        split_scenes(one, QUICK.hold_out, QUICK.seed)
    assert not out.exists()


def test_it_takes_the_place_of_its_teacher_and_of_no_other(student, cache):
    guide = load_guide(student[0], device="cpu")
    wanted = {k: v for k, v in cache.fingerprint.items() if k.startswith("guide.")}
    here = flatten({"guide": json.loads(json.dumps(guide.fingerprint()))})

    def stands_in_for(teacher, view="native"):
        return stands_in(guide.name, here, teacher, view).teacher == guide.teacher

    assert stands_in_for(wanted)
    assert stands_in_for(wanted | {"guide.dtype": "bfloat16"})  # precision alone may differ
    for key, value in (("guide.weights", "other"), ("guide.tokens", "mean"), ("guide.prompt", "x")):
        with pytest.raises(GuideError, match="student of scene") as refused:
            stands_in_for(wanted | {key: value})
        assert key.removeprefix("guide.") in refused.value.got
    assert stands_in_for(wanted, "crop@64#3")  # which of the fixed crops is all the same
    with pytest.raises(GuideError, match="did not learn at the view whole@224") as refused:
        stands_in_for(wanted, "whole@224")
    assert "whole@64" in refused.value.expected


def test_files_that_are_no_student_are_refused(student, tmp_path):
    out = student[0]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(out.read_bytes()[:3000])
    tensors = load_file(out)
    del tensors["cells.0.weight"]
    short = tmp_path / "short.safetensors"
    about = {"format": "mmfe-student", "dim": "128", "teacher": "t", "fingerprint": "{}"}
    save_file(tensors, short, about | {"views": "[]", "facts": "{}"})
    for path in (broken, short):
        with pytest.raises(GuideError):
            load_guide(path, device="cpu")


def test_its_description_is_json(student):
    about = json.loads(json.dumps(load_guide(student[0], device="cpu").describe()))
    assert about["teacher"] == "scene"
    assert "agreement" in about["facts"]
