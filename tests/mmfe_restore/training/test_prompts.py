"""Training on one of several prompts, another prompt than the paper's, and what follows from it."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmfe_cache.datasets import load_dataset
from mmfe_cache.embeddings import DEFAULT_PROMPT, Embeddings
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.guides.registry import GUIDES
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import open_cache, store_path
from mmfe_restore import Restorer
from mmfe_restore.data import SampleGuidance, Schedule, TrainingBatches, build_command, find_store
from mmfe_restore.data.dataset import prompt_number
from mmfe_restore.evaluation import evaluate, load_checkpoint, open_eval_cache
from mmfe_restore.training import train

GUIDE, DIM = "qwen2.5-vl-3b", 4
DARK, WET = "Is it dark?", "Is it wet?"
BOTH = f"guide.prompts=[{DARK!r}, {WET!r}]"


class Asked:
    """A stand-in for an MLLM: what it says depends on the picture and on the question."""

    name, dim, reads, takes_prompt = GUIDE, DIM, "pixels", True

    def __init__(self, prompt=DEFAULT_PROMPT, joint="all"):
        self.prompt, self.joint, self.calls = prompt or DEFAULT_PROMPT, joint, 0

    def prepare(self, image):
        return image.mean() / 255

    def encode(self, images):
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_prepared(self, prepared):
        self.calls += len(prepared)
        asked = int(hashlib.blake2b(self.prompt.encode(), digest_size=2).hexdigest(), 16) % 97
        steps = torch.arange(35 * DIM).reshape(35, DIM)
        rows = torch.stack([torch.sin(0.3 * steps + asked + 9 * float(p)) for p in prepared])
        image, joint, answer = rows.split([17, 17, 1], dim=1)
        return Embeddings(image, joint, answer[:, 0])

    def fingerprint(self):
        return {"guide": "asked", "prompt": self.prompt, "dtype": "float32"}

    def describe(self):
        return {"kind": "asked"}


def build(world, cache, *prompts):
    for prompt in prompts:
        for split, views in (("train", ("whole@16", "whole@32")), ("test", ("whole@32",))):
            samples = load_dataset("cdd11", split, world.root)
            place = store_path("cdd11", split, GUIDE, prompt, root=cache)
            build_cache(samples, Asked(prompt), views, place)


@pytest.fixture(scope="module")
def asked(world, tmp_path_factory):
    """The folder of the caches of two prompts."""
    cache = tmp_path_factory.mktemp("asked")
    build(world, cache, DARK, WET)
    return cache


def recipe_of(world, *overrides):
    more = (f"guide={GUIDE}", f"model.guidance_dim={DIM}", "eval.view=whole@32", *overrides)
    return world.recipe(*more)


def losses(out):
    with (out / "metrics.csv").open() as stream:
        return [row["loss"] for row in csv.DictReader(stream)]


def test_every_draw_reads_the_prompt_that_is_drawn_for_it(world, asked):
    recipe = recipe_of(world, BOTH, "model.guidance_dropout=0")
    samples = world.samples()
    ids = [sample.id for sample in samples]
    stores = [open_cache(find_store(one, "cdd11", "train", asked)) for one in recipe.each_prompt]
    readers = [SampleGuidance.by_recipe(recipe, store, ids) for store in stores]
    schedule = Schedule(recipe, samples)
    seen = Counter()
    for step, batch in enumerate(TrainingBatches(recipe, samples, schedule, readers)):
        draws = schedule.draws(step)
        view = recipe.view_at(draws[0].resolution)
        for place, draw in enumerate(draws):
            number = prompt_number(0, ids[draw.sample], draw.epoch, draw.repeat, 2)
            own = readers[number].read([draw.sample], view)
            assert torch.equal(batch.embeddings.image[place], own.image[0])
            assert torch.equal(batch.embeddings.joint[place], own.joint[0])
            assert torch.equal(batch.answers[place], own.answer[0])
            seen[number] += 1
    # Both are drawn, about equally often (binomial: 5 standard deviations).
    total = seen.total()
    assert abs(seen[0] - total / 2) < 2.5 * total**0.5
    # From any step on the same, and not the crops' numbers again.
    late = next(iter(TrainingBatches(recipe, samples, schedule, readers, start_step=9)))
    for step, batch in enumerate(TrainingBatches(recipe, samples, schedule, readers)):
        if step == 9:
            assert torch.equal(late.embeddings.joint, batch.embeddings.joint)


def test_prompts_are_drawn_evenly_and_by_everything_that_names_a_draw():
    numbers = [prompt_number(0, f"s{i}", epoch, 0, 3) for i in range(400) for epoch in range(5)]
    counts = np.bincount(numbers, minlength=3)
    # Chi-squared with 2 degrees of freedom: 13.8 is passed once in a thousand.
    assert ((counts - 2000 / 3) ** 2 / (2000 / 3)).sum() < 13.8
    assert numbers == [
        prompt_number(0, f"s{i}", epoch, 0, 3) for i in range(400) for epoch in range(5)
    ]
    assert numbers != [
        prompt_number(1, f"s{i}", epoch, 0, 3) for i in range(400) for epoch in range(5)
    ]


def test_a_run_on_two_prompts_resumes_and_is_judged_by_the_first(world, asked, tmp_path):
    recipe = recipe_of(world, BOTH)
    whole = train(recipe, root=world.root, cache=asked, out=tmp_path / "whole")
    assert whole.completed
    train(recipe, root=world.root, cache=asked, out=tmp_path / "cut", stop_after=4)
    assert train(recipe, root=world.root, cache=asked, out=tmp_path / "cut").resumed_from == 4
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    recorded = json.loads((tmp_path / "whole/model/config.json").read_text())["guide_fingerprint"]
    assert recorded["guide.prompt"] == DARK
    opened = load_checkpoint(tmp_path / "whole")
    samples = load_dataset("cdd11", "test", world.root)
    store = open_eval_cache(opened.recipe, samples, "whole@32", asked)
    assert store.fingerprint["guide.prompt"] == DARK
    options = {"checkpoint": opened.path, "device": "cpu", "with_pictures": False}
    report = evaluate(opened.restorer, opened.recipe, samples, store, **options)
    assert np.isfinite(report.summary.average["psnr"])
    # The other of its prompts may be named by its cache; a third may not.
    other = open_cache(store_path("cdd11", "test", GUIDE, WET, root=asked))
    evaluate(opened.restorer, opened.recipe, samples, other, **options)
    build(world, tmp_path / "third", "Is it old?")
    third = open_cache(store_path("cdd11", "test", GUIDE, "Is it old?", root=tmp_path / "third"))
    with pytest.raises(CacheError, match="another prompt"):
        evaluate(opened.restorer, opened.recipe, samples, third, **options)


def test_missing_caches_are_named_with_their_commands_before_the_first_step(world, asked, tmp_path):
    recipe = recipe_of(world, f"guide.prompts=[{DARK!r}, 'Is it old?', 'Is it cold?']")
    with pytest.raises(CacheError) as caught:
        train(recipe, root=world.root, cache=asked, out=tmp_path / "run")
    assert caught.value.exit_code == 3
    assert "2 of the 3 caches" in str(caught.value)
    for prompt in ("Is it old?", "Is it cold?"):
        assert f"--prompt '{prompt}'" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists()
    # The command builds exactly the store that is looked for.
    words = shlex.split(build_command(recipe.each_prompt[1], "cdd11", "train", ["whole@16"]))
    assert words[words.index("--prompt") + 1] == "Is it old?"


def test_one_store_cannot_serve_two_prompts(world, asked, tmp_path):
    store = store_path("cdd11", "train", GUIDE, DARK, root=asked)
    with pytest.raises(UsageError, match="one cache cannot serve several prompts"):
        train(recipe_of(world, BOTH), root=world.root, cache=store, out=tmp_path / "run")


def test_caches_of_one_recipe_differ_in_their_prompts_alone(world, asked, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    shutil.copytree(asked, cache)
    shutil.rmtree(store_path("cdd11", "train", GUIDE, WET, root=cache))
    monkeypatch.setattr(
        Asked, "fingerprint", lambda self: {"guide": "asked", "prompt": self.prompt, "weights": 2}
    )
    build_cache(
        load_dataset("cdd11", "train", world.root), Asked(WET), ("whole@16", "whole@32"),
        store_path("cdd11", "train", GUIDE, WET, root=cache),
    )  # fmt: skip
    with pytest.raises(CacheError, match="different states of the guide"):
        train(recipe_of(world, BOTH), root=world.root, cache=cache, out=tmp_path / "run")


def test_another_prompt_is_at_its_own_place_and_a_wrong_one_is_refused(world, asked, tmp_path):
    recipe = recipe_of(world, f"guide.prompt={DARK}")
    report = train(recipe, root=world.root, cache=asked, out=tmp_path / "run", stop_after=1)
    assert report.steps == 1
    wrong = store_path("cdd11", "train", GUIDE, WET, root=asked)
    with pytest.raises(CacheError, match="to another prompt") as caught:
        train(recipe, root=world.root, cache=wrong, out=tmp_path / "other")
    assert repr(WET) in str(caught.value)


def test_a_recipe_without_a_prompt_is_restored_as_its_cache_was_asked(
    world, asked, tmp_path, monkeypatch
):
    """As runs of earlier versions were, by an explicit --cache."""
    store = store_path("cdd11", "train", GUIDE, WET, root=asked)
    recipe = recipe_of(world, "train.max_steps=2")
    assert train(recipe, root=world.root, cache=store, out=tmp_path / "run").completed
    opened = load_checkpoint(tmp_path / "run")
    assert opened.recipe.guide.prompt == WET
    samples = load_dataset("cdd11", "test", world.root)
    found = open_eval_cache(opened.recipe, samples, "whole@32", asked)
    assert found.fingerprint["guide.prompt"] == WET
    options = {"checkpoint": opened.path, "device": "cpu", "with_pictures": False}
    evaluate(opened.restorer, opened.recipe, samples, found, **options)

    from mmfe_restore.inference import guide_for, restore_image

    def load(name, *, device="auto", prompt=None, joint="all"):
        return Asked(prompt, joint)

    monkeypatch.setattr("mmfe_cache.guides.load_guide", load)
    monkeypatch.setattr(  # its width is the tiny network's
        "mmfe_cache.guides.registry.GUIDES",
        {GUIDE: replace(GUIDES[GUIDE], dim=DIM)},
    )
    restorer = Restorer.from_pretrained(tmp_path / "run" / "model")
    guide = guide_for(restorer, device="cpu")
    assert guide.guide.prompt == WET
    image = np.full((20, 24, 3), 90, np.uint8)
    assert restore_image(restorer, image, guide.look(image)).shape == image.shape
