"""A run that stops anywhere goes on exactly as if it had not: bit for bit on a CPU."""

import csv
import hashlib
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import CacheError, DataError, ModelError, UsageError
from mmfe_cache.images import write_png
from mmfe_cache.progress import Progress
from mmfe_restore import Restorer
from mmfe_restore.data import Schedule
from mmfe_restore.recipes import load_recipe, recipe_to_dict
from mmfe_restore.training import train
from mmfe_restore.training.checkpoints import list_checkpoints, read_checkpoint
from mmfe_restore.training.dry_run import plan_run
from mmfe_restore.training.inputs import check_trained_on
from mmfe_restore.training.run_dir import default_folder

from .conftest import STEPS
from .runs import assert_same_run, rows, weights

WORKER = Path(__file__).with_name("worker.py")


class Messages(Progress):
    text = ""

    def message(self, text):
        self.text += f"{text}\n"


class Seen(Callback):
    """Asserts something of the run's folder while it trains."""

    def __init__(self, holds):
        self.holds = holds

    def on_train_start(self, trainer, pl_module):
        assert self.holds()


class Warnings(Progress):
    told = ()

    def warn(self, text):
        self.told = (*self.told, text)


def test_stopping_after_every_step_changes_nothing(world, whole, tmp_path):
    # Mid-epoch, at epoch borders (3), at the stage border (6) and just before the end.
    for step in (1, 3, 4, 6, 7, 12):
        report = train(world.recipe(), **world.sources, out=tmp_path, stop_after=step)
        assert (report.steps, report.stopped_by, report.completed) == (step, "stop_after", False)
        assert not (tmp_path / "model").exists()
    report = train(world.recipe(), **world.sources, out=tmp_path)
    assert report.completed
    assert report.resumed_from == 12
    assert_same_run(whole, tmp_path)


def test_kill_9_inside_a_step(world, whole, tmp_path, start_forked):
    """One process dies inside an epoch, the next at the stage border; a third ends the run."""
    wanted = {
        "recipe": recipe_to_dict(world.recipe()),
        "root": str(world.root),
        "cache": str(world.cache),
        "out": str(tmp_path / "run"),
    }
    for step in (4, 6):
        killed = start_forked(WORKER, json.dumps(wanted | {"kill_at": step}))()
        assert killed.returncode == -signal.SIGKILL
        newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
        assert read_checkpoint(newest)["global_step"] == step
    report = train(world.recipe(), **world.sources, out=tmp_path / "run")
    assert report.resumed_from == 6
    assert_same_run(whole, tmp_path / "run")


def test_a_truncated_checkpoint_falls_back_to_the_one_before(world, whole, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=8)
    last, before = list_checkpoints(tmp_path / "checkpoints")
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])

    progress = Warnings()
    report = train(world.recipe(), **world.sources, out=tmp_path, progress=progress)
    assert report.resumed_from == 7
    assert any(last.name in text and "falling back" in text for text in progress.told)
    assert before.name == "step-00000007.ckpt"
    assert_same_run(whole, tmp_path)


def test_where_no_checkpoint_can_be_read_the_run_says_that_it_begins_anew(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=2)
    for path in list_checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    progress = Warnings()
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=1, progress=progress)
    assert ["falling back" in text for text in progress.told] == [True, False]
    assert "beginning anew" in progress.told[-1]


def test_a_finished_run_is_not_trained_again_where_its_checkpoints_are_damaged(
    world, whole, tmp_path
):
    out = shutil.copytree(whole, tmp_path / "run")
    for path in list_checkpoints(out / "checkpoints"):
        path.write_bytes(b"")
    before = everything(out)
    progress = Warnings()
    report = train(world.recipe(), **world.sources, out=out, progress=progress)
    assert report.completed and report.checkpoint == out / "model"
    assert everything(out) == before
    assert not any("anew" in text or "falling back" in text for text in progress.told)


def test_a_named_damaged_checkpoint_is_an_error(world, tmp_path):
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        train(world.recipe(), **world.sources, out=tmp_path / "run", resume=bad)
    assert "--resume auto" in str(caught.value)
    with pytest.raises(UsageError, match="no such checkpoint"):
        train(world.recipe(), **world.sources, out=tmp_path / "run", resume=tmp_path / "x.ckpt")


def test_a_checkpoint_of_another_network_is_refused(world, whole, tmp_path):
    other = list_checkpoints(whole / "checkpoints")[0]
    with pytest.raises(UsageError, match="another network") as caught:
        train(world.recipe("model.num_experts=2"), **world.sources, out=tmp_path, resume=other)
    assert "model.num_experts=3" in str(caught.value)


