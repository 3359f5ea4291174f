"""A run from recipe to model: what it writes, what it refuses, and what it never does."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import MmfeError, ModelError, UsageError
from mmfe_cache.progress import Progress
from mmfe_cache.store import open_cache, store_path
from mmfe_cache.store.sample_table import pixels_digest
from mmfe_restore.data import SampleGuidance, Schedule, TrainingBatches
from mmfe_restore.losses import fourier_loss, l1_loss
from mmfe_restore.model import Restorer
from mmfe_restore.model.folders import find_weights
from mmfe_restore.recipes import load_recipe, recipe_to_dict
from mmfe_restore.recipes.loading import parse_yaml
from mmfe_restore.training import plan_run, train
from mmfe_restore.training.initial_weights import holds_guided, new_restorer
from mmfe_restore.training.lightning_module import RestorationTask
from mmfe_restore.training.validation import ValidationCallback


def table(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


class Heard(Progress):
    def __init__(self):
        self.messages, self.warnings = [], []

    def message(self, text):
        self.messages.append(text)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    heard = Heard()
    recipe = world.recipe("data.validation_scenes=1", "data.validation_every=4")
    return recipe, out, train(recipe, **world.sources, out=out, progress=heard), heard


def test_the_process_gets_its_signals_back(world, tmp_path):
    # A handler of a run that has ended would keep this process, and what it forks, from ending.
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    train(world.recipe("train.max_steps=1"), **world.sources, out=tmp_path)
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(RuntimeError, match="stop"):
        train(
            world.recipe("train.max_steps=2"),
            **world.sources,
            out=tmp_path / "failed",
            callbacks=[Failing()],
        )
    assert [signal.getsignal(number) for number in numbers] == before


class Failing(Callback):
    def on_train_batch_end(self, *arguments):
        raise RuntimeError("stop")


def test_the_folder_holds_what_the_contract_says(finished):
    recipe, out, report, _ = finished
    assert report.completed
    assert report.checkpoint == out / "model"
    for name in ("recipe.yaml", "versions.json", "metrics.csv", "router.csv", "checkpoints"):
        assert (out / name).exists()
    assert {"model.safetensors", "config.json", "README.md"} <= {
        path.name for path in (out / "model").iterdir()
    }
    assert list((out / "tensorboard").glob("events.*"))
    assert not list(out.rglob("*.part*"))
    assert parse_yaml((out / "recipe.yaml").read_text())["model"]["width"] == recipe.model.width


def test_versions_name_the_seed_and_the_caches_fingerprint(finished, world):
    _, out, _, _ = finished
    versions = json.loads((out / "versions.json").read_text())
    cache = open_cache(store_path("cdd11", "train", "oracle", root=world.cache))
    seen = pixels_digest(cache.pixel_digests).hex()
    assert versions["cache"] == {**cache.fingerprint, "samples.pixels": seen}
    assert versions["packages"]["torch"]
    assert versions["seed"] == 0
    assert versions["world_size"] == 1


def test_the_model_loads_and_is_not_what_it_started_as(finished, world):
    recipe, out, _, _ = finished
    restorer = Restorer.from_pretrained(out / "model")
    assert restorer.config == recipe.model
    saved = json.loads((out / "model" / "config.json").read_text())["guide_fingerprint"]
    cache = open_cache(store_path("cdd11", "train", "oracle", root=world.cache))
    assert saved["guide.name"] == "oracle"
    assert saved.items() <= cache.fingerprint.items()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        # It starts at the identity; training moved it away. It runs without a guide as well.
        assert not torch.equal(restorer.eval()(image), image)


def test_the_guide_is_called_0_times_and_it_says_so(finished):
    _, _, report, heard = finished
    assert report.guide_calls == 0
    assert "guide called 0 times" in heard.messages[-1]


BARE_MACHINE = """
import importlib.metadata, json, pathlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers", "timm", "qwen_vl_utils"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
version = importlib.metadata.version

def without(name):
    if name == "transformers":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = without
from mmfe_restore.recipes import load_recipe, recipe_to_dict
from mmfe_restore.training import plan_run, train

