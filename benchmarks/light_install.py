"""Makes the environment of requirements-restore.txt from nothing, uses it and measures it.

    python -m benchmarks.light_install --json
    python -m benchmarks.light_install --torch 2.13.0+cpu    # where pip finds a build without CUDA
    python -m benchmarks.light_install --index-url URL       # PyTorch from its index for the CPU

It installs with pip alone, runs the commands that need no more on a picture made on the spot, and
one that needs more, and prints the size and number of packages. Exits 1 where any of this fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ASKED = ROOT / "requirements-restore.txt"

COMMANDS = (
    ("model", "list"),
    ("model", "info", "--recipe", "small"),
    ("inspect", "photo.png"),
    ("restore", "photo.png", "-o", "restored"),
    ("export", "mmfe-small", "-o", "small.safetensors"),
    ("doctor",),
)
"""What must work, in this order, in a folder that holds photo.png."""

TOO_MUCH = ("eval", "--checkpoint", "mmfe-small")
"""A command that needs more: it must say what."""

PICTURE = """
import numpy as np
from PIL import Image
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
Image.fromarray(noise).save("photo.png")
"""

CUDA = ("cuda-", "nvidia-", "triton")
"""How the packages begin that PyTorch needs for GPUs alone."""

COUNT = """
import json, sysconfig
from importlib.metadata import distributions
found = {}
for one in distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]):
    files = {file.locate() for file in one.files or ()}
    size = sum(file.stat().st_size for file in files if file.is_file())
    found[one.name] = {"version": one.version, "bytes": size}
print(json.dumps(found))
"""


def constraints(torch: str | None, folder: Path) -> Path:
    """constraints.txt, or a copy that pins another torch."""
    given = ROOT / "constraints.txt"
    if torch is None:
        return given
    lines = given.read_text(encoding="utf-8").splitlines()
    changed = [f"torch=={torch}" if line.startswith("torch==") else line for line in lines]
    copy = folder / "constraints.txt"
    copy.write_text("\n".join(changed) + "\n", encoding="utf-8")
    return copy


def measure(folder: Path, python: str, torch: str | None, index_url: str | None) -> dict[str, Any]:
    """Make the environment in ``folder``, run the commands and count."""
    started = time.perf_counter()
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    here = folder / "venv" / "bin" / "python"
    pip = [here, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pins = ["--constraint", constraints(torch, folder)]
    if index_url is not None:
        subprocess.run([*pip, *pins, "--index-url", index_url, "torch"], check=True)
    subprocess.run([*pip, *pins, "--requirement", ASKED], check=True)
    subprocess.run([*pip, "--no-deps", ROOT], check=True)
    installed = time.perf_counter() - started
    subprocess.run([here, "-c", PICTURE], cwd=folder, check=True)

    runs: list[dict[str, Any]] = []
    for words in (*COMMANDS, TOO_MUCH):
        started = time.perf_counter()
        done = subprocess.run(
            [folder / "venv" / "bin" / "mmfe", *words],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        runs.append(
            {
                "command": " ".join(("mmfe", *words)),
                "code": done.returncode,
                "seconds": round(time.perf_counter() - started, 2),
                "said": done.stderr,
            }
        )
    counted = subprocess.run([here, "-c", COUNT], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(counted.stdout)
    found.pop("pip", None)
    return {"install_seconds": round(installed, 1), "runs": runs, "packages": found}


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="that makes the environment")
    parser.add_argument("--torch", metavar="VERSION", help="instead of constraints.txt's")
    parser.add_argument("--index-url", metavar="URL", help="where PyTorch comes from")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmfe-light-") as folder:
        found = measure(Path(folder), given.python, given.torch, given.index_url)

    packages = found["packages"]
    lines = ASKED.read_text(encoding="utf-8").splitlines()
    whole = sum(one["bytes"] for one in packages.values())
    without = whole - sum(
        one["bytes"] for name, one in packages.items() if name.lower().startswith((*CUDA, "torch"))
    )
    found |= {
        "asked_for": len([line for line in lines if line and not line.startswith("#")]),
        "installed": len(packages),
        "for_gpus": len([name for name in packages if name.lower().startswith(CUDA)]),
        "bytes": whole,
        "bytes_without_torch": without,
    }
    failed = [run for run in found["runs"][:-1] if run["code"]]
    more = found["runs"][-1]
    good = not failed and more["code"] == 1 and "pip install" in more["said"]
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        for run in found["runs"]:
            print(f"{run['code']}  {run['seconds']:6.2f} s  {run['command']}")
        print(more["said"])
        for name, one in sorted(packages.items(), key=lambda item: -item[1]["bytes"]):
            print(f"{one['bytes'] / 2**20:9.1f} MiB  {name} {one['version']}")
        print(
            f"{found['asked_for']} packages asked for, {found['installed']} installed "
            f"({found['for_gpus']} for GPUs), {whole / 2**20:.0f} MiB, "
            f"{without / 2**20:.0f} MiB without PyTorch"
        )
    for run in failed:
        print(f"{run['command']} failed:\n{run['said']}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
