"""What a cache survives: `python -m benchmarks.cache_faults [--json] [--only kills,...]`.

Each experiment is a function, so that the test suite runs the same ones at small counts. Builds
run in forked children, which are killed, starved of disk or have their folder removed. The counts
can be run in pieces, with `--share` and another `--seed` for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cache_damage import disk_full, flips, read_only, refused
from benchmarks.cache_deaths import clocks, kills, removed

EXPERIMENTS: dict[str, tuple[int, Callable[[int, Path, int], dict[str, Any]]]] = {
    "kills": (200, lambda rounds, folder, seed: kills(rounds, folder, 1, seed)),
    "kills_two_ranks": (20, lambda rounds, folder, seed: kills(rounds, folder, 2, seed)),
    "flips": (2000, flips),
    "refused": (500, refused),
    "disk_full": (20, disk_full),
    "removed": (20, removed),
    "clocks": (20, clocks),
    "read_only": (1, lambda _, folder, __: read_only(folder)),
}
"""Each experiment and its full count."""


def holds(name: str, found: dict[str, Any]) -> bool:
    """Whether an experiment's counts are what was promised."""
    if name.startswith("kills"):
        return (
            found["identical"] == found["kills"]
            and found["lost_samples"] == 0
            and found["most_recomputed"] <= found["allowed_recomputed"]
            and found["survivors_ended_clearly"] == found["survivors"]
        )
    if name == "flips":
        return (
            found["detected"] == found["named"] == found["repaired"] == found["flips"]
            and found["silent_reads"] == 0
        )
    if name == "read_only":
        return found["clear_error"] == 1 and found["left_behind"] == 0
    if name == "refused":
        return found["named_by_verify"] == found["named_by_reading"] == found["rounds"]
    if name == "disk_full" and found["refused_early"] != found["early"]:
        return False
    if name == "clocks":
        return found["resumed"] == found["identical"] == found["rounds"]
    return found["clear_error"] == found["identical"] == found["rounds"]


def main() -> int:
    """Run the experiments and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help="comma-separated")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.only.split(","):
        count, experiment = EXPERIMENTS[name]
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            rounds = max(1, round(count * options.share))
            results[name] = experiment(rounds, Path(folder), options.seed)
            results[name]["holds"] = holds(name, results[name])
            results[name]["seconds"] = round(time.monotonic() - began, 1)
        if not options.json:
            print(name, json.dumps(results[name]), flush=True)
    if options.json:
        print(json.dumps(results))
    return 0 if all(result["holds"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
