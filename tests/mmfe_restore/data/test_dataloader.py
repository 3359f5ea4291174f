"""The batches of a run: whose embeddings, at which view, shared how, dropped how often."""

import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, write_png
from mmfe_restore.data import SampleGuidance, Schedule, TrainingBatches
from mmfe_restore.data.dataloader import STOP_SIGNALS, holding_stop_signals
from mmfe_restore.data.dataset import crop_number
from mmfe_restore.recipes import DataConfig, ModelConfig, Recipe, Stage, TrainConfig

STAGES = (Stage(2, 16, 4), Stage(1, 32, 4))


class Cache:
    """Embeddings that say whose they are and at which view: (sample, view) in every vector."""

    dim = 2

    def __init__(self, samples):
        self._ids = [sample.id for sample in samples]
        self.views = []

    def index_of(self, ids):
        return np.array([self._ids.index(one) for one in ids])

    def gather(self, indices, view, arrays, tokens, pin=False):
        if view not in self.views:
            self.views.append(view)
        number = self.views.index(view)
        rows = torch.tensor([[float(i), float(number)] for i in indices])
        kinds = {"image": rows[:, None], "joint": rows[:, None], "answer": rows}
        return Embeddings(**{name: kinds[name] for name in arrays})


def recipe_of(dropout=0.0, repeats=1, **train):
    train = {"stages": STAGES, **train}
    return Recipe(
        "test",
        model=replace(ModelConfig(), guidance_dim=2, guidance_dropout=dropout),
        data=DataConfig(repeats={"*": repeats}),
        train=TrainConfig(**train),
    )


def batches_of(recipe, samples, cache=None, **options):
    cache = cache or Cache(samples)
    arrays = recipe.model.reads
    guidance = SampleGuidance(cache, [s.id for s in samples], arrays=arrays)
    return TrainingBatches(recipe, samples, Schedule(recipe, samples), guidance, **options)


def test_every_stage_reads_the_view_of_its_own_resolution(samples):
    cache, recipe = Cache(samples), recipe_of()
    schedule = Schedule(recipe, samples)
    for batch in batches_of(recipe, samples, cache):
        side = batch.degraded.shape[-1]
        assert side == (16 if batch.step < 4 else 32)
        whose, view = batch.embeddings.image[:, 0].T.tolist()
        assert whose == [draw.sample for draw in schedule.draws(batch.step)]
        assert {cache.views[int(number)] for number in view} == {f"whole@{side}"}
        assert torch.equal(batch.embeddings.answer, batch.answers)


def test_an_aligned_crop_reads_the_view_that_it_was_cut_at(samples):
    recipe = recipe_of(view="crop", aligned_crops=3)
    cache, schedule = Cache(samples), Schedule(recipe, samples)
    seen = set()
    for batch in batches_of(recipe, samples, cache):
        for row, draw in zip(batch.embeddings.joint[:, 0], schedule.draws(batch.step), strict=True):
            k = crop_number(0, samples[draw.sample].id, draw.epoch, draw.repeat, 3)
            assert row[0] == draw.sample
            assert cache.views[int(row[1])] == f"crop@{draw.resolution}#{k}"
            seen.add(k)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_micro_batches_share_each_global_batch(samples, world, accumulate):
    whole = list(batches_of(recipe_of(dropout=0.5), samples))
    recipe = recipe_of(dropout=0.5, accumulate=accumulate)
    ranks = [list(batches_of(recipe, samples, rank=r, world_size=world)) for r in range(world)]
    assert {len(parts) for parts in ranks} == {len(whole) * accumulate}
    for step, one in enumerate(whole):
        parts = [
            ranks[rank][step * accumulate + micro]
            for micro in range(accumulate)
            for rank in range(world)
        ]
        assert {part.step for part in parts} == {step}
        for name in ("degraded", "clean", "keep"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(one, name))
        for part in parts:  # L_MGL is over the global batch on every process
            assert torch.equal(part.answers, one.answers)
            assert torch.equal(part.answers_keep, one.keep)


def test_a_picture_that_a_worker_cannot_read_is_named_with_its_remedy(samples, tmp_path):
    path = tmp_path / "cut.png"
    write_png(path, samples[0].clean.read())
    path.write_bytes(path.read_bytes()[:400])
    here = [replace(one, degraded=FileSource(path)) for one in samples]
    plain = TrainingBatches(recipe_of(), here, Schedule(recipe_of(), here), None, num_workers=1)
    with pytest.raises(DataError, match=r"cut\.png") as caught:
        next(iter(plain))
    with pytest.raises(DataError) as expected:
        FileSource(path).read()
    assert str(caught.value) == str(expected.value)


def test_guidance_is_dropped_as_often_as_the_recipe_says(samples):
    recipe = recipe_of(dropout=0.3, repeats=40, stages=(Stage(2, 16, 10),))
    kept = torch.cat([batch.keep for batch in batches_of(recipe, samples)])
    assert len(kept) == 800
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.05)


def test_a_run_may_begin_at_any_step(samples):
    whole = list(batches_of(recipe_of(dropout=0.5), samples))
    late = list(batches_of(recipe_of(dropout=0.5), samples, start_step=3))
    assert [batch.step for batch in late] == [batch.step for batch in whole[3:]]
    for one, two in zip(late, whole[3:], strict=True):
        assert torch.equal(one.degraded, two.degraded)
        assert torch.equal(one.keep, two.keep)


def test_without_the_term_or_without_guidance_nothing_is_read_for_it(samples):
    recipe = recipe_of()
    silent = replace(recipe, loss=replace(recipe.loss, mgl=0.0))
    batch = next(iter(batches_of(silent, samples)))
    assert batch.answers is None
    assert batch.keep is None
    plain = TrainingBatches(recipe, samples, Schedule(recipe, samples), None)
    assert next(iter(plain)).embeddings is None


def test_what_is_started_while_stop_signals_are_held_never_gets_them():
    told, before = [], signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda number, frame: told.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with holding_stop_signals():
            # To this thread: another one of the process may take what the process is sent.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            script = "import signal; print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
            held = subprocess.check_output([sys.executable, "-S", "-c", script], text=True)
            assert not told
        assert told == [signal.SIGUSR1]  # late, but not lost
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert set(map(int, held.split())) >= set(STOP_SIGNALS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
