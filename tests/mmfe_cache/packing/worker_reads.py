"""Reads a pack here and in two workers: ``python worker_reads.py METHOD PACK PICTURES``.

A script of its own, because a fork is only defined for a process that has one thread, and a test
session has others. Prints one JSON object: the threads at the fork, and whether all agreed.
"""

import json
import multiprocessing
import pickle
import sys
from pathlib import Path

import h5py

from mmfe_cache.packing import PackedSource, open_pack


def threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def read(source):
    return source.number, source.read_crop(0, 0, 1, 1).tobytes(), source.read().tobytes()


def open_files(_=None):
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def main() -> None:
    method, path, pictures = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sources = [PackedSource(path, number) for number in range(pictures)]
    open_pack(path)
    here = [read(source) for source in sources]
    found = {
        "threads": threads(),
        "pickled": len(pickle.dumps(sources[0])),
        "hdf5_files_here": open_files(),
    }
    pool = multiprocessing.get_context(method).Pool(2)
    found["agree"] = pool.map(read, sources * 3) == here * 3
    found["hdf5_files_there"] = max(pool.map(open_files, range(4)))
    pool.close()
    pool.join()  # workers end by themselves, no signal is needed
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
