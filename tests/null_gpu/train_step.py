"""Trains through Lightning as `mmfe train` does and prints what the host did in each step."""

import json
import sys
import tempfile
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from nullgpu import Watched

from mmfe_restore.recipes import load_recipe
from mmfe_restore.training import train
from mmfe_restore.training.lightning_module import RestorationTask

root, cache, *overrides = sys.argv[1:]
STEPS = []
RestorationTask.require_finite_weights = lambda *_: None  # of values that are read back as 0


class Steps(Callback):
    """Counts from one step's beginning to the next one's: batch, transfer, optimiser and all."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if STEPS:
            self.seen.__exit__()
            STEPS[-1].update(self.seen.now())
        STEPS.append({"side": batch.degraded.shape[-1], "device": str(batch.degraded.device)})
        STEPS[-1]["tf32"] = torch.backends.cudnn.allow_tf32
        STEPS[-1]["fused"] = trainer.optimizers[0].defaults["fused"]
        STEPS[-1]["benchmark"] = torch.backends.cudnn.benchmark
        self.seen = Watched().__enter__()


with tempfile.TemporaryDirectory() as out:
    recipe = load_recipe("demo", overrides)
    torch.cuda.reset_peak_memory_stats()
    report = train(
        recipe, root=Path(root), cache=Path(cache), out=Path(out) / "run", callbacks=[Steps()]
    )
    versions = json.loads((Path(out) / "run/versions.json").read_text(encoding="utf-8"))
peak = torch.cuda.max_memory_allocated()
print(
    json.dumps(
        {"steps": STEPS[:-1], "completed": report.completed, "peak": peak, "versions": versions}
    )
)
