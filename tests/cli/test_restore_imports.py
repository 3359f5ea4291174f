"""What `mmfe restore` imports, in a process of its own: every photograph waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmfe_cache.images import write_png
from mmfe_restore import Restorer, load_recipe

HEAVY = {"torchmetrics", "lightning", "transformers", "matplotlib", "skimage", "pytorch_wavelets"}

PROGRAM = """
import sys
from mmfe_cli.app import run
code = run(sys.argv[1:])
print("modules", code, *sorted({name.split(".")[0] for name in sys.modules}))
"""


def modules_after(folder: Path, *arguments: str) -> tuple[int, set[str], str]:
    """The exit code of a command line, the packages it imported, and what it said."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, encoding="utf-8")
    _, code, *names = done.stdout.splitlines()[-1].split(" ")
    return int(code), set(names), done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_png(tmp_path / "in.png", np.zeros((16, 16, 3), dtype=np.uint8))
    return tmp_path


def test_restoring_a_photograph_imports_nothing_that_it_does_not_use(folder: Path) -> None:
    recipe = load_recipe("demo", ["model.width=8", "model.num_heads=[1,1,2,2]"])
    Restorer.from_recipe(recipe).save_pretrained(folder / "model")
    code, names, _ = modules_after(folder, "restore", "in.png", "-o", "o", "--checkpoint", "model")
    assert code == 0
    assert "torch" in names
    assert not names & HEAVY


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (("restore", "nowhere.png", "-o", "o"), 1, "nowhere.png does not exist"),
        (
            ("restore", "in.png", "-o", "o", "--checkpoint", "./nowhere"),
            2,
            "no checkpoint at nowhere",
        ),
        (("restore", "in.png", "-o", "o", "--tile", "7"), 2, "--tile"),
        (("inspect", "nowhere.png"), 1, "mmfe: nowhere.png does not exist"),
        (("inspect", "in.png", "--guide", "nobody"), 2, "unknown guide"),
        (("export", "./nowhere", "-o", "o.onnx"), 2, "no checkpoint at nowhere"),
        (("eval", "--checkpoint", "./nowhere"), 2, "no checkpoint at nowhere"),
        (("eval",), 2, "no finished run"),
    ],
)
def test_a_wrong_path_is_said_without_torch(
    folder: Path, arguments: tuple[str, ...], expected: int, words: str
) -> None:
    code, names, said = modules_after(folder, *arguments)
    assert code == expected
    assert words in said
    assert "torch" not in names
