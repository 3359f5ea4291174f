"""Gathers from a store here and in two workers: ``python worker_reads.py METHOD STORE VIEW``.

A script of its own, because a fork is only defined for a process that has one thread, and a test
session has others. Prints one JSON object: the threads at the fork, and whether all agreed.
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


def main() -> None:
    method, path, view = sys.argv[1:4]
    reader = open_cache(path)
    reader.gather([0], view)
    context = multiprocessing.get_context(method)
    found = {"threads": threads()}
    queue = context.SimpleQueue()
    workers = [context.Process(target=answer, args=(reader, view, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    there = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    found["ended"] = [worker.exitcode for worker in workers]
    # Only now: the parent's own gather starts with what the workers inherited.
    found["agree"] = there == [gather(reader, view)] * 2
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