def test_a_cache_that_changed_under_the_run_is_stale(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=2)
    versions = json.loads((tmp_path / "versions.json").read_text())
    versions["cache"]["guide.name"] = "another"
    (tmp_path / "versions.json").write_text(json.dumps(versions))
    with pytest.raises(CacheError, match="not the one that this run began with") as caught:
        train(world.recipe(), **world.sources, out=tmp_path)
    assert caught.value.exit_code == 3


def test_a_cache_of_other_pixels_is_not_the_one_of_the_run(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=1)
    file = tmp_path / "versions.json"
    versions = json.loads(file.read_text())
    versions["cache"]["samples.pixels"] = "0" * 32
    file.write_text(json.dumps(versions))
    with pytest.raises(CacheError, match="not the one that this run began with") as caught:
        train(world.recipe(), **world.sources, out=tmp_path)
    assert "samples.pixels" in str(caught.value)
    del versions["cache"]["samples.pixels"]  # as an earlier version wrote it
    file.write_text(json.dumps(versions))
    assert train(world.recipe(), **world.sources, out=tmp_path, stop_after=2).resumed_from == 1
    assert len(json.loads(file.read_text())["cache"]["samples.pixels"]) == 32


def test_an_unguided_run_notices_other_data(world, tmp_path):
    unguided = (f"model.{key}=none" for key in ("encoder_guidance", "decoder_guidance", "experts"))
    recipe = world.recipe(*unguided, "model.guidance_dropout=0", "train.max_steps=3")
    out, moved, other, fewer = (tmp_path / name for name in ("run", "moved", "other", "fewer"))
    for root in (moved, other, fewer):
        shutil.copytree(world.root, root)
    for sample in load_dataset("cdd11", "train", other).samples:  # equal names, other pictures
        write_png(Path(sample.degraded.name), sample.degraded.read() // 2)
    gone = load_dataset("cdd11", "train", fewer).samples[-1].scene
    for sample in load_dataset("cdd11", "train", fewer).samples:
        if sample.scene == gone:
            Path(sample.degraded.name).unlink()
            Path(sample.clean.name).unlink(missing_ok=True)
    train(recipe, root=world.root, out=out, stop_after=1)
    before = everything(out)
    for root, what in ((other, "samples.pixels"), (fewer, "samples.ids")):
        with pytest.raises(DataError, match="not the one that this run began with") as caught:
            train(recipe, root=root, out=out)
        assert what in str(caught.value)
        assert everything(out) == before
    assert train(recipe, root=moved, out=out, stop_after=2).resumed_from == 1
    file = out / "versions.json"
    versions = json.loads(file.read_text())
    del versions["data"]  # as an earlier version wrote it
    file.write_text(json.dumps(versions))
    assert train(recipe, root=other, out=out).resumed_from == 2
    assert json.loads(file.read_text())["data"].keys() == {"samples.ids", "samples.pixels"}
    with pytest.raises(DataError):  # complete: nothing would be computed, and it is said still
        train(recipe, root=moved, out=out)
    # What `mmfe ablate` asks of a row that is trained; a set that is not there says nothing.
    for root in (other, tmp_path / "nowhere"):
        check_trained_on(recipe, root=root, cache=None, out=out)
    with pytest.raises(DataError, match="not the one"):
        check_trained_on(recipe, root=moved, cache=None, out=out)


def test_a_damaged_record_of_the_run_is_named(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=2)
    for text in ("{", "[]", '{"data": 1}'):
        (tmp_path / "versions.json").write_text(text)
        with pytest.raises(UsageError, match=r"versions\.json cannot be read"):
            train(world.recipe(), **world.sources, out=tmp_path)


def test_first_weights_are_recorded_and_others_refused_later(world, tmp_path):
    recipe, out = world.recipe("train.checkpoint_every=0"), tmp_path / "run"
    unguided = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    for number in range(2):
        torch.manual_seed(number)
        plain = Restorer(replace(recipe.model, guidance_dropout=0.0, **unguided))
        torch.save({"params": plain.state_dict()}, tmp_path / f"{number}.pth")
    one, other = tmp_path / "0.pth", tmp_path / "1.pth"

    steps = iter((2, 3, 4, 5, 6))

    def go(weights):
        step = next(steps)
        report = train(recipe, **world.sources, out=out, stop_after=step, init_from=weights)
        assert report.steps == step

    go(one)
    recorded = json.loads((out / "versions.json").read_text())["init_from"]
    assert recorded == {
        "file": str(one),
        "sha256": hashlib.sha256(one.read_bytes()).hexdigest(),
    }
    with pytest.raises(UsageError, match="did not begin with the weights"):
        go(other)
    # The same command, also once the file is gone, and without the option: all go on.
    for given in (one, None):
        go(given)
    one.unlink()
    go(one)
    assert json.loads((out / "versions.json").read_text())["init_from"] == recorded


def test_a_run_of_random_weights_refuses_others_later(world, whole):
    weights = next((whole / "checkpoints").iterdir())
    with pytest.raises(UsageError, match="did not begin with the weights"):
        train(world.recipe(), **world.sources, out=whole, init_from=weights)


def test_a_complete_run_is_left_alone(world, whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "model").iterdir()}
    recipe = (whole / "recipe.yaml").read_bytes()
    for further in ((), ("train.accumulate=2",)):
        report = train(world.recipe(*further), **world.sources, out=whole)
        assert report.completed
        assert report.images == 0
    assert (whole / "recipe.yaml").read_bytes() == recipe  # with what it was trained
    assert before == {path: path.stat().st_mtime_ns for path in (whole / "model").iterdir()}


