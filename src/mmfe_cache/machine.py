"""What the machine offers: devices, precisions, threads, a launcher's processes, memory."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mmfe_cache.errors import UsageError

if TYPE_CHECKING:
    import torch


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU: asked here only, so that all parts of a run agree."""
    import torch

    return torch.cuda.is_available()


def driver_problem() -> tuple[str, str] | None:
    """What keeps PyTorch from a GPU that is there, and what to do: NVIDIA's driver is too old.

    ``auto`` then means the CPU. None where there is no GPU, or one that can be used.
    """
    import torch

    if torch.version.cuda is None or has_gpu():
        return None
    try:
        torch.cuda.init()
    except RuntimeError as problem:
        said = _first_sentence(problem)
        return (said, _new_driver()) if _is_old_driver(said) else None
    return None


def _first_sentence(problem: BaseException) -> str:
    return re.split(r"\. |\n", str(problem).strip(), maxsplit=1)[0]


def _is_old_driver(problem: str) -> bool:
    return "driver" in problem and "old" in problem


def _new_driver() -> str:
    import torch

    return (
        f"update NVIDIA's driver to one for CUDA {torch.version.cuda}, or install PyTorch for an "
        "older CUDA (make install TORCH_INDEX=...); --device cpu works meanwhile"
    )


def check_workers(count: int | None) -> None:
    """Refuse a number of threads that nobody can start; None leaves the number to the callee.

    Raises:
        UsageError: it is below 1.
    """
    if count is not None and count < 1:
        raise UsageError("work is done by at least one thread", got=f"{count} workers")


def check_device(name: str) -> None:
    """Refuse a word that is no device's name, without torch; `pick_device` tells what is there.

    Raises:
        UsageError: it names none.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is None:
        raise UsageError(
            "this device cannot be used here",
            got=f"{name!r} (another kind of device)",
            expected="auto, cpu, cuda, cuda:N or mps",
        )


def pick_device(name: str | torch.device = "auto", *, for_training: bool = False) -> torch.device:
    """The device that ``--device`` means: CUDA's where there is one for ``"auto"``.

    Every command asks here, so that a device that is not there is refused in one way.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        for_training: refuses ``"mps"``, on which nothing here is trained.

    Raises:
        UsageError: another kind of device, or one that is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if has_gpu() else "cpu")
    try:
        chosen = torch.device(name)
        if chosen.type == "mps" and for_training:
            raise _no_device(name, "it restores, but does not train")
        if chosen.type not in ("cpu", "cuda", "mps"):
            raise _no_device(name, "another kind of device")
        count = torch.cuda.device_count()
        if chosen.type == "cuda" and count and (chosen.index or 0) >= count:
            cards = "one card, cuda:0" if count == 1 else f"{count} cards"
            raise _no_device(name, f"this machine has {cards}")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as problem:
        # An index that is not there, a driver that is too old, a build of torch without CUDA.
        raise _no_device(name, _first_sentence(problem)) from problem
    return chosen


def _no_device(name: str | torch.device, problem: str) -> UsageError:
    import torch

    there = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    there += ["mps"] if torch.backends.mps.is_available() else []
    remedy = "--device auto takes the GPU where there is one, and the CPU where there is none"
    if _is_old_driver(problem):
        remedy = _new_driver()
    return UsageError(
        "this device cannot be used here",
        got=f"{str(name)!r} ({problem})",
        expected=" or ".join(["auto", "cpu", *there]),
        remedy=remedy,
    )


def emulates_bf16() -> bool:
    """Whether this CPU is known to have no products in bfloat16.

    They are made of float32 ones then: on such a CPU `mmfe train --recipe small` said 0.70 images/s
    at crops of 192², and 1.45 with ``--set train.precision=32``.
    """
    import torch

    # Earlier versions of PyTorch lack it; elsewhere than on x86 nothing is known.
    known = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
    bf16 = any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return known.get("architecture") == "x86_64" and not bf16


def require_bf16(device: torch.device | str, remedy: str) -> None:
    """Refuse a GPU that has no arithmetic in bfloat16: those before Ampere (2020).

    PyTorch would emulate it, slower than float32.

    Args:
        device: a CUDA device; anything else passes.
        remedy: what to ask for instead.

    Raises:
        UsageError: it has none.
    """
    import torch

    chosen = torch.device(device)
    if chosen.type != "cuda":
        return
    major, minor = torch.cuda.get_device_capability(chosen)
    if major >= 8:
        return
    raise UsageError(
        "this GPU does not compute in bfloat16",
        got=f"{torch.cuda.get_device_name(chosen)}, compute capability {major}.{minor}",
        expected="compute capability 8.0 or more",
        remedy=remedy,
    )


