"""The commands that need few packages run with these alone; the others name what they lack.

Other packages are hidden from a real process by a finder that stands before all others, so that
this runs wherever the suite runs. `benchmarks/light_install.py` makes the true environment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmfe_cache.images import write_png
from mmfe_cli.app import COMMANDS, GROUPS
from mmfe_cli.packages import packages

ROOT = Path(__file__).parents[2]
ASKED = [
    line
    for line in (ROOT / "requirements-restore.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

PROGRAM = """
import json, sys

hidden, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Without:
    # As if the packages were not there: what probes for them with find_spec gets None.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, *more)

    def __getattr__(self, name):  # what reads metadata asks the finders too
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
if len(commands) == 1:
    sys.argv[1:] = commands[0]
    from mmfe_cli.__main__ import main
    main()
from mmfe_cli.app import run
for words in commands:
    print(" ".join(words), file=sys.stderr)
    print("code", run(words), file=sys.stderr)
"""


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of what pip would install for these."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in metadata.requires(name) or ()]
    return found


def modules_beyond(requirements: list[str]) -> list[str]:
    """Modules of installed packages that pip would not install for these."""
    allowed = closure(requirements) | {"mmfe"}
    beyond = {
        module
        for module, owners in metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & allowed
    }
    asked = {one.module for one in packages() if canonicalize_name(one.name) in allowed}
    return sorted(beyond | {one.module for one in packages()} - asked)


def mmfe(
    folder: Path, hidden: list[str], *commands: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Run one command as the program does, or several in one process: importing torch is slow."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(hidden), json.dumps(commands)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def beyond() -> list[str]:
    return modules_beyond(ASKED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    return tmp_path


def test_the_list_is_short_and_part_of_the_whole() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(ASKED) <= set(whole["dependencies"])
    assert len(ASKED) <= 10


def test_the_hidden_are_the_heavy(beyond: list[str]) -> None:
    for name in ("lightning", "transformers", "torchmetrics", "zarr", "h5py", "scipy", "skimage",
                 "matplotlib", "pywt", "pytorch_wavelets", "google_crc32c", "huggingface_hub",
                 "timm", "tensorboard", "onnx", "pillow_heif"):  # fmt: skip
        assert name in beyond
    for name in ("torch", "numpy", "PIL", "yaml", "typer", "rich", "safetensors", "pydantic"):
        assert name not in beyond


def test_what_needs_few_packages_runs_with_them(folder: Path, beyond: list[str]) -> None:
    commands = (
        ("restore", "in.png", "-o", "out.png"),
        ("inspect", "in.png", "--json"),
        ("export", "mmfe-small", "-o", "small.safetensors"),
        ("model", "list"),
        ("model", "info", "--recipe", "small"),
        ("doctor", "--json"),
        *((name, "--help") for name in (*COMMANDS, *GROUPS)),
    )
    done = mmfe(folder, beyond, *commands)
    codes = [line for line in done.stderr.splitlines() if line.startswith("code ")]
    assert codes == ["code 0"] * len(commands), done.stderr
    assert (folder / "out.png").is_file()


def test_every_other_command_names_what_it_lacks(folder: Path, beyond: list[str]) -> None:
    commands = (
        ("train", "--recipe", "small", "--root", "."),
        ("eval", "--checkpoint", "mmfe-small", "--root", "."),
        ("data", "synth", ".", "--out", "set"),
        ("demo", "--out", "demo"),
        ("cache", "info", "some.zarr"),
        ("guide", "make-tiny", "toy"),
        ("restore", "in.png", "-o", "o", "--checkpoint", "a/b"),
        ("plot", "embeddings", "some.zarr"),
    )
    done = mmfe(folder, beyond, *commands)
    assert "Traceback" not in done.stderr
    said = re.findall(r"code (\d)|needs the package (\S+), which is not installed", done.stderr)
    lines = {one.name: one.line for one in packages() if one.extra is None}
    for (_, package), (code, _) in zip(said[::2], said[1::2], strict=True):
        assert code == "1"
        assert f"to do:    {lines[package]}\n" in done.stderr
    assert len(said) == 2 * len(commands), done.stderr


@pytest.mark.parametrize(
    ("module", "words", "package"),
    [
        ("torch", ("restore", "in.png", "-o", "o"), "torch"),
        ("PIL", ("inspect", "in.png"), "Pillow"),
        ("skimage", ("demo", "--out", "demo"), "scikit-image"),
        ("typer", ("--help",), "typer"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    folder: Path, module: str, words: tuple[str, ...], package: str
) -> None:
    done = mmfe(folder, [module], words)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"needs the package {package}, which is not installed" in done.stderr
    line = next(one.line for one in packages() if one.name == package and one.extra is None)
    assert line in done.stderr


def test_a_module_that_mmfe_does_not_use_is_a_fault() -> None:
    from mmfe_cli.packages import about_missing

    assert about_missing(ModuleNotFoundError("x", name="no_such_module")) is None
    assert about_missing(ModuleNotFoundError("x", name="mmfe_cache.gone")) is None
