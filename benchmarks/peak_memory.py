"""Peak memory of a piece of work, without what was there before it: on a CPU and on a GPU."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its construction on.

    On a CPU this is the process's resident memory, which Linux alone lets one reset; memory that
    earlier work freed is given back first, or the work would be seen to need nothing.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 2**20
            return
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5", encoding="utf-8")
        self._before = kilobytes("VmRSS") / 1024

    def megabytes(self) -> float:
        """The most that was in use at once since then, beyond what was in use then."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() / 2**20 - self._before
        return kilobytes("VmHWM") / 1024 - self._before


def kilobytes(name: str) -> int:
    """A line of this process's `/proc` status, such as ``VmRSS``."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.M)
    assert found is not None
    return int(found.group(1))
