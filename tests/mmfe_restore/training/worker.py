"""A training process for the tests: `worker.py JSON`, under torchrun or alone."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from mmfe_restore.recipes import recipe_from_dict
from mmfe_restore.training import train


class Die(Callback):
    """Sends this process, or its group, a signal inside a step: before the update."""

    def __init__(self, step, number, rank, group):
        self.step, self.number, self.rank = step, number, rank
        self.send = os.killpg if group else os.kill

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.step = None  # once, at the first micro-batch
            workers = [process.pid for process in multiprocessing.active_children()]
            print(json.dumps({"workers": workers}), flush=True)
            self.send(os.getpid(), self.number)


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
        group = wanted.get("group", False)
        if group:
            os.setsid()
        callbacks.append(Die(wanted["kill_at"], number, wanted.get("rank", 0), group))
    if "start_method" in wanted:
        multiprocessing.set_start_method(wanted["start_method"], force=True)
        multiprocessing.set_forkserver_preload(["mmfe_restore.data.dataloader"])
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
