"""`mmfe doctor`: what a bug report needs to say of an installation and its machine."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from . import output
from .options import Json
from .packages import EVERYTHING, Package, packages
from .tables import screen, wrapped

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "MMFE_CACHE",
    "MMFE_DATA",
    "MMFE_MAX_PIXELS",
    "MMFE_RUNS",
    "OMP_NUM_THREADS",
)
"""The environment variables that change what commands do."""


def command(
    as_json: Json = False,
) -> None:
    """Say what is installed and where things lie: what a bug report needs.

    Versions, devices, extras, memory, disk, folders, the shipped weights and the number of threads.
    Exits 1 where something is wrong. Nothing is sent anywhere.

    Example: mmfe doctor --json
    """
    found = examine()
    if as_json:
        output.print_json(found)
    else:
        _print(found)
    if found["problems"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """All that the command reports, as plain values."""
    from importlib.metadata import version

    problems: list[str] = []
    listed = [_package(one, problems) for one in packages()]
    torch = _torch(problems)
    return {
        "mmfe": version("mmfe"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": _processor(),
        "torch": torch,
        "devices": _devices() if torch is not None else [],
        "threads": _threads() if torch is not None else None,
        "memory": _memory(),
        "packages": [one for one in listed if one["extra"] is None],
        "extras": _extras(listed),
        "places": _places(),
        "weights": _weights(problems) if torch is not None else [],
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "problems": problems,
    }


def _package(package: Package, problems: list[str]) -> dict[str, Any]:
    here = package.installed
    if here is not None and not fits(here, package.versions):
        problems.append(
            f"{package.name} {here} is installed, mmfe needs {package.versions}: {package.line}"
        )
    return {
        "name": package.name,
        "versions": package.versions,
        "installed": here,
        "extra": package.extra,
        "install": package.line,
    }


_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9.]+)")


def fits(version: str, wanted: str) -> bool:
    """Whether a version is among those that mmfe's metadata allow, such as ``>=2.6,!=2.6.2``.

    Only numbers and dots are compared, which is all that mmfe's own requirements use: what follows
    them, such as ``+cpu`` or ``rc1``, is left out.
    """
    here = _numbers(version)
    for sign, text in _CLAUSE.findall(wanted):
        there = _numbers(text)
        length = max(len(here), len(there))
        a, b = ((*n, *[0] * (length - len(n))) for n in (here, there))
        results = {
            ">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b,
        }  # fmt: skip
        if not results[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _extras(listed: list[dict[str, Any]]) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    for name in dict.fromkeys(one["extra"] for one in listed if one["extra"] is not None):
        missing = [one for one in listed if one["extra"] == name and one["installed"] is None]
        wanted = " ".join(f"'{one['name']}{one['versions']}'" for one in missing)
        extras[name] = {
            "installed": not missing,
            "missing": [one["name"] for one in missing],
            "install": f"pip install {wanted}" if missing else None,
        }
    return extras


def _torch(problems: list[str]) -> dict[str, Any] | None:
    try:
        import torch
    except Exception as problem:  # a library that is not there, a driver, a half installation
        problems.append(f"torch cannot be imported: {type(problem).__name__}: {problem}")
        return None
    from mmfe_cache.machine import driver_problem

    if found := driver_problem():
        problems.append(f"no GPU can be used: {'; '.join(found)}")
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}


def _devices() -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = [
        {"name": "cpu", "model": _model(), "instructions": torch.backends.cpu.get_cpu_capability()}
    ]
    with contextlib.suppress(RuntimeError):  # a driver that is too old is told by `cuda`
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found.append(
                {
                    "name": f"cuda:{index}",
                    "model": about.name,
                    "memory": about.total_memory,
                    "capability": f"{about.major}.{about.minor}",
                }
            )
    return found


def _model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _processor() -> dict[str, Any]:
    from mmfe_cache.machine import usable_cores

    return {"machine": platform.machine(), "cores": os.cpu_count(), "usable": usable_cores()}


def _threads() -> dict[str, Any]:
    from mmfe_cache.machine import choose_threads

    chosen = choose_threads()
    return {"count": chosen.count, "reason": chosen.reason}


def _memory() -> dict[str, int | None]:
    from mmfe_cache.machine import free_memory

    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on this system
        total = None
    return {"total": total, "free": free_memory() or None}


def _places() -> dict[str, Any]:
    import tempfile

    from mmfe_cache.io import free_bytes
    from mmfe_cache.places import CACHE, DATA, RUNS

    folders: dict[str, tuple[Path, str | None]] = {
        "data": (DATA.folder, DATA.variable),
        "cache": (CACHE.folder, CACHE.variable),
        "runs": (RUNS.folder, RUNS.variable),
        "hugging face": (Path(os.environ.get("HF_HOME") or "~/.cache/huggingface"), "HF_HOME"),
        "temporary": (Path(tempfile.gettempdir()), "TMPDIR"),
    }
    return {
        name: {
            "path": str(folder.expanduser().absolute()),
            "exists": folder.expanduser().is_dir(),
            "free": free_bytes(folder.expanduser()),
            "variable": variable,
        }
        for name, (folder, variable) in folders.items()
    }


def _weights(problems: list[str]) -> list[dict[str, Any]]:
    from mmfe_cache.errors import MmfeError
    from mmfe_cache.guides.scene.guide import load_scene
    from mmfe_restore.model.folders import shipped_models

    found: list[dict[str, Any]] = []

    def note(name: str, sha256: str | None, problem: MmfeError | None) -> None:
        found.append({"name": name, "sha256": sha256, "intact": problem is None})
        if problem is not None:
            problems.append(str(problem))

    try:
        models = shipped_models()
    except MmfeError as problem:
        problems.append(str(problem))
        models = {}
    for name, model in models.items():
        try:
            model.check()
            note(name, model.sha256, None)
        except MmfeError as problem:
            note(name, model.sha256, problem)
    try:
        note("scene", load_scene()[1], None)
    except MmfeError as problem:
        note("scene", None, problem)
    return found


def _print(found: Mapping[str, Any]) -> None:
    from mmfe_cache.io import format_bytes

    def size(count: int | None) -> str:
        return "unknown" if count is None else format_bytes(count)

    torch, memory, processor = found["torch"], found["memory"], found["processor"]
    lines = [
        ("mmfe", found["mmfe"]),
        ("Python", found["python"]),
        ("system", found["system"]),
        ("cores", f"{processor['usable']} of {processor['cores']}, {processor['machine']}"),
        ("memory", f"{size(memory['total'])}, {size(memory['free'])} free"),
    ]
    if torch is not None:
        built = f"CUDA {torch['cuda']}, cuDNN {torch['cudnn']}" if torch["cuda"] else "no CUDA"
        lines += [("torch", f"{torch['version']}, built with {built}")]
        lines += [
            (device["name"], ", ".join([device["model"], *_about_device(device)]))
            for device in found["devices"]
        ]
        lines += [("threads", f"{found['threads']['count']} ({found['threads']['reason']})")]
    for name, place in found["places"].items():
        there = "" if place["exists"] else ", not there yet"
        lines.append((name, f"{place['path']} ({size(place['free'])} free{there})"))
    for one in found["weights"]:
        state = f"intact, SHA-256 {one['sha256'][:16]}…" if one["intact"] else "DAMAGED"
        lines.append((one["name"], state))
    lines += list(found["environment"].items())
    _say_lines(lines)

    here = [one for one in found["packages"] if one["installed"] is not None]
    output.print_line("\npackages:")
    _say_wrapped(", ".join(f"{one['name']} {one['installed']}" for one in here))
    missing = [one for one in found["packages"] if one["installed"] is None]
    if missing:
        output.print_line("\nnot installed, each needed by some commands:")
        for one in missing:
            output.print_line(f"  {one['install']}")
        output.print_line(f"  {EVERYTHING}")
    output.print_line("\nextras:")
    for name, extra in found["extras"].items():
        output.print_line(f"  {name}: {'installed' if extra['installed'] else extra['install']}")
    for problem in found["problems"]:
        output.error(problem)
    if not found["problems"]:
        output.print_line("\nnothing is wrong")


def _about_device(device: Mapping[str, Any]) -> list[str]:
    from mmfe_cache.io import format_bytes

    if "memory" not in device:
        return [str(device["instructions"])]
    return [format_bytes(device["memory"]), f"compute capability {device['capability']}"]


def _say_lines(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        output.print_line(f"{name:<{width}}  {text}")


def _say_wrapped(text: str) -> None:
    # Of a pipe, whoever reads it wants a width that any page shows.
    for line in wrapped(text, screen(sys.stdout) or 88, "  "):
        output.print_line(line)
