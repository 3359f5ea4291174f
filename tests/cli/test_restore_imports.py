"""What `mmfe restore` imports, in a process of its own: every photograph waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_cache.images import write_png
from mmfe_cli.app import COMMANDS, GROUPS
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
    """A photograph, a folder of photographs, and a set in CDD11's layout, one picture a class."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", pixels)
    for label in (*COMPOSITIONS, "clear"):
        for split in ("train", "test"):
            place = tmp_path / "set" / split / label
            place.mkdir(parents=True)
            write_png(place / "1.png", pixels)
    (tmp_path / "photos").mkdir()
    write_png(tmp_path / "photos" / "1.png", pixels)
    return tmp_path


def test_restoring_a_photograph_imports_nothing_that_it_does_not_use(folder: Path) -> None:
    recipe = load_recipe("demo", ["model.width=8", "model.num_heads=[1,1,2,2]"])
    Restorer.from_recipe(recipe).save_pretrained(folder / "model")
    code, names, _ = modules_after(folder, "restore", "in.png", "-o", "o", "--checkpoint", "model")
    assert code == 0
    assert "torch" in names
    assert not names & HEAVY


def test_what_is_restored_already_waits_for_no_network(folder: Path) -> None:
    words = ["restore", "in.png", "photos", "-o", "o", "--suffix", "_x", "--json"]
    (folder / "photos" / "notes.txt").touch()
    code, names, _ = modules_after(folder, *words)
    assert (code, "torch" in names) == (0, True)
    done = {path: path.stat().st_mtime_ns for path in (folder / "o").iterdir()}
    assert {path.name for path in done} == {"in_x.png", "1_x.png"}
    code, names, said = modules_after(folder, *words)
    assert (code, "torch" in names) == (0, False)
    assert "2 of 2 are there already and were skipped: o/in_x.png, o/1_x.png" in said
    assert "notes.txt" in said
    assert {path: path.stat().st_mtime_ns for path in (folder / "o").iterdir()} == done
    next(iter(done)).unlink()
    assert "torch" in modules_after(folder, *words)[1]


WRONG = """
2 holds no demo                | demo --out in.png
2 unknown recipe               | train --recipe nobody
2 cannot read recipe           | train --recipe nowhere.yaml
2 unknown recipe key           | train --set no.key=1
1 is not there                 | train --root nowhere
3 no cache at nowhere          | train --recipe small --root set --cache nowhere
2 no weights to start from     | train --recipe small --root set --init-from nowhere
2 no weights to start from     | train --recipe small --init-from nowhere.pth --dry-run
2 no such checkpoint           | train --recipe small --root set --resume nowhere.ckpt
2 no checkpoint at nowhere     | eval --checkpoint ./nowhere
2 no finished run              | eval
2 unknown data set             | eval --checkpoint mmfe-small --dataset nobody
1 is not there                 | eval --checkpoint mmfe-small --root nowhere
3 no cache at nowhere          | eval --checkpoint mmfe-small --root set --cache nowhere
2 unknown view                 | eval --checkpoint mmfe-small --root set --view nobody
2 no evaluation in nowhere     | eval --checkpoint mmfe-small --root set --beside nowhere
2 unknown recipe               | eval --checkpoint mmfe-small --root set --recipe nobody
2 device cannot be used        | eval --checkpoint mmfe-small --root set --device nobody
2 no evaluation in nowhere     | compare nowhere nobody
2 unknown recipe key           | ablate table4a --set no.key=1
2 device cannot be used        | ablate table4a --device nobody
1 is not there                 | ablate table4a --root nowhere
1 are not on this machine      | ablate table4a --root set
1 nowhere.png does not exist   | restore nowhere.png -o o
2 no checkpoint at nowhere     | restore in.png -o o --checkpoint ./nowhere
2 --tile                       | restore in.png -o o --tile 7
2 unknown guide                | restore in.png -o o --guide nobody
2 does not fit this network    | restore in.png -o o --guide qwen2.5-vl-3b
2 device cannot be used        | restore in.png -o o --device nobody
1 nowhere.png does not exist   | inspect nowhere.png
2 unknown guide                | inspect in.png --guide nobody
2 unknown view                 | inspect in.png --view nobody
2 device cannot be used        | inspect in.png --device nobody
2 no checkpoint at nowhere     | export ./nowhere -o o.onnx
2 names no kind of file        | export mmfe-small -o o.txt
2 no checkpoint at nowhere     | web --checkpoint ./nowhere
2 device cannot be used        | web --device nobody
2 unknown data set             | data check --dataset nobody
1 is not there                 | data pack --dataset cdd11 --root nowhere
1 nowhere does not exist       | data synth nowhere --out s
1 rain masks nowhere           | data synth photos --out s --rain-masks nowhere
1 no such folder               | guide train nowhere --out g.safetensors
1 rain masks nowhere           | guide train photos --out g.safetensors --rain-masks nowhere
2 names no .safetensors        | guide train photos --out g.txt
3 no cache at nowhere          | guide distill nowhere -o g.safetensors
1 no such folder               | guide evaluate nowhere
2 unknown guide                | guide evaluate photos --guide nobody
2 unknown view                 | guide evaluate photos --view nobody
3 no cache at nowhere          | guide evaluate scene --teacher nowhere
2 is taken                     | guide make-tiny in.png
1 are not complete             | guide make-tiny toy --files nowhere
2 unknown data set             | cache build --dataset nobody
1 is not there                 | cache build --dataset cdd11 --root nowhere --guide scene
2 unknown guide                | cache build --dataset cdd11 --root set --guide nobody
1 are not on this machine      | cache build --dataset cdd11 --root set
2 unknown view                 | cache build --dataset cdd11 --root set --views nobody
2 cannot read the prompt file  | cache build --dataset cdd11 --root set --prompt-file nowhere
2 unknown recipe               | cache build --recipe nobody
3 no cache at nowhere          | cache info nowhere
3 no cache at nowhere          | cache verify nowhere
3 no cache at nowhere          | cache repair nowhere
3 no cache at nowhere          | cache pull nowhere copy.zarr
2 unknown recipe               | model info --recipe nobody
3 no cache at nowhere          | plot embeddings nowhere
2 no checkpoint at nowhere     | plot routing --checkpoint nowhere
3 no cache at nowhere          | plot routing --checkpoint mmfe-small --cache nowhere
2 no checkpoint at nowhere     | plot experts --checkpoint nowhere
1 nowhere.png does not exist   | plot experts --checkpoint mmfe-small --image nowhere.png
1 is not there                 | plot errors --methods a=b --root nowhere
2 no method at nowhere         | plot errors --methods a=nowhere --root set
"""
"""The exit code, words of the message, and the command line that gets them."""

