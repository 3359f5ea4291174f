"""Builds that die: by SIGKILL, by a folder that is removed, under a clock that jumps."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.cache_children import (
    COUNT,
    SHARD,
    VIEWS,
    CountingGuide,
    SharedCount,
    in_child,
    missing_encodings,
    reference,
    run_build,
    start_ranks,
    wait,
)
from benchmarks.cache_support import TinyGuide, tree
from mmfe_cache.store.reader import open_cache


def kills(rounds: int, folder: Path, ranks: int = 1, seed: int = 0) -> dict[str, Any]:
    """Kill builds with SIGKILL at random moments, resume, and compare with the undisturbed.

    Only kills that struck before the build's end count. Of several ranks, every other round kills
    one alone: the others must end by themselves.
    """
    expected, seconds = reference(folder)
    draw = random.Random(seed)
    found: dict[str, Any] = {
        "kills": 0,
        "too_late": 0,
        "identical": 0,
        "lost_samples": 0,
        "most_recomputed": 0,
        "allowed_recomputed": ranks * SHARD * len(VIEWS),
        "survivors_ended_clearly": 0,
        "survivors": 0,
    }
    while found["kills"] < rounds:
        number = found["kills"] + found["too_late"]
        path, counter = folder / f"k{number}.zarr", SharedCount()
        guides = [CountingGuide(counter, rank, 0.002) for rank in range(ranks)]
        if ranks == 1:
            pids = [in_child(lambda p=path, g=guides[0]: run_build(p, g))]
        else:
            pids = start_ranks(path, ranks, guides, folder / f"meeting{number}")
        time.sleep(draw.uniform(0, 1.05 * seconds + (0.15 if ranks > 1 else 0.0)))
        struck = pids if number % 2 == 0 or ranks == 1 else [draw.choice(pids)]
        for pid in struck:
            os.kill(pid, signal.SIGKILL)
        codes = {pid: wait(pid) for pid in pids}
        killed = any(code == -signal.SIGKILL for code in codes.values())
        found["kills" if killed else "too_late"] += 1
        if killed:
            survivors = [codes[pid] for pid in pids if pid not in struck]
            found["survivors"] += len(survivors)
            found["survivors_ended_clearly"] += sum(code in (0, 101) for code in survivors)
        left = missing_encodings(path)
        before = counter.total
        report = run_build(path, CountingGuide(counter, 3))
        reader = open_cache(path)
        recomputed = counter.total - COUNT * len(VIEWS)
        found["most_recomputed"] = max(found["most_recomputed"], recomputed)
        found["lost_samples"] += COUNT - len(reader.ids) + len(reader.skipped)
        same = tree(path) == expected and report.encodings == left == counter.total - before
        leftovers = [p for p in folder.iterdir() if p.name.startswith(path.name + ".")]
        found["identical"] += killed and same and not leftovers
        shutil.rmtree(path)
    return found


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


def clocks(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Kill builds whose clock jumps by years at every look; resume under another such clock."""
    expected, seconds = reference(folder)
    draw = random.Random(seed)
    found: dict[str, Any] = {"rounds": 0, "killed": 0, "resumed": 0, "identical": 0}

    def build(path: Path, salt: int) -> None:
        jumps = random.Random(salt)
        time.time = lambda: jumps.uniform(0, 4e9)
        run_build(path, TinyGuide(seconds=0.002))

    for number in range(rounds):
        path = folder / f"c{number}.zarr"
        pid = in_child(lambda p=path, n=number: build(p, n))
        time.sleep(draw.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        found["killed"] += wait(pid) == -signal.SIGKILL
        found["resumed"] += wait(in_child(lambda p=path, n=number: build(p, ~n))) == 0
        found["rounds"] += 1
        found["identical"] += tree(path) == expected
        shutil.rmtree(path)
    return found
