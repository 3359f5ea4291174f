"""A training that diverges ends, says what to do, and leaves finite checkpoints behind."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmfe_cache.errors import MmfeError, ModelError
from mmfe_restore.model import Restorer
from mmfe_restore.training import train
from mmfe_restore.training.checkpoints import list_checkpoints, read_checkpoint
from mmfe_restore.training.lightning_module import RestorationTask


def table(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_diverged_loss_ends_the_run_and_the_checkpoints_stay_finite(world, tmp_path):
    class Diverge(Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 2:
                pl_module.restorer.output.weight.grad.fill_(torch.nan)

    with pytest.raises(MmfeError, match="diverged") as caught:
        train(world.recipe(), **world.sources, out=tmp_path, callbacks=[Diverge()])
    assert "train.learning_rate=0.001" in str(caught.value)
    kept = list_checkpoints(tmp_path / "checkpoints")
    assert [path.stem for path in kept] == ["step-00000002", "step-00000001"]
    weights = read_checkpoint(kept[0])["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_nan_is_refused_at_the_next_log(world, tmp_path):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 3:
                with torch.no_grad():
                    pl_module.restorer.output.weight.fill_(torch.inf)

    recipe = world.recipe("train.checkpoint_every=600")
    with pytest.raises(MmfeError, match=r"the loss is (nan|inf) at step 4"):
        train(recipe, **world.sources, out=tmp_path, callbacks=[Poison()])
    assert len(table(tmp_path / "metrics.csv")) == 3


@pytest.mark.parametrize("compiled", ["on", "off"])
def test_blocks_that_a_cpu_compiled_are_suspected_first(world, compiled):
    recipe = world.recipe(f"train.compile={compiled}")
    task = RestorationTask(Restorer.from_recipe(recipe), recipe, schedule=None)
    task.require_finite_weights(7)
    with torch.no_grad():
        task.restorer.output.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite at step 7") as caught:
        task.require_finite_weights(7)
    assert ("--set train.compile=off" in str(caught.value)) == (compiled == "on")
