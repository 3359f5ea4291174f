"""The schedule: steps, epochs, learning rate and batches by arithmetic."""

import math
from dataclasses import replace

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore.data import Schedule
from mmfe_restore.recipes import DataConfig, Recipe, Stage, TrainConfig

STAGES = (Stage(2, 32, 4), Stage(1, 48, 3))


def recipe_of(stages=STAGES, repeats=None, **train):
    return Recipe(
        "test", data=DataConfig(repeats=repeats or {}), train=TrainConfig(stages=stages, **train)
    )


def test_steps_drop_the_last_incomplete_batch(samples):
    schedule = Schedule(recipe_of(), samples)  # 10 draws an epoch
    assert [(p.steps_per_epoch, p.dropped, p.steps) for p in schedule.stages] == [
        (2, 2, 4),
        (3, 1, 3),
    ]
    assert schedule.steps == 7


def test_moce_irs_epoch_is_twice_as_long(make_samples):
    """26,026 draws: docs/decisions.md names both schedules' steps."""
    samples = make_samples(scenes=1183, labels=tuple(f"c{i}" for i in range(11)), size=(1, 1))
    once = Schedule(Recipe("cdd11"), samples)
    twice = Schedule(Recipe("cdd11", data=DataConfig(repeats={"*": 2})), samples)
    assert (once.draws_per_epoch, once.steps) == (13_013, 99_530)
    assert (twice.draws_per_epoch, twice.steps) == (26_026, 199_120)


def test_the_papers_composite_schedule_has_its_published_size(make_samples):
    samples = make_samples(scenes=1183, labels=tuple(f"c{i}" for i in range(11)), size=(1, 1))
    schedule = Schedule(Recipe("cdd11"), samples)
    assert len(samples) == 13_013
    assert [p.steps_per_epoch for p in schedule.stages] == [203, 406, 813, 813]
    assert [p.first_epoch for p in schedule.stages] == [0, 130, 190, 230]
    assert schedule.steps == 130 * 203 + 60 * 406 + 60 * 813


def test_every_epoch_draws_each_sample_at_most_once_in_another_order(samples):
    schedule = Schedule(recipe_of((Stage(3, 32, 5),)), samples)
    epochs = [
        [d.sample for step in (2 * e, 2 * e + 1) for d in schedule.draws(step)] for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = Schedule(recipe_of((Stage(3, 32, 5),)), samples)
    assert [d.sample for d in again.draws(3)] == [d.sample for d in schedule.draws(3)]
    other = Schedule(recipe_of((Stage(3, 32, 5),), seed=1), samples)
    assert [d.sample for d in other.draws(0)] != [d.sample for d in schedule.draws(0)]


def test_draws_know_their_epoch_and_resolution(samples):
    schedule = Schedule(recipe_of(), samples)
    first, last = schedule.draws(0), schedule.draws(6)
    assert {(d.epoch, d.resolution) for d in first} == {(0, 32)}
    assert {(d.epoch, d.resolution) for d in last} == {(2, 48)}


def test_repeats_multiply_labels_and_number_their_draws(samples):
    schedule = Schedule(recipe_of((Stage(1, 32, 1),), repeats={"haze": 3, "low": 0}), samples)
    assert schedule.draws_per_epoch == 15
    drawn = [schedule.draws(step)[0] for step in range(15)]
    assert {samples[d.sample].label for d in drawn} == {"haze"}
    assert len({(d.sample, d.repeat) for d in drawn}) == 15
    star = Schedule(recipe_of((Stage(1, 32, 1),), repeats={"*": 2, "low": 1}), samples)
    assert star.draws_per_epoch == 5 * 2 + 5


def test_repeats_of_an_unknown_label_are_refused(samples):
    with pytest.raises(UsageError, match="no training sample") as caught:
        Schedule(recipe_of(repeats={"fog": 2}), samples)
    assert "fog" in str(caught.value)
    assert "haze, low" in str(caught.value)
    assert "--set data.repeats={}" in str(caught.value)


def test_the_learning_rate_is_one_cosine_over_fractional_epochs(samples):
    schedule = Schedule(recipe_of(), samples)
    for step in range(8):
        epoch = step / 2 if step < 4 else 2 + (step - 4) / 3
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 3))
        assert schedule.epoch(step) == pytest.approx(epoch)
        assert schedule.learning_rate(step) == pytest.approx(expected, abs=1e-15)
    assert schedule.learning_rate(0) == 1
    assert schedule.learning_rate(7) == pytest.approx(0, abs=1e-15)


def test_max_steps_ends_the_cosine_too(samples):
    schedule = Schedule(recipe_of(max_steps=3), samples)
    assert schedule.steps == 3
    assert schedule.learning_rate(3) == pytest.approx(0, abs=1e-15)
    # 1.5 epochs in all, and the middle of the cosine at 0.75.
    expected = 0.5 * (1 + math.cos(math.pi * 1 / 3))
    assert schedule.learning_rate(1) == pytest.approx(expected)
    assert Schedule(recipe_of(max_steps=100), samples).steps == 7


def test_an_epoch_smaller_than_a_batch_is_refused(samples):
    with pytest.raises(UsageError, match="stage 2") as caught:
        Schedule(recipe_of((Stage(1, 32, 4), Stage(1, 48, 11))), samples)
    assert caught.value.exit_code == 2
    assert "repeats" in str(caught.value)


def test_a_schedule_does_not_depend_on_what_was_asked_before(samples):
    schedule = Schedule(recipe_of(), samples)
    forward = [schedule.draws(step) for step in range(7)]
    fresh = Schedule(replace(recipe_of()), samples)
    assert [fresh.draws(step) for step in reversed(range(7))] == forward[::-1]
