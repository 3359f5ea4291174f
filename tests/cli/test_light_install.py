"""The commands that need few packages run with these alone; the others name what they lack.

Other packages are hidden from a real process by a finder that stands before all others, so that
this runs wherever the suite runs. `benchmarks/light_install.py` makes the true environment.
"""

from __future__ import annotations

import json
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
from mmfe_cli.packages import packages

ROOT = Path(__file__).parents[2]
ASKED = [
    line
    for line in (ROOT / "requirements-restore.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

PROGRAM = """
import json, sys
from importlib.abc import MetaPathFinder

hidden = set(json.loads(sys.argv[1]))

class Hide(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
sys.argv[1:2] = []
from mmfe_cli.__main__ import main
main()
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
    # Namespaces of several packages, such as google and nvidia, hide too much; the modules in use
    # are hidden by the names that mmfe imports.
    return sorted((beyond | {one.module for one in packages()} - shown(allowed)))


def shown(allowed: set[str]) -> set[str]:
    return {one.module for one in packages() if canonicalize_name(one.name) in allowed}


def mmfe(folder: Path, hidden: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(hidden), *words],
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
                 "timm", "tensorboard", "jinja2", "onnx", "pillow_heif"):  # fmt: skip
        # torch brings Jinja2 itself
        assert (name in beyond) != (name == "jinja2"), name
    for name in ("torch", "numpy", "PIL", "yaml", "typer", "rich", "safetensors", "pydantic"):
        assert name not in beyond


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "in.png", "-o", "out.png"),
        ("inspect", "in.png", "--json"),
        ("model", "list"),
        ("model", "info", "--recipe", "small"),
        ("doctor", "--json"),
        ("data", "list"),
        ("guide", "list"),
    ],
    ids=" ".join,
)
def test_what_needs_few_packages_runs_with_them(
    folder: Path, beyond: list[str], words: tuple[str, ...]
) -> None:
    done = mmfe(folder, beyond, *words)
    assert done.returncode == 0, done.stderr
    if words[0] == "restore":
        assert (folder / "out.png").is_file()


def test_the_help_of_every_command_needs_none_of_the_others(
    folder: Path, beyond: list[str]
) -> None:
    from mmfe_cli.commands import COMMANDS, GROUPS

    program = PROGRAM.replace(
        "from mmfe_cli.__main__ import main\nmain()",
        "from mmfe_cli.app import run\n"
        f"sys.exit(max(run([name, '--help']) for name in {[*COMMANDS, *GROUPS]!r}))",
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([*beyond, "torch", "numpy", "PIL"])],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("hidden", "words", "package"),
    [
        (["lightning"], ("train", "--recipe", "small", "--root", "."), "lightning"),
        (["torchmetrics"], ("eval", "--checkpoint", "mmfe-small", "--root", "."), "torchmetrics"),
        (["h5py"], ("data", "check", "--dataset", "cdd11", "--root", "."), "h5py"),
        (["scipy"], ("data", "synth", ".", "--out", "set"), "scipy"),
        (["skimage"], ("demo", "--out", "demo"), "scikit-image"),
        (["google_crc32c"], ("cache", "info", "some.zarr"), "google-crc32c"),
        (["transformers"], ("guide", "make-tiny", "toy"), "transformers"),
        (["huggingface_hub"], ("restore", "in.png", "-o", "o", "--checkpoint", "a/b"),
         "huggingface-hub"),
        (["torch"], ("restore", "in.png", "-o", "o"), "torch"),
        (["safetensors"], ("restore", "in.png", "-o", "o"), "safetensors"),
        (["PIL"], ("inspect", "in.png"), "Pillow"),
        (["typer"], ("--help",), "typer"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    folder: Path, hidden: list[str], words: tuple[str, ...], package: str
) -> None:
    done = mmfe(folder, hidden, *words)
    assert done.returncode == 1, done.stderr
    said = done.stderr
    assert "Traceback" not in said
    assert f"needs the package {package}, which is not installed" in said
    line = next(one.line for one in packages() if one.name == package and one.extra is None)
    assert line in said


def test_a_module_that_mmfe_does_not_use_is_a_fault() -> None:
    from mmfe_cli.packages import about_missing

    assert about_missing(ModuleNotFoundError("x", name="no_such_module")) is None
    assert about_missing(ModuleNotFoundError("x", name="mmfe_cache.gone")) is None
