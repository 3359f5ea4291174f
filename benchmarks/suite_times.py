"""CPU seconds of every test, its child processes included.

On a machine that does other things too, wall-clock time says little. What a test's fixtures cost is
counted apart, at the test that needs them first.

Run: make test-times [PYTEST_ARGS="tests/cli -k demo"] [COUNT=20]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

SHOWN = 20


def cpu_seconds() -> float:
    """User and system time of this process and of all that descend from it, ended or not."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


class CpuTimes:
    """A pytest plugin that measures the phases of every test.

    Attributes:
        seconds: by test, what its fixtures and what the test itself took.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: {"fixtures": 0, "test": 0})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Measure the fixtures that this test is the first to need."""
        yield from self._measure(item, "fixtures")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Measure the test."""
        yield from self._measure(item, "test")

    def _measure(self, item: pytest.Item, phase: str) -> Generator[None]:
        began = cpu_seconds()
        try:
            return (yield)
        finally:
            # A grandchild that is left to itself takes its time out of the sum.
            self.seconds[item.nodeid][phase] += max(0.0, cpu_seconds() - began)


def main() -> int:
    """Run pytest with what is on the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count", type=int, default=SHOWN, help="how many of the slowest")
    parser.add_argument("--json", type=Path, help="also write all of them there")
    options, rest = parser.parse_known_args()
    times = CpuTimes()
    code = pytest.main(["-q", *rest], plugins=[times])
    by_cost = sorted(times.seconds.items(), key=lambda found: -sum(found[1].values()))
    print(f"{'fixtures':>9} {'test':>7}  CPU seconds")
    for name, spent in by_cost[: options.count]:
        print(f"{spent['fixtures']:9.1f} {spent['test']:7.1f}  {name}")
    shown = sum(sum(spent.values()) for _, spent in by_cost[: options.count])
    total = sum(sum(spent.values()) for _, spent in by_cost)
    print(f"{shown:.0f} s in these {min(options.count, len(by_cost))}, {total:.0f} s in all")
    if options.json is not None:
        options.json.write_text(json.dumps(dict(by_cost), indent=2), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
