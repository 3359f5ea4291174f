"""How many threads a computation on the CPU takes, by a short measurement under the load at hand.

PyTorch takes one thread a core. On a machine that others use as well, two threads of one product
then wait for each other on the same core, and every step takes five to twenty times as long.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

VARIABLE = "OMP_NUM_THREADS"
"""Whoever sets it has chosen."""

TOLERANCE = 1.1
"""More threads are taken only where they save more than this factor."""

REPEATS = 5


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads and why it was taken.

    Attributes:
        count: of threads.
        reason: one clause for people.
    """

    count: int
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"threads: {self.count} ({self.reason})"


def choose_threads(
    cores: int | None = None, measure: Callable[[int], float] | None = None
) -> ThreadChoice:
    """The fewest threads that compute about as fast as any number of them; sets nothing.

    Args:
        cores: that this process may use; None asks the system.
        measure: seconds that a fixed piece of work takes on so many threads; None runs
            convolutions and products like the network's for some milliseconds.
    """
    given = os.environ.get(VARIABLE, "")
    if given.isdecimal() and int(given) > 0:
        return ThreadChoice(int(given), f"{VARIABLE} says so")
    cores = usable_cores() if cores is None else cores
    counts = sorted({cores, *(1 << n for n in range(cores.bit_length()) if 1 << n <= cores)})
    if len(counts) == 1:
        return ThreadChoice(1, "there is one core")
    measure = time_network if measure is None else measure
    seconds = {count: measure(count) for count in counts}
    best = min(seconds.values())
    chosen = next(count for count in counts if seconds[count] <= TOLERANCE * best)
    timed = ", ".join(f"{1000 * s:.1f} ms on {count}" for count, s in seconds.items())
    return ThreadChoice(chosen, f"measured: {timed}")


def usable_cores() -> int:
    """The cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def time_network(threads: int) -> float:
    """Seconds that one convolution and one product take on ``threads`` threads, the median of 5."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        image, kernel = torch.ones(2, 48, 64, 64), torch.ones(48, 48, 3, 3)
        matrix = torch.ones(256, 256)
        seconds: list[float] = []
        with torch.inference_mode():
            for _ in range(REPEATS + 1):
                started = time.perf_counter()
                torch.nn.functional.conv2d(image, kernel, padding=1)
                _ = matrix @ matrix
                seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return statistics.median(seconds[1:])  # the first also starts the threads