def test_another_recipe_in_the_same_folder_is_refused(world, whole):
    with pytest.raises(UsageError, match="another recipe") as caught:
        train(world.recipe("train.learning_rate=1e-4"), **world.sources, out=whole)
    assert "train.learning_rate=0.001 (now 0.0001)" in str(caught.value)


def test_a_run_that_does_not_fit_goes_on_in_smaller_parts(world, whole, tmp_path):
    """What `out of memory in training` advises: other settings of how, and the same model."""
    progress, halves = Messages(), "train.accumulate=2"
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=5)
    going = {**world.sources, "out": tmp_path, "progress": progress}
    report = train(world.recipe(halves), **going, stop_after=8)
    assert (report.resumed_from, report.steps) == (5, 8)
    assert "train.accumulate=1 (now 2)" in progress.text
    assert load_recipe(str(tmp_path / "recipe.yaml")).train.accumulate == 2
    again = "train.activation_checkpointing=true"
    report = train(world.recipe(again), **going)
    assert (report.resumed_from, report.steps, report.completed) == (8, STEPS, True)
    assert [row["step"] for row in rows(tmp_path)] == [row["step"] for row in rows(whole)]
    for ours, theirs in zip(rows(tmp_path), rows(whole), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-3)
    ours, theirs = weights(tmp_path), weights(whole)
    # Adam makes much of little where a gradient is all rounding: so not each weight by itself.
    apart = sum(float((ours[n] - theirs[n]).square().sum()) for n in ours)
    assert apart < 1e-4 * sum(float(theirs[n].square().sum()) for n in ours)


def test_from_parts_of_a_batch_back_to_the_whole(world, whole, tmp_path):
    train(world.recipe("train.accumulate=2"), **world.sources, out=tmp_path, stop_after=5)
    train(world.recipe(), **world.sources, out=tmp_path)
    for ours, theirs in zip(rows(tmp_path), rows(whole), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-3)


def test_how_a_run_is_computed_gives_it_no_other_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFE_RUNS", str(tmp_path))
    plain = default_folder("cdd11", [])
    others = ["train.accumulate=4", "train.compile=off"]
    assert default_folder("cdd11", others) == plain
    rate = ["train.learning_rate=1e-4"]
    other = default_folder("cdd11", rate)
    assert other != plain
    assert default_folder("cdd11", [*rate, "train.accumulate=4"]) == other
    # A run that was begun when they still counted is found where it lies.
    digest = hashlib.blake2b(b"train.accumulate=4", digest_size=4).hexdigest()
    before = tmp_path / f"cdd11-{digest}"
    before.mkdir()
    (before / "recipe.yaml").touch()
    assert default_folder("cdd11", ["train.accumulate=4"]) == before


def test_without_resume_a_run_starts_anew(world, whole, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=5)
    report = train(world.recipe(), **world.sources, out=tmp_path, resume=None)
    assert report.resumed_from == 0
    assert_same_run(whole, tmp_path)


def test_a_run_that_has_made_the_steps_of_stop_after_makes_no_further_one(world, tmp_path):
    train(world.recipe(), **world.sources, out=tmp_path, stop_after=2)
    before = everything(tmp_path / "checkpoints")
    for earlier in (2, 1):
        report = train(world.recipe(), **world.sources, out=tmp_path, stop_after=earlier)
        assert (report.steps, report.stopped_by, report.completed) == (2, "stop_after", False)
        assert report.images == 0
    assert everything(tmp_path / "checkpoints") == before


