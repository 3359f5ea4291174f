"""What a cache survives: `python -m benchmarks.cache_faults [--json] [--only kills,...]`.

Each experiment is a function, so that the test suite runs the same ones at small counts. Builds
run in forked children, which are killed, starved of disk or have their folder removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache.build import build_cache
from mmfe_cache.build.launcher import FabricRanks
from mmfe_cache.build.repair import repair_cache
from mmfe_cache.embeddings import ARRAY_NAMES, Embeddings
from mmfe_cache.errors import CacheError, MmfeError
from mmfe_cache.store.metadata import StoreMetadata
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.verify import verify
from mmfe_cache.store.writer import CacheWriter

VIEWS = ("whole@16", "crop@8")
COUNT, BATCH, SHARD = 26, 2, 4


class SharedCount:
    """A number that forked processes raise together."""

    def __init__(self, slots: int = 4) -> None:
        self._cells = np.frombuffer(mmap.mmap(-1, 8 * slots), np.int64)

    def add(self, slot: int, amount: int) -> None:
        """Raise one process's cell."""
        self._cells[slot] += amount

    @property
    def total(self) -> int:
        """The sum of all cells."""
        return int(self._cells.sum())


class CountingGuide(TinyGuide):
    """A tiny guide whose calls are counted across processes."""

    def __init__(self, counter: SharedCount, slot: int = 0, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self._counter, self._slot = counter, slot

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """Encode and count."""
        found = super().encode_prepared(prepared)
        self._counter.add(self._slot, len(prepared))
        return found


def run_build(path: Path, guide: TinyGuide, ranks: FabricRanks | None = None) -> Any:
    """The one build that all experiments disturb."""
    return build_cache(
        sample_set(COUNT),
        guide,
        VIEWS,
        path,
        batch_size=BATCH,
        shard_samples=SHARD,
        workers=2,
        ranks=ranks,
    )


def in_child(work: Callable[[], None]) -> int:
    """Start ``work`` in a forked child that ends with it, and return its process id.

    The child exits with 0, or an `MmfeError`'s code plus 100, or 99 for any other error.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    except MmfeError as problem:
        code = 100 + problem.exit_code
    except BaseException as problem:
        print(f"child: {type(problem).__name__}: {problem}", file=sys.stderr)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """A child's exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_ranks(path: Path, size: int, guides: Sequence[TinyGuide], meeting: Path) -> list[int]:
    """Start ``size`` processes that build ``path`` together; they meet in a file."""

    def member(rank: int) -> None:
        store = dist.FileStore(str(meeting), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        run_build(path, guides[rank], FabricRanks(rank, size, "cpu"))
        dist.destroy_process_group()

    return [in_child(lambda rank=rank: member(rank)) for rank in range(size)]


def reference(folder: Path) -> tuple[dict[str, bytes], float]:
    """An undisturbed store's files, and the seconds it took."""
    began = time.monotonic()
    run_build(folder / "reference.zarr", TinyGuide(seconds=0.002))
    return tree(folder / "reference.zarr"), time.monotonic() - began


def missing_encodings(path: Path) -> int:
    """Sample-views that a resumed build has to compute."""
    if not (path / "zarr.json").exists():
        return COUNT * len(VIEWS)
    metadata = StoreMetadata.read((path / "zarr.json").read_bytes(), str(path))
    writer = CacheWriter(path, metadata)
    return sum(
        metadata.count(number)
        for view in VIEWS
        for number in writer.missing_shards(view.replace("@", "-"), view)
    )


def kills(rounds: int, folder: Path, ranks: int = 1, seed: int = 0) -> dict[str, Any]:
    """Kill builds with SIGKILL at random moments, resume, and compare with the undisturbed."""
    expected, seconds = reference(folder)
    draw = random.Random(seed)
    found: dict[str, Any] = {
        "kills": 0,
        "identical": 0,
        "killed_before_end": 0,
        "lost_samples": 0,
        "most_recomputed": 0,
        "allowed_recomputed": ranks * SHARD * len(VIEWS),
    }
    for number in range(rounds):
        path, counter = folder / f"k{number}.zarr", SharedCount()
        guides = [CountingGuide(counter, rank, 0.002) for rank in range(ranks)]
        if ranks == 1:
            pids = [in_child(lambda p=path, g=guides[0]: run_build(p, g))]
        else:
            pids = start_ranks(path, ranks, guides, folder / f"meeting{number}")
        time.sleep(draw.uniform(0, 1.3 * seconds + (0.15 if ranks > 1 else 0.01)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        codes = [wait(pid) for pid in pids]
        found["kills"] += 1
        found["killed_before_end"] += any(code == -signal.SIGKILL for code in codes)
        left = missing_encodings(path)
        before = counter.total
        report = run_build(path, CountingGuide(counter, 3))
        reader = open_cache(path)
        recomputed = counter.total - COUNT * len(VIEWS)
        found["most_recomputed"] = max(found["most_recomputed"], recomputed)
        found["lost_samples"] += COUNT - len(reader.ids) + len(reader.skipped)
        same = tree(path) == expected and report.encodings == left == counter.total - before
        leftovers = [p for p in folder.iterdir() if p.name.startswith(path.name + ".")]
        found["identical"] += same and not leftovers
        shutil.rmtree(path)
    return found


def flips(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Flip single bits anywhere in a store: verify must see it, no checked read may pass it."""
    expected, _ = reference(folder)
    path = folder / "reference.zarr"
    draw = random.Random(seed)
    names = sorted(expected)
    values = read_all(path)
    found: dict[str, Any] = {
        "flips": 0,
        "files": len(names),
        "detected": 0,
        "named": 0,
        "silent_reads": 0,
        "repaired": 0,
    }
    for _ in range(rounds):
        name = draw.choice(names)
        bit = draw.randrange(8 * len(expected[name]))
        data = bytearray(expected[name])
        data[bit // 8] ^= 1 << bit % 8
        (path / name).write_bytes(data)
        found["flips"] += 1
        report = verify(path)
        found["detected"] += not report.intact
        found["named"] += any(damage.file == name for damage in report.damages)
        with contextlib.suppress(CacheError):
            found["silent_reads"] += not same_values(read_all(path), values)
        repair_cache(path, sample_set(COUNT), TinyGuide())
        restored = tree(path) == expected
        found["repaired"] += restored
        if not restored:
            shutil.rmtree(path)
            run_build(path, TinyGuide())
    return found


def read_all(path: Path) -> list[Any]:
    """Everything a reader can return, with every checksum compared."""
    reader = open_cache(path)
    found: list[Any] = [reader.ids, reader.views, reader.fingerprint, reader.index_of(reader.ids)]
    found.append(reader.pixel_digests)
    for view in reader.views:
        read = reader.gather(range(len(reader)), view, ARRAY_NAMES, "all", "always")
        found += [tensor.numpy() for tensor in read.present().values()]
    return found


def same_values(left: list[Any], right: list[Any]) -> bool:
    """Whether two results of `read_all` are equal."""
    return len(left) == len(right) and all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(left, right, strict=True)
    )


def disk_full(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Let the disk fill up at random points; then make room and resume."""
    expected, _ = reference(folder)
    size = sum(len(data) for data in expected.values())
    draw = random.Random(seed)
    found: dict[str, Any] = {"rounds": 0, "how": "", "clear_error": 0, "identical": 0}
    for number in range(rounds):
        place = folder / f"disk{number}"
        place.mkdir()
        # A third of the rounds runs out within the metadata, the others within the shards.
        room = draw.randrange(4096, 40_000) if number % 3 == 0 else draw.randrange(size)
        mounted = _mount(place, room)
        found["how"] = "tmpfs" if mounted else "RLIMIT_FSIZE"

        def build(place: Path = place, room: int = room, mounted: bool = mounted) -> None:
            if not mounted:
                limit = room % max(len(data) for data in expected.values())
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            run_build(place / "a.zarr", TinyGuide())

        code = wait(in_child(build))
        found["rounds"] += 1
        # A limit above the largest file lets the build end.
        found["clear_error"] += code in (101, 0)
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        with contextlib.suppress(CacheError):
            for view in open_cache(place / "a.zarr").views:  # Finished means whole.
                open_cache(place / "a.zarr").gather(range(COUNT), view, check="always")
        run_build(place / "a.zarr", TinyGuide())
        found["identical"] += tree(place / "a.zarr") == expected
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)
    return found


def _mount(place: Path, room: int) -> bool:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "mmfe-test", str(place)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def removed(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Remove the store's folder while it is built; then build again."""
    expected, seconds = reference(folder)
    draw = random.Random(seed)
    found: dict[str, Any] = {"rounds": 0, "clear_error": 0, "identical": 0}
    for number in range(rounds):
        path = folder / f"r{number}.zarr"
        pid = in_child(lambda p=path: run_build(p, TinyGuide(seconds=0.002)))
        time.sleep(draw.uniform(0.2, 0.9) * seconds)
        for _ in range(50):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
        found["rounds"] += 1
        found["clear_error"] += wait(pid) in (0, 101, 103)
        run_build(path, TinyGuide())
        found["identical"] += tree(path) == expected
        shutil.rmtree(path)
    return found


def read_only(folder: Path) -> dict[str, Any]:
    """Build into a folder that may not be written to, as a user who is not root."""
    place = folder / "locked"
    place.mkdir()
    place.chmod(0o555)

    def build() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        run_build(place / "a.zarr", TinyGuide())

    # The parents of a temporary folder may be closed to others.
    for parent in (folder, *folder.parents):
        if parent != Path(parent.anchor) and os.access(parent, os.W_OK) and os.getuid() == 0:
            with contextlib.suppress(OSError):
                parent.chmod(parent.stat().st_mode | 0o055)
    code = wait(in_child(build))
    place.chmod(0o755)
    left = list(place.iterdir())
    run_build(place / "a.zarr", TinyGuide())
    return {"clear_error": int(code == 101), "left_behind": len(left), "resumed": 1}


EXPERIMENTS: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "kills": lambda folder, share: kills(round(200 * share), folder),
    "kills_two_ranks": lambda folder, share: kills(round(20 * share), folder, ranks=2),
    "flips": lambda folder, share: flips(round(2000 * share), folder),
    "disk_full": lambda folder, share: disk_full(round(20 * share), folder),
    "removed": lambda folder, share: removed(round(20 * share), folder),
    "read_only": lambda folder, _: read_only(folder),
}


def holds(name: str, found: dict[str, Any]) -> bool:
    """Whether an experiment's counts are what was promised."""
    if name.startswith("kills"):
        return (
            found["identical"] == found["kills"]
            and found["lost_samples"] == 0
            and found["most_recomputed"] <= found["allowed_recomputed"]
        )
    if name == "flips":
        return (
            found["detected"] == found["named"] == found["repaired"] == found["flips"]
            and found["silent_reads"] == 0
        )
    if name == "read_only":
        return found["clear_error"] == 1 and found["left_behind"] == 0
    return found["clear_error"] == found["identical"] == found["rounds"]


def main() -> int:
    """Run the experiments and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help="comma-separated")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            results[name] = EXPERIMENTS[name](Path(folder), options.share)
            results[name]["holds"] = holds(name, results[name])
            results[name]["seconds"] = round(time.monotonic() - began, 1)
        if not options.json:
            print(name, json.dumps(results[name]))
    if options.json:
        print(json.dumps(results))
    return 0 if all(result["holds"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