def to_float64(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in float64: where it is, or on the CPU where its device (MPS) knows no float64."""
    # First moved and then cast: in one step, it would be cast where it is.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


@contextmanager
def float32_products(*, tf32: bool = False) -> Generator[None]:
    """Multiply and convolve float32 on a GPU exactly inside the block, or in TF32.

    TF32 keeps 10 of the 23 bits after the point and is several times faster. PyTorch's default is
    neither: products are exact and convolutions are not. Whoever runs a network in float32 says
    here which of the two is meant. On a CPU nothing changes.

    Args:
        tf32: whether TF32 is allowed.
    """
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an error says that a device or the machine had no memory left."""
    if isinstance(problem, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator and older back ends only say
    # it in words.
    text = str(problem)
    return isinstance(problem, RuntimeError) and (
        "DefaultCPUAllocator" in text or "out of memory" in text.lower()
    )


Launcher = Literal["torchrun", "slurm"]


@dataclass(frozen=True)
class Processes:
    """The processes that a launcher started this one among.

    Attributes:
        rank: of this process among all, from 0.
        size: how many there are.
        local_size: how many of them are on this node.
        launcher: what started them; None for a plain start, which is one process.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    launcher: Launcher | None = None

    @property
    def nodes(self) -> int:
        """How many machines they are spread over."""
        return self.size // self.local_size

    @classmethod
    def detect(cls) -> Processes:
        """Read what torchrun or srun wrote into the environment."""
        env = os.environ
        if "TORCHELASTIC_RUN_ID" in env:
            size = int(env.get("WORLD_SIZE", "1"))
            local = int(env.get("LOCAL_WORLD_SIZE", str(size)))
            return cls(int(env.get("RANK", "0")), size, local, "torchrun")
        # Of the step, not of the job: a batch script and the shells of `salloc` and
        # `srun --pty bash` know the job's number of tasks as well, but are started once, and srun
        # starts tasks under whatever name the job has.
        size = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
        if size > 1:
            local = size // int(env.get("SLURM_STEP_NUM_NODES", "1"))
            return cls(int(env.get("SLURM_PROCID", "0")), size, local, "slurm")
        return cls()


def launcher_plugins(launcher: Launcher | None) -> list[Any]:
    """What tells Lightning who started the processes; it would go by the SLURM job's name."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if launcher == "slurm":
        # Requeueing is the batch script's (docs/operations.md); the checkpoint is ours.
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if launcher is None else []


THREADS_VARIABLE = "OMP_NUM_THREADS"
"""Whoever sets it has chosen."""

_TOLERANCE = 1.1
"""More threads are taken only where they save more than this factor."""

_REPEATS = 5


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
    given = os.environ.get(THREADS_VARIABLE, "")
    if given.isdecimal() and int(given) > 0:
        return ThreadChoice(int(given), f"{THREADS_VARIABLE} says so")
    cores = usable_cores() if cores is None else cores
    counts = sorted({cores, *(1 << n for n in range(cores.bit_length()) if 1 << n <= cores)})
    if len(counts) == 1:
        return ThreadChoice(1, "there is one core")
    measure = time_network if measure is None else measure
    seconds = {count: measure(count) for count in counts}
    best = min(seconds.values())
    chosen = next(count for count in counts if seconds[count] <= _TOLERANCE * best)
    timed = ", ".join(f"{1000 * s:.1f} ms on {count}" for count, s in seconds.items())
    return ThreadChoice(chosen, f"measured: {timed}")


def usable_cores() -> int:
    """The cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(system: Path = Path("/")) -> int:
    """Bytes of memory that may still be taken; 0 where the system does not say.

    On Linux that is what the kernel can give without swapping, copies of files that it need not
    keep included, but no more than the limits of a container or a job leave.

    Args:
        system: where ``proc`` and ``sys`` lie.
    """
    available = _fields(system / "proc/meminfo").get("MemAvailable")
    if available is not None:
        return max(0, min([1024 * available, *_left_of_limits(system)]))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


_LIMITS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of both versions of control groups, by controller: the folder, and the files and the field."""


def _left_of_limits(system: Path) -> Iterator[int]:
    """What each limit leaves: that of the process's own control group, and of those above it."""
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in _LIMITS.keys() & set(controllers.split(",")):
            folder, limit, usage, files = _LIMITS[controller]
            top = system / "sys/fs/cgroup" / folder
            own = top / path.lstrip("/")
            for group in (own, *own.parents):
                if not group.is_relative_to(top):
                    break
                numbers = [_text(group / name).strip() for name in (limit, usage)]
                if all(number.isdigit() for number in numbers):  # "max" is none
                    kept = _fields(group / "memory.stat").get(files, 0)
                    yield int(numbers[0]) - int(numbers[1]) + kept


def _fields(path: Path) -> dict[str, int]:
    """The lines ``name number`` or ``name: number unit`` of a file of the kernel's."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
            for _ in range(_REPEATS + 1):
                started = time.perf_counter()
                torch.nn.functional.conv2d(image, kernel, padding=1)
                _ = matrix @ matrix
                seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return statistics.median(seconds[1:])  # the first also starts the threads


Precision = Literal["auto", "32", "tf32", "bf16", "16", "float32", "bfloat16", "float16"]
"""What ``--precision`` takes; ``auto`` is bf16 on a GPU and 32 on a CPU."""

LongName = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
ShortName = Literal["auto", "32", "tf32", "bf16", "16"]

_LONG = {"32": "float32", "64": "float64", "bf16": "bfloat16", "16": "float16"}
_SHORT = {long: short for short, long in _LONG.items()}


def long_name(precision: Precision) -> LongName:
    """PyTorch's word: ``bf16`` becomes ``bfloat16``; what is none stays."""
    return cast("LongName", _LONG.get(precision, precision))


def short_name(precision: Precision) -> ShortName:
    """Lightning's word: ``bfloat16`` becomes ``bf16``; what is none stays."""
    return cast("ShortName", _SHORT.get(precision, precision))