def test_a_checkpoint_behind_the_end_of_the_run_is_refused(world, whole, tmp_path):
    (checkpoint, _) = list_checkpoints(whole / "checkpoints")
    shorter = world.recipe(f"train.max_steps={STEPS - 1}")
    with pytest.raises(UsageError, match="behind the end of this run") as caught:
        train(shorter, **world.sources, out=tmp_path, resume=checkpoint)
    assert f"step {STEPS}" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_what_a_callback_ends_early_is_no_complete_run(world, tmp_path):
    class EarlyStopping(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            trainer.should_stop = True

    recipe = world.recipe("train.max_steps=3")
    report = train(recipe, **world.sources, out=tmp_path, callbacks=[EarlyStopping()])
    assert (report.steps, report.completed) == (1, False)
    assert not (tmp_path / "model").exists()
    assert train(recipe, **world.sources, out=tmp_path).resumed_from == 1


def test_first_weights_beside_a_checkpoint_are_refused_in_a_new_folder(world, whole, tmp_path):
    (checkpoint, _) = list_checkpoints(whole / "checkpoints")
    weights = whole / "model" / "model.safetensors"
    both = {"out": tmp_path, "resume": checkpoint, "init_from": weights}
    for refusing in (train, plan_run):
        with pytest.raises(UsageError, match="or with those of --init-from"):
            refusing(world.recipe(), **world.sources, **both)
    assert not list(tmp_path.iterdir())


def test_going_back_to_a_step_gives_up_the_later_ones(world, tmp_path):
    recipe = world.recipe("train.max_steps=4")
    train(recipe, **world.sources, out=tmp_path, stop_after=1)
    (first,) = list_checkpoints(tmp_path / "checkpoints")
    back = first.rename(tmp_path / "back.ckpt")
    train(recipe, **world.sources, out=tmp_path)
    told = Messages()
    train(recipe, **world.sources, out=tmp_path, resume=back, stop_after=2, progress=told)
    assert "removed the checkpoints after step 1: step-00000004.ckpt" in told.text
    kept = [path.name for path in list_checkpoints(tmp_path / "checkpoints")]
    assert kept == ["step-00000002.ckpt"]
    assert train(recipe, **world.sources, out=tmp_path).resumed_from == 2


def test_a_checkpoint_carried_into_another_folder_is_optimised_as_told_there(world, tmp_path):
    rate, betas, steps = 1e-5, (0.5, 0.9), 4
    begun = world.recipe(f"train.max_steps={steps}")
    train(begun, **world.sources, out=tmp_path / "first", stop_after=2)
    (*_, checkpoint) = sorted(list_checkpoints(tmp_path / "first" / "checkpoints"))
    seen = []

    class Look(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            (group,) = optimizer.param_groups
            seen.append((group["lr"], tuple(group["betas"])))

    other = world.recipe(
        f"train.max_steps={steps}", f"train.learning_rate={rate}", f"train.betas={list(betas)}"
    )
    out = tmp_path / "other"
    train(other, **world.sources, out=out, resume=checkpoint, callbacks=[Look()])
    cosine = Schedule(other, world.samples()).learning_rate
    assert seen == [(rate * cosine(step), betas) for step in (2, 3)]
    assert [float(row["learning_rate"]) for row in rows(out)] == [lr for lr, _ in seen]


def test_a_checkpoint_carried_into_another_folder_gets_a_best_model_there(world, tmp_path):
    recipe = world.recipe(
        "data.validation_scenes=1", "data.validation_every=1", "train.max_steps=3"
    )
    first, other, carried = tmp_path / "first", tmp_path / "other", tmp_path / "carried.ckpt"
    train(recipe, **world.sources, out=first, stop_after=1)
    (step,) = list_checkpoints(first / "checkpoints")
    state = read_checkpoint(step)
    (scores,) = [s for s in state["callbacks"].values() if isinstance(s, dict) and "best" in s]
    scores["best"] = 99.0  # of a run that was better than what comes now
    torch.save(state, carried)
    train(recipe, **world.sources, out=other, resume=carried)
    assert (other / "best" / "config.json").exists()
    with (other / "validation.csv").open() as stream:
        averages = [r["psnr"] for r in csv.DictReader(stream) if r["label"] == "average"]
    kept = read_checkpoint(list_checkpoints(other / "checkpoints")[0])["callbacks"]
    (best,) = [s["best"] for s in kept.values() if isinstance(s, dict) and "best" in s]
    assert best == pytest.approx(max(map(float, averages)), abs=1e-3)
    # In its own folder the best model is there, and only a better one replaces it.
    before = everything(first / "best")
    train(recipe, **world.sources, out=first, resume=carried)
    assert everything(first / "best") == before


def test_reports_go_with_the_model_that_they_judge(world, tmp_path):
    out = tmp_path / "run"
    train(world.recipe("train.max_steps=1"), **world.sources, out=out)
    judge(out)
    (out / "eval" / "notes").mkdir()
    told = Messages()
    recipe = world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=out, resume=None, progress=told)
    assert not list(out.glob("eval*/cdd11-test"))
    assert (out / "eval" / "notes").is_dir()
    assert f"removed the reports of the run before: {out / 'eval' / 'cdd11-test'}" in told.text


def judge(out):
    for folder in ("eval/cdd11-test", "eval-at-whole-32/cdd11-test"):
        (out / folder).mkdir(parents=True)
        (out / folder / "metrics.json").write_text("{}")


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_step_back_of_a_finished_run_gives_up_its_model_and_its_reports(world, tmp_path):
    out, recipe = tmp_path / "run", world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=out)
    judge(out)
    back, told = out / "checkpoints" / "step-00000001.ckpt", Messages()
    train(
        world.recipe("train.max_steps=2", "train.accumulate=2", "train.checkpoint_every=3600"),
        **world.sources,
        out=out,
        resume=back,
        progress=told,
        callbacks=[Seen(lambda: not (out / "model").exists() and not list(out.glob("eval*/*")))],
    )
    for name in ("eval/cdd11-test", "eval-at-whole-32/cdd11-test", "model"):
        assert str(out / name) in told.text
    assert (out / "model" / "config.json").exists()
    # What it was trained with is said and recorded, as docs/training.md has it.
    assert "train.accumulate=1 (now 2)" in told.text
    assert load_recipe(str(out / "recipe.yaml")).train.accumulate == 2


