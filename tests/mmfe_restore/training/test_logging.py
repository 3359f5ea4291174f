"""What a training says while it runs: rate, loss, when it ends, on how many threads."""

import hashlib
import json
import os
from types import SimpleNamespace

import pytest
import torch

from mmfe_cache.progress import Progress
from mmfe_restore.data import Schedule
from mmfe_restore.training import loggers, train
from mmfe_restore.training.run_dir import claim, clear


class Told(Progress):
    def __init__(self):
        self.messages, self.said, self.opened = [], [], []

    def task(self, title, total, unit="samples", done=0):
        self.opened.append((title, total, unit, done))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def advance(self, amount=1):
        pass

    def describe(self, text, seconds_left=None):
        self.said.append((text, seconds_left))

    def message(self, text):
        self.messages.append(text)


def test_every_logged_step_is_said_with_loss_rate_and_time_left(world, tmp_path):
    told = Told()
    train(world.recipe("train.max_steps=3"), **world.sources, out=tmp_path, progress=told)
    assert told.opened == [("training", 3, "steps", 0)]
    assert len(told.said) == 3
    assert all(text.startswith("loss ") and text.endswith(" images/s") for text, _ in told.said)
    lefts = [left for _, left in told.said]
    assert lefts[0] is None and lefts[1] > 0 and lefts[2] == 0
    assert not any("run ends" in text for text in told.messages)


def test_after_a_minute_a_run_says_when_it_ends(world, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "ESTIMATE_AFTER", 0.0)
    told = Told()
    train(world.recipe("train.max_steps=3"), **world.sources, out=tmp_path, progress=told)
    ends = [text for text in told.messages if text.startswith("at this rate the run ends on")]
    assert len(ends) == 1
    assert "step 2 of 3 now" in ends[0]


def test_a_folder_that_is_begun_anew_is_another_run_at_wandb(world, tmp_path, monkeypatch):
    class Logger(SimpleNamespace):
        def log_hyperparams(self, values):
            pass

    monkeypatch.setattr(loggers, "WandbLogger", Logger)
    recipe, out = world.recipe(), tmp_path / "run"

    def name(folder):
        claim(folder, recipe)
        return loggers.loggers(recipe, folder, 0, "project")[-1].id

    first = name(out)
    assert name(out) == first
    assert name(tmp_path / "other") != first
    moved = out.rename(tmp_path / "moved")
    assert name(moved) == first
    clear(moved)
    assert name(moved) != first
    (moved / "wandb.id").unlink()  # as an earlier version began it
    before = hashlib.blake2b(str(moved.resolve()).encode(), digest_size=8).hexdigest()
    assert name(moved) == before


def test_time_left_counts_pixels_and_not_steps(world):
    recipe = world.recipe()  # 6 steps of 4 crops of 16², then 7 of 2 of 32²
    samples = world.samples()
    schedule = Schedule(recipe, samples)
    assert schedule.steps == 13
    assert schedule.pixels(0, 6) == 6 * 4 * 256
    assert schedule.pixels(4, 8) == 2 * 4 * 256 + 2 * 2 * 1024
    assert schedule.pixels(13, 13) == 0


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_resumed_run_takes_the_threads_that_it_began_with(world, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    recipe = world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=tmp_path, stop_after=1)
    assert json.loads((tmp_path / "versions.json").read_text())["threads"] == 1
    torch.set_num_threads(2)
    told = Told()
    train(recipe, **world.sources, out=tmp_path, progress=told)
    assert torch.get_num_threads() == 1
    assert "threads: 1, with which the run began" in told.messages
    assert json.loads((tmp_path / "versions.json").read_text())["threads"] == 1


@pytest.mark.usefixtures("two_threads")
def test_a_run_that_moves_to_fewer_cores_takes_no_more_threads(world, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    recipe = world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=tmp_path, stop_after=1)
    record = tmp_path / "versions.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"threads": 3}))
    torch.set_num_threads(2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    told = Told()
    train(recipe, **world.sources, out=tmp_path, progress=told)
    assert torch.get_num_threads() == 1
    assert any("the run began with 3" in text for text in told.messages)


@pytest.mark.usefixtures("two_threads")
def test_the_environment_outdoes_the_record(world, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    recipe = world.recipe("train.max_steps=2")
    train(recipe, **world.sources, out=tmp_path, stop_after=1)
    torch.set_num_threads(2)
    train(recipe, **world.sources, out=tmp_path)
    assert torch.get_num_threads() == 2
