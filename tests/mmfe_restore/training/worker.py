"""A training process for the tests: `worker.py JSON`, under torchrun or alone."""

import json
import os
import signal
import sys
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from mmfe_restore.recipes import recipe_from_dict
from mmfe_restore.training import train


class Die(Callback):
    """Sends this process a signal inside a step: after the forward pass, before the update."""

    def __init__(self, step, number, rank):
        self.step, self.number, self.rank = step, number, rank

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class Tell:
    """Progress that prints plainly."""

    def __init__(self):
        from mmfe_cache.progress import Progress

        self.task = Progress().task

    def message(self, text):
        print(text, flush=True)

    def warn(self, text):
        print(f"warning: {text}", flush=True)


def main():
    wanted = json.loads(sys.argv[1])
    callbacks = []
    if wanted.get("kill_at") is not None:
        number = getattr(signal, wanted.get("signal", "SIGKILL"))
        callbacks.append(Die(wanted["kill_at"], number, wanted.get("rank", 0)))
    report = train(
        recipe_from_dict(wanted["recipe"]),
        root=Path(wanted["root"]),
        cache=Path(wanted["cache"]),
        out=Path(wanted["out"]),
        callbacks=callbacks,
        progress=Tell(),
    )
    print(json.dumps(report.to_json() | {"transformers": "transformers" in sys.modules}))


if __name__ == "__main__":
    main()
