"""Gathers from a store here and in forked and spawned workers: ``worker_reads.py STORE VIEW``.

A script of its own, because a fork is only defined for a process that has one thread, and a test
session has others. Prints one JSON object, by method: threads at the start, and agreement.
"""

import json
import multiprocessing
import sys
from pathlib import Path

from mmfe_cache import open_cache


def threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def gather(reader, view):
    found = reader.gather(range(len(reader)), view)
    return found.answer.numpy().tobytes(), found.image.numpy().tobytes()


def answer(reader, view, queue):
    queue.put(gather(reader, view))


def ask(method: str, path: str, view: str, count: int) -> dict[str, object]:
    reader = open_cache(path)
    reader.gather([0], view)
    context = multiprocessing.get_context(method)
    found: dict[str, object] = {"threads": threads()}
    queue = context.SimpleQueue()
    workers = [context.Process(target=answer, args=(reader, view, queue)) for _ in range(count)]
    for worker in workers:
        worker.start()
    there = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    found["ended"] = [worker.exitcode for worker in workers]
    # Only now: the parent's own gather starts with what the workers inherited.
    found["agree"] = there == [gather(reader, view)] * count
    return found


def main() -> None:
    path, view = sys.argv[1:3]
    # A spawned worker imports everything anew, which takes seconds: one is enough.
    json.dump({m: ask(m, path, view, n) for m, n in (("fork", 2), ("spawn", 1))}, sys.stdout)


if __name__ == "__main__":
    main()