folder, root, cache = map(pathlib.Path, sys.argv[1:])
report = train(load_recipe(folder / "r.yaml"), root=root, cache=cache, out=folder / "run")
assert report.completed
light = {"", ".base", ".fingerprints", ".lineage", ".registry", ".timm_models"}
loaded = {m.removeprefix("mmfe_cache.guides") for m in sys.modules if "mmfe_cache.guides" in m}
assert loaded <= light, loaded
"""


def test_a_training_machine_needs_no_transformers_and_loads_no_guide(world, tmp_path):
    values = recipe_to_dict(world.recipe("train.max_steps=1"))
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    paths = map(str, (tmp_path, world.root, world.cache))
    # A fresh process: torchmetrics imports transformers where it can, so a forked one has it.
    done = subprocess.run(
        [sys.executable, "-c", BARE_MACHINE, *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_metrics_follow_the_schedule(finished):
    recipe, out, report, _ = finished
    rows = table(out / "metrics.csv")
    # 12 draws once a scene is held out: 3 + 3 steps of 4, then 6 of 2.
    assert [row["resolution"] for row in rows] == ["16"] * 6 + ["32"] * 6
    assert [float(row["epoch"]) for row in rows[:3]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert float(rows[0]["learning_rate"]) == recipe.train.learning_rate
    assert float(rows[-1]["learning_rate"]) < recipe.train.learning_rate / 20
    for row in rows:
        total = float(row["l1"]) + 0.1 * float(row["fourier"]) + 0.1 * float(row["mgl"])
        assert float(row["loss"]) == pytest.approx(total, rel=1e-5)
        assert float(row["images_per_second"]) > 0
        assert 0 <= float(row["data_wait"]) <= 1
    assert report.images == 6 * 4 + 6 * 2


def test_adam_runs_at_the_rate_that_the_schedule_says(world, tmp_path):
    class Record(Callback):
        def __init__(self):
            self.rates = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            assert type(optimizer) is torch.optim.Adam
            assert optimizer.defaults["betas"] == (0.9, 0.999)
            assert optimizer.defaults["weight_decay"] == 0
            self.rates.append(optimizer.param_groups[0]["lr"])

    record = Record()
    recipe = world.recipe("train.accumulate=2")
    train(recipe, **world.sources, out=tmp_path, callbacks=[record])
    logged = [float(row["learning_rate"]) for row in table(tmp_path / "metrics.csv")]
    # 15 draws: 2 epochs of 3 steps and 1 of 7, one cosine over the 3 epochs.
    epochs = [step / 3 for step in range(6)] + [2 + step / 7 for step in range(7)]
    expected = [1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / 3)) for epoch in epochs]
    assert record.rates == pytest.approx(expected, rel=1e-12)
    assert logged == pytest.approx(expected, rel=1e-12)


def test_a_finished_run_is_complete_where_the_model_is_not_seen_yet(world, tmp_path, monkeypatch):
    # On another node the folder that rank 0 wrote may appear late.
    monkeypatch.setattr("mmfe_restore.training.run_dir.write_model", lambda *arguments: None)
    assert train(world.recipe("train.max_steps=1"), **world.sources, out=tmp_path).completed


@pytest.mark.parametrize("name", ["model", "best"])
@pytest.mark.parametrize("resume", ["auto", None])
def test_what_somebody_else_keeps_in_the_folder_is_not_replaced(world, tmp_path, name, resume):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(world.recipe("train.max_steps=1"), **world.sources, out=tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "thesis.txt").exists()


def test_routing_is_logged_for_every_site(finished):
    recipe, out, _, _ = finished
    rows = table(out / "router.csv")
    sites = {row["site"] for row in rows}
    assert sites == set(Restorer(recipe.model).mofe)
    assert len(rows) == 12 * len(sites)
    for row in rows:
        experts = [float(row[f"expert_{i}"]) for i in range(recipe.model.num_experts)]
        assert all(0 < value < 1 for value in experts)
        assert float(row["mean"]) == pytest.approx(np.mean(experts), rel=1e-5)


def test_a_validation_that_is_nan_does_not_end_the_search_for_the_best(world, tmp_path):
    validation = ValidationCallback(world.recipe(), (), None, tmp_path, None, fingerprint=None)
    elsewhere = SimpleNamespace(is_global_zero=False)
    for psnr, best in ((20.0, 20.0), (float("nan"), 20.0), (19.0, 20.0), (21.0, 21.0)):
        validation._keep(elsewhere, None, 1, {"low": (psnr, 1)})
        assert validation.best == best
    fresh = ValidationCallback(world.recipe(), (), None, tmp_path, None, fingerprint=None)
    for psnr in (float("nan"), 19.0):
        fresh._keep(elsewhere, None, 1, {"low": (psnr, 1)})
    assert fresh.best == 19.0


def test_validation_holds_a_scene_out_and_keeps_the_best(finished, world):
    _, out, report, _ = finished
    rows = table(out / "validation.csv")
    assert [int(r["step"]) for r in rows if r["label"] == "average"] == [4, 8, 12]
    assert {r["label"] for r in rows} == {"average", "low", "haze", "low_haze"}
    last = [float(r["psnr"]) for r in rows if r["step"] == "12" and r["label"] != "average"]
    assert report.validation == pytest.approx(np.mean(last))
    assert Restorer.from_pretrained(out / "best").config.width == 4


def test_lambda_0_equals_a_loss_without_the_term(world):
    recipe = world.recipe("loss.mgl=0")
    samples = load_dataset("cdd11", "train", world.root).samples
    schedule = Schedule(recipe, samples)
    cache = open_cache(store_path("cdd11", "train", "oracle", root=world.cache))
    guidance = SampleGuidance(cache, [s.id for s in samples], arrays=recipe.model.reads)
    batch = next(iter(TrainingBatches(recipe, samples, schedule, guidance)))
    torch.manual_seed(0)
    restorer = Restorer(replace(recipe.model, identity_start=False))
    loss = RestorationTask(restorer, recipe, schedule).training_step(batch, 0)

    def restored_loss(batch):
        degraded, clean = batch.degraded.float() / 255, batch.clean.float() / 255
        restored = restorer(degraded, batch.embeddings, batch.keep)
        return l1_loss(restored, clean) + 0.1 * fourier_loss(restored, clean)

    assert torch.equal(loss, restored_loss(batch))
    with_term = RestorationTask(restorer, world.recipe(), schedule)
    batches = TrainingBatches(world.recipe(), samples, schedule, guidance)
    batch = next(batch for batch in batches if batch.answers_keep.sum() > 1)
    expected = restored_loss(batch)
    assert float(with_term.training_step(batch, 0).detach()) > float(expected.detach())


def test_ema_is_the_recurrence_over_the_steps(world, tmp_path):
    class Record(Callback):
        def __init__(self):
            self.average = None

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            now = {k: v.clone() for k, v in pl_module.restorer.state_dict().items()}
            if self.average is None:
                self.average = now
            else:
                self.average = {k: 0.8 * self.average[k] + 0.2 * v for k, v in now.items()}

    record = Record()
    recipe = world.recipe("train.ema_decay=0.8", "train.max_steps=5")
    train(recipe, **world.sources, out=tmp_path, callbacks=[record])
    saved = Restorer.from_pretrained(tmp_path / "model").state_dict()
    for name, value in record.average.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-7)


def test_an_unguided_baseline_needs_no_cache(world, tmp_path):
    recipe = world.recipe(
        "model.encoder_guidance=none", "model.decoder_guidance=none", "model.experts=none",
        "model.guidance_dropout=0", "train.max_steps=2",
    )  # fmt: skip
    report = train(recipe, root=world.root, cache=tmp_path / "nothing", out=tmp_path / "run")
    assert report.completed
    assert not (tmp_path / "run" / "router.csv").exists()


def test_restormers_weights_start_the_backbone(world, tmp_path):
    unguided = [f"model.{key}=none" for key in ("encoder_guidance", "decoder_guidance", "experts")]
    plain = Restorer(world.recipe(*unguided, "model.guidance_dropout=0").model)
    torch.save({"params": plain.state_dict()}, tmp_path / "restormer.pth")
    recipe = world.recipe("train.max_steps=1", "train.learning_rate=1e-9")
    train(recipe, **world.sources, out=tmp_path / "run", init_from=tmp_path / "restormer.pth")
    trained = Restorer.from_pretrained(tmp_path / "run" / "model").state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("control", ["shuffled", "constant"])
def test_the_controls_train(world, tmp_path, control):
    recipe = world.recipe(f"guide.control={control}", "train.max_steps=2")
    assert train(recipe, **world.sources, out=tmp_path).completed


@pytest.mark.parametrize("precision", ["32", "tf32"])
def test_products_are_in_true_float32_unless_the_recipe_says_tf32(world, tmp_path, precision):
    seen = []

    class Look(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            allowed = torch.backends.cuda.matmul, torch.backends.cudnn
            seen.append([one.allow_tf32 for one in allowed])

    recipe = world.recipe(f"train.precision={precision}", "train.max_steps=1")
    train(recipe, **world.sources, out=tmp_path, callbacks=[Look()])
    assert seen == [[precision == "tf32"] * 2]


@pytest.mark.parametrize("emulated", [True, False])
def test_a_run_in_emulated_bfloat16_is_told_of_float32(world, tmp_path, monkeypatch, emulated):
    module = sys.modules["mmfe_restore.training.train"]  # the package has its function by that name
    monkeypatch.setattr(module, "emulates_bf16", lambda: emulated)
    for precision in ("bf16", "32"):
        progress = Heard()
        recipe = world.recipe(f"train.precision={precision}", "train.max_steps=1")
        train(recipe, **world.sources, out=tmp_path / precision, progress=progress)
        advised = any("--set train.precision=32" in text for text in progress.warnings)
        assert advised == (emulated and precision == "bf16")


def test_out_of_memory_says_what_to_do(world, tmp_path):
    class Exhausted(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            # More than any machine has: the allocator itself refuses.
            torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(MmfeError, match="out of memory") as caught:
        train(world.recipe(), **world.sources, out=tmp_path, callbacks=[Exhausted()])
    told = str(caught.value)
    assert "stage 1: 4 crops of 16²" in told
    assert "--set train.accumulate=2 (2 crops at once" in told
    assert "train.activation_checkpointing=true" in told


def test_other_runtime_errors_stay_what_they_are(world, tmp_path):
    class Broken(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train(world.recipe(), **world.sources, out=tmp_path, callbacks=[Broken()])


def test_a_plan_counts_what_a_run_does(world, finished):
    recipe, _, report, _ = finished
    plan = plan_run(recipe, **world.sources)
    assert (plan.steps, plan.images, plan.held_out) == (report.total_steps, report.images, 3)
    assert [stage.views for stage in plan.stages] == [("whole@16",), ("whole@32",)]
    assert plan.problem is None
    assert plan.to_json()["exit_code"] == 0
    # 15 draws: two epochs of 3 steps of 4, then one of 7 steps of 2.
    for most, steps in ((5, [5, 0]), (8, [6, 2])):
        plan = plan_run(world.recipe(f"train.max_steps={most}"), **world.sources)
        assert [stage.steps for stage in plan.stages] == steps
        assert plan.images == 4 * steps[0] + 2 * steps[1]


def test_a_step_of_an_unfinished_run_starts_another(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path / "first", stop_after=1)
    (step,) = (tmp_path / "first" / "checkpoints").glob("*.ckpt")
    saved = torch.load(step, weights_only=True)["state_dict"]
    recipe = world.recipe("train.max_steps=2", "train.seed=5")
    assert holds_guided(step)
    started = new_restorer(recipe, find_weights(step))
    for name, value in started.state_dict().items():
        assert torch.equal(value, saved[f"restorer.{name}"])
    assert train(recipe, **world.sources, out=tmp_path / "second", init_from=step).completed


def test_a_run_and_a_shipped_network_start_another(world, tmp_path):
    first = world.recipe("train.max_steps=1")
    train(first, **world.sources, out=tmp_path / "first")
    still = world.recipe("train.max_steps=1", "train.learning_rate=1e-9", "train.seed=5")
    train(still, **world.sources, out=tmp_path / "second", init_from=tmp_path / "first")
    states = [
        Restorer.from_pretrained(tmp_path / name / "model").state_dict()
        for name in ("first", "second")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-7)
    with pytest.raises(ModelError, match="another network"):
        train(still, **world.sources, out=tmp_path / "third", init_from=Path("mmfe-small"))
    with pytest.raises(UsageError, match="no weights to start from"):
        train(still, **world.sources, out=tmp_path / "third", init_from=tmp_path / "nothing")
    started = new_restorer(load_recipe("small"), find_weights(Path("mmfe-small")))
    shipped = Restorer.from_pretrained("mmfe-small").state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in started.state_dict().items())