def test_what_is_refused_costs_a_finished_run_nothing(world, tmp_path):
    out, recipe = tmp_path / "run", world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=out)
    judge(out)
    other = tmp_path / "other.pth"
    torch.save({"params": {"patch_embed.proj.weight": torch.zeros(2)}}, other)
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"")
    back = out / "checkpoints" / "step-00000001.ckpt"
    before = everything(out)
    for wanted in (
        {"resume": bad},
        {"resume": back, "init_from": other},  # not the weights that it began with
        {"resume": None, "init_from": other},
        {"resume": None, "init_from": tmp_path / "none.pth"},
    ):
        with pytest.raises((UsageError, ModelError)):
            train(recipe, **world.sources, out=out, **wanted)
        assert everything(out) == before


def test_a_complete_run_is_left_alone_also_without_its_checkpoints(world, tmp_path, monkeypatch):
    recipe = world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=tmp_path)

    def files():
        return {
            path: path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and path.parent.name != "checkpoints"
        }

    before = files()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)  # another machine
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for _ in range(2):
        report = train(recipe, **world.sources, out=tmp_path)
        assert (report.steps, report.resumed_from, report.completed) == (2, 2, True)
        assert files() == before
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)


def test_a_run_that_ended_before_its_model_was_written_gets_the_averaged_weights(world, tmp_path):
    recipe = world.recipe("train.max_steps=3", "train.ema_decay=0.8")
    train(recipe, **world.sources, out=tmp_path)
    wanted = weights(tmp_path)
    shutil.rmtree(tmp_path / "model")
    report = train(recipe, **world.sources, out=tmp_path)
    assert (report.resumed_from, report.completed) == (3, True)
    found = weights(tmp_path)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "override", ["train.ema_decay=0.8", "train.accumulate=2", "train.num_workers=2"]
)
def test_resume_is_exact_with(world, tmp_path, override):
    # A step before the border of the stages, and two behind it.
    recipe = world.recipe(
        override,
        "train.stages=[{epochs: 1, resolution: 16, batch_size: 4},"
        " {epochs: 1, resolution: 32, batch_size: 2}]",
        "train.max_steps=5",
    )
    train(recipe, **world.sources, out=tmp_path / "whole")
    train(recipe, **world.sources, out=tmp_path / "cut", stop_after=2)
    train(recipe, **world.sources, out=tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