WITHOUT_TORCH = """
import contextlib, io, json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise AssertionError("torch was imported")

sys.meta_path.insert(0, Refuse())
from mmfe_cli.app import run
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = run(words)
        except AssertionError as problem:
            code = str(problem)
    print(json.dumps([code, said.getvalue()]))
"""


def answers_without_torch(folder: Path, lines: list[list[str]]) -> list[tuple[int | str, str]]:
    """The exit code of each command line, or what says that torch was imported; and stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MMFE_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input=json.dumps(lines),
        cwd=folder,
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")},
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    return [(code, said) for code, said in map(json.loads, done.stdout.splitlines())]


def test_what_is_missing_or_misspelt_is_said_without_torch_by_every_command(
    folder: Path,
) -> None:
    # Importing torch takes seconds, before which nobody should have to wait for this.
    cases = [
        (int(expected[0]), expected[2:].strip(), line.split())
        for expected, line in (case.split("|") for case in WRONG.strip().splitlines())
    ]
    answers = answers_without_torch(folder, [words for _, _, words in cases])
    for (code, said, words), (got, error) in zip(cases, answers, strict=True):
        assert (got, said in error) == (code, True), (words, got, error)
    # Each says what would have been right, or what to do.
    pairs = zip(cases, answers, strict=True)
    silent = [c[2] for c, (_, e) in pairs if "\n  expected: " not in e and "\n  to do: " not in e]
    assert silent == []
    reached = {words[0] for _, _, words in cases}
    assert reached == {*COMMANDS, *GROUPS} - {"doctor"}


DRY = """
is not there            | train --recipe small --root nowhere --dry-run
no cache at nowhere     | train --recipe small --root set --cache nowhere --dry-run
is not there            | ablate table4a --root nowhere --dry-run
are not on this machine | ablate table4a --root set --dry-run
"""


def test_a_dry_run_says_what_is_missing_before_it_imports_torch(folder: Path) -> None:
    # The plan is printed all the same; only what it counts takes torch.
    cases = [(words.strip(), line.split()) for words, line in
             (case.split("|") for case in DRY.strip().splitlines())]  # fmt: skip
    answers = answers_without_torch(folder, [line for _, line in cases])
    for (words, line), (code, said) in zip(cases, answers, strict=True):
        assert code == "torch was imported", line
        assert words in said and "\n  to do: " in said, line
