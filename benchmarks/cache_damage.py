"""Stores and disks that are damaged: flipped bits, foreign shards, no space, no permission."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cache_children import (
    BATCH,
    COUNT,
    SHARD,
    VIEWS,
    in_child,
    reference,
    run_build,
    wait,
)
from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError
from mmfe_cache.precompute import build as building, build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store.format import serialise
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.verify import verify


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
    order: list[str] = []
    for _ in range(rounds):
        # Every file in turn, in a new order each time.
        order = order or draw.sample(names, len(names))
        name = order.pop()
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


def refused(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Truncated, swapped and foreign shards, and other schema versions: all refused by name."""
    expected, _ = reference(folder)
    path, other = folder / "reference.zarr", folder / "other.zarr"
    options = {"batch_size": BATCH, "shard_samples": SHARD, "workers": 2}
    build_cache(sample_set(COUNT, split="test"), TinyGuide(), VIEWS, other, **options)
    draw = random.Random(seed)
    names = sorted(name for name in expected if "/c." in name and not name.startswith("samples"))
    found: dict[str, Any] = {"rounds": 0, "named_by_verify": 0, "named_by_reading": 0}

    def damage(kind: str, name: str) -> str:
        """What a reader must say."""
        if kind == "truncated":
            (path / name).write_bytes(expected[name][: draw.randrange(len(expected[name]))])
            return "damaged or truncated"
        if kind == "foreign":
            shutil.copy(other / name, path / name)
            return "a shard of another array, view or store"
        if kind == "swapped":
            folder_of = name.rsplit("/", 1)[0]
            mates = [n for n in names if n.rsplit("/", 1)[0] == folder_of and n != name]
            mate = draw.choice(mates)
            (path / name).write_bytes(expected[mate])
            (path / mate).write_bytes(expected[name])
            return "of this array"
        document = json.loads(expected["zarr.json"])
        document["attributes"]["mmfe-cache"]["schema"] = 0 if kind == "older" else 2
        (path / "zarr.json").write_bytes(serialise(document))
        return kind

    kinds = ("truncated", "foreign", "swapped", "older", "newer")
    for number in range(rounds):
        kind, name = kinds[number % len(kinds)], draw.choice(names)
        words = damage(kind, name)
        found["rounds"] += 1
        found[kind] = found.get(kind, 0) + 1
        try:
            report = verify(path)
            found["named_by_verify"] += any(name == d.file for d in report.damages)
        except CacheError as problem:
            found["named_by_verify"] += words in str(problem)
        try:
            read_all(path)
        except CacheError as problem:
            found["named_by_reading"] += words in str(problem)
        for file, data in expected.items():
            if (path / file).read_bytes() != data:
                (path / file).write_bytes(data)
    return found


def disk_full(rounds: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Let the disk fill up at random points of a build; then make room and resume.

    The check before the build is switched off, as if another program took the room after it. The
    same place with the check must be refused before anything is written.
    """
    expected, _ = reference(folder)
    pages = sum(-(-len(data) // 4096) * 4096 for data in expected.values())
    shards = sum(len(data) for name, data in expected.items() if "/c." in name)
    longest = max(len(data) for data in expected.values())
    draw = random.Random(seed)
    found: dict[str, Any] = {
        "rounds": 0,
        "how": "",
        "clear_error": 0,
        "identical": 0,
        "early": 0,
        "refused_early": 0,
    }
    while found["rounds"] < rounds:
        number = found["rounds"]
        place = folder / f"disk{number}"
        place.mkdir()
        # A third of the rounds runs out within the metadata, the others within the shards.
        room = draw.randrange(4096, 60_000) if number % 3 == 0 else draw.randrange(60_000, pages)
        mounted = _mount(place, room)
        found["how"] = "tmpfs" if mounted else "RLIMIT_FSIZE"

        def build(
            checked: bool, place: Path = place, room: int = room, mounted: bool = mounted
        ) -> None:
            if not mounted:
                limit = room % longest
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            if not checked:
                building.free_bytes = lambda path: None
            run_build(place / "a.zarr", TinyGuide())

        if mounted and room + 4096 < shards:
            found["early"] += 1
            refusal = wait(in_child(lambda: build(True)))
            found["refused_early"] += refusal == 101 and not any(place.iterdir())
        code = wait(in_child(lambda: build(False)))
        found["rounds"] += 1
        found["clear_error"] += code == 101
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
