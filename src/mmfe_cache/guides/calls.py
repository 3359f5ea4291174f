"""How often any guide was called in this process: counted where a guide runs, nowhere else."""

from __future__ import annotations

_COUNT = [0]


def record_calls(samples: int) -> None:
    """Count ``samples`` more encoded samples; every guide calls this where its network runs."""
    _COUNT[0] += samples


def guide_calls() -> int:
    """How many samples any guide of this process has encoded so far."""
    return _COUNT[0]
