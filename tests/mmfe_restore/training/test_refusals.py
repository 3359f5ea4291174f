"""What a run refuses before its first step, and what a plan says of it."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from mmfe_cache.datasets import load_dataset
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import CacheError, ModelError, UsageError
from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import open_cache, store_path
from mmfe_restore.evaluation.inputs import check_guidance
from mmfe_restore.losses import fourier_loss, l1_loss
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training import inputs as training_inputs, plan_run, train
from mmfe_restore.training.dry_run import KEPT_COMPILED, KEPT_HALF, estimate


class TestRefusals:
    """Nothing that the schedule will need may be missing when the first step runs."""

    def refused(self, world, tmp_path, *overrides, **options):
        with pytest.raises(CacheError) as caught:
            train(world.recipe(*overrides), out=tmp_path / "run", **(world.sources | options))
        assert caught.value.exit_code == 3
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    def test_no_cache(self, world, tmp_path):
        told = self.refused(world, tmp_path, cache=tmp_path / "none")
        assert "mmfe cache build --dataset cdd11 --split train --guide oracle" in told
        assert "--views whole@16,whole@32" in told
        assert f"--root {world.root}" in told

    @pytest.mark.parametrize("call", [train, plan_run])
    @pytest.mark.parametrize("address", ["s3://bucket/a.zarr", "s3://bucket/cdd11"])
    def test_a_cache_at_an_address(self, world, tmp_path, call, address):
        out = {"out": tmp_path / "run"} if call is train else {}
        store = address if address.endswith(".zarr") else f"{address}/train/oracle.zarr"
        told = f"mmfe cache pull {store} cache/cdd11/train/oracle.zarr"
        with pytest.raises(UsageError, match=told):
            call(world.recipe(), root=world.root, cache=Path(address), **out)

    def test_a_view_that_only_the_last_stage_needs(self, world, tmp_path):
        stages = (
            "[{epochs: 1, resolution: 16, batch_size: 4}, "
            "{epochs: 1, resolution: 48, batch_size: 4}]"
        )
        told = self.refused(world, tmp_path, f"train.stages={stages}")
        assert "lacks views that the schedule needs: whole@48" in told

    def test_a_cache_of_another_width(self, world, tmp_path):
        told = self.refused(world, tmp_path, "model.guidance_dim=65")
        assert "64 (oracle)" in told
        assert "--set model.guidance_dim=64" in told

    def test_a_cache_of_another_guide_of_the_same_width(self, world, tmp_path):
        store = store_path("cdd11", "train", "oracle", root=world.cache)
        told = self.refused(world, tmp_path, "guide=scene", "model.guidance_dim=64", cache=store)
        assert "another guide" in told

    def test_the_proposed_command_builds_what_was_looked_for(self, world, tmp_path):
        spaced = tmp_path / "my caches"
        told = self.refused(world, tmp_path, cache=spaced / "train" / "oracle.zarr")
        assert told.rstrip().endswith(f"--out '{spaced}'")
        told = self.refused(world, tmp_path, cache=tmp_path / "odd.zarr")
        assert "--out" not in told

    def test_a_cache_of_other_weather_over_the_same_photographs(self, world, tmp_path):
        root, place = tmp_path / "photos", tmp_path / "cache"
        shutil.copytree(world.root / "train" / "clear", root)
        (root / "degradations.yaml").write_text("varied_share: 0.2")
        samples = load_dataset("synth", "train", root)
        path = store_path("synth", "train", "oracle", root=place)
        build_cache(samples, load_guide("oracle"), ("whole@16", "whole@32"), path)
        (root / "degradations.yaml").write_text("varied_share: 1")
        told = self.refused(world, tmp_path, "data.dataset=synth", root=root, cache=place)
        assert "have changed since" in told
        assert "mmfe cache build --dataset synth" in told
        recipe, samples = world.recipe("data.dataset=synth"), load_dataset("synth", "train", root)
        restorer = Restorer(recipe.model)
        with pytest.raises(CacheError, match="have changed since"):
            check_guidance(restorer, recipe, samples, open_cache(path), "whole@16")

    def test_a_cache_of_another_split(self, world, tmp_path):
        test = store_path("cdd11", "test", "oracle", root=world.cache)
        assert "cdd11/test" in self.refused(world, tmp_path, cache=test)

    def test_a_sample_that_the_cache_lacks(self, world, tmp_path):
        more = tmp_path / "more"
        shutil.copytree(world.root, more)
        for folder in (more / "train").iterdir():
            if folder.is_dir():
                first = sorted(folder.glob("*.png"))[0]
                shutil.copy(first, folder / "unseen.png")
        told = self.refused(world, tmp_path, root=more)
        assert "unseen" in told

    def test_a_skipped_sample_unless_it_is_allowed(self, world, tmp_path):
        root, cache = tmp_path / "set", tmp_path / "cache"
        shutil.copytree(world.root, root)
        spoilt = sorted((root / "train" / "haze").glob("*.png"))[0]
        spoilt.write_bytes(spoilt.read_bytes()[:40])
        store = store_path("cdd11", "train", "oracle", root=cache)
        samples = load_dataset("cdd11", "train", root)
        views = ("whole@16", "whole@32")
        build_cache(samples, load_guide("oracle"), views, store, on_error="skip")
        told = self.refused(world, tmp_path, root=root, cache=cache)
        assert f"haze/{spoilt.stem}" in told
        assert f"mmfe cache repair {store}" in told
        allowed = world.recipe("data.allow_skipped=true", "train.max_steps=2")
        assert train(allowed, root=root, cache=cache, out=tmp_path / "run").completed

    def test_scenes_held_out_leave_some_to_train_on(self, world, tmp_path):
        with pytest.raises(UsageError, match="nothing to train on"):
            train(world.recipe("data.validation_scenes=5"), **world.sources, out=tmp_path / "run")


class TestPlan:
    def test_a_plan_reads_the_weights_it_would_start_from(self, world, tmp_path):
        torch.save({"params": {"output.weight": torch.zeros(3)}}, tmp_path / "other.pth")
        with pytest.raises(ModelError, match="another network"):
            plan_run(world.recipe(), **world.sources, init_from=tmp_path / "other.pth")
        for call in (plan_run, partial(train, out=tmp_path / "run")):
            with pytest.raises(UsageError, match="no weights to start from"):
                call(world.recipe(), **world.sources, init_from=tmp_path / "none.pth")
        assert not (tmp_path / "run").exists()

    def test_weights_and_biases_must_be_there(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(training_inputs, "find_spec", lambda name: None)
        for call in (plan_run, partial(train, out=tmp_path / "run")):
            with pytest.raises(UsageError, match="Weights & Biases is not installed"):
                call(world.recipe(), **world.sources, wandb="project")
        assert not (tmp_path / "run").exists()

    def test_a_plan_says_what_is_missing(self, world, tmp_path):
        plan = plan_run(world.recipe(), root=world.root, cache=tmp_path)
        assert plan.to_json()["exit_code"] == 3
        assert plan.steps == 13
        assert "mmfe cache build" in str(plan.problem)

    def test_a_plan_without_data_still_has_stages_and_memory(self, tmp_path):
        plan = plan_run(load_recipe("cdd11"), root=tmp_path)
        assert plan.problem is not None
        assert plan.parameters == 37_487_012
        assert plan.steps is None
        assert [stage.batch_size for stage in plan.stages] == [64, 32, 16, 16]

    def test_the_estimate_is_what_autograd_keeps(self, world):
        recipe = world.recipe("model.guidance_dropout=0")
        restorer = Restorer(recipe.model)
        kept = {}
        own = {p.untyped_storage().data_ptr() for p in restorer.parameters()}
        alive = []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        random = torch.Generator().manual_seed(0)
        tokens = [torch.randn(2, 16, 64, generator=random) for _ in range(2)]
        embeddings = Embeddings(*tokens, torch.randn(2, 64, generator=random))
        image = torch.rand(2, 3, 32, 32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            restored = restorer(image, embeddings)
            loss = l1_loss(restored, image) + fourier_loss(restored, image)
        loss.backward()
        measured = sum(kept.values())
        assert estimate(recipe, 32, 2, "32-true").activations == pytest.approx(measured, rel=0.1)

    def test_compiled_blocks_keep_a_share(self, world):
        plain = estimate(world.recipe(), 32, 2, "32-true").activations
        for memory, share in ((1, KEPT_COMPILED), (0.5, KEPT_HALF), (0.25, KEPT_HALF / 2)):
            recipe = world.recipe(f"train.activation_memory={memory}")
            kept = estimate(recipe, 32, 2, "32-true", keeps=memory).activations
            assert kept == pytest.approx(share * plain, rel=1e-6)

    def test_checkpointing_needs_less(self, world):
        plain = estimate(world.recipe(), 32, 2, "32-true")
        less = estimate(world.recipe("train.activation_checkpointing=true"), 32, 2, "32-true")
        assert less.activations < 0.6 * plain.activations
        assert less.parameters == plain.parameters
