"""README's snippets run as they stand, in order, as a newcomer's would."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.transform import resize

from mmfe_cache.degradations import degrade
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

INSTEAD = {
    # The real CDD11 and Qwen's weights are no part of a test: these say that they are not there.
    "mmfe data check --dataset cdd11 --root /data/cdd11": ("--help",),
    "mmfe cache build --dataset cdd11 --root /data/cdd11 --guide qwen2.5-vl-3b": ("--help",),
    "mmfe cache build --dataset cdd11 --root /data/cdd11 --guide qwen2.5-vl-3b --dry-run": (
        "--help",
    ),
    "mmfe train --recipe cdd11 --root /data/cdd11 --dry-run": ("--help",),
    "mmfe train --recipe cdd11 --root /data/cdd11": ("--help",),
    "mmfe eval --checkpoint runs/cdd11 --root /data/cdd11 --report": ("--help",),
    "mmfe web": ("--help",),  # it does not end by itself; tests/test_web.py drives the page
    # As long a training as shows that it trains.
    "mmfe train --recipe small --init-from mmfe-small --root data/mine --cache cache/mine "
    "--out runs/mine": ("--set", "train.max_steps=1", "--set", "train.num_workers=0"),
}
"""What a command of README gets besides what stands there; every other runs as it stands."""


SIZE = (128, 160)
"""Height and width of the photographs: the last stage of the recipe `small` crops 128²."""


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.split("#")[0] for text in snippets("sh") for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A newcomer's folder: a bad photograph and a few good ones."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "photos").mkdir()
    for name in ("chelsea", "coffee", "rocket"):
        photo = resize(getattr(data, name)(), SIZE, anti_aliasing=True)
        write_png(folder / "photos" / f"{name}.png", np.uint8(255 * photo))
    bad = degrade(read_rgb8(folder / "photos" / "rocket.png"), "rain", seed_parts=("bad",)).image
    assert bad.dtype == np.uint8
    Image.fromarray(bad).save(folder / "photo.jpg")
    return folder


def test_every_command_that_is_not_run_as_it_stands_is_still_in_the_readme():
    assert set(INSTEAD) <= set(commands())


def test_the_commands_of_which_command_fit_together(home, tmp_path, monkeypatch, capsys):
    """Those that make and read data/mine: what one writes is what the next reads."""
    shutil.copytree(home / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "which-command.md").read_text(encoding="utf-8")
    steps = [words for words in re.findall(r"`mmfe ([^`]+)`", page) if "data/mine" in words]
    assert " ".join(words.split()[0] for words in steps) == "data data data cache train eval"
    extra = {
        "data synth": ("--composition", "low"),
        "train": ("--dry-run", "--set", 'data.repeats={"*": 8}'),  # a batch of so few photographs
    }
    for words in steps[:-1]:
        more = next((given for name, given in extra.items() if words.startswith(name)), ())
        assert run([*shlex.split(words), *more]) == 0, (words, capsys.readouterr().err)
    training, judging = (dict(re.findall(r"--([a-z]+) (\S+)", words)) for words in steps[-2:])
    assert judging["checkpoint"] == training["out"]
    assert judging["cache"] == training["cache"]


def test_shell_snippets_run(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    for command in commands():
        program, *words = shlex.split(command)
        assert program == "mmfe"
        extra = INSTEAD.get(command, ())
        assert run([*words, *extra]) == 0, (command, capsys.readouterr().err)
    for name in ("restored/photo.jpg", "gentle.png", "mine.png"):
        assert read_rgb8(home / name).shape == (*SIZE, 3), name
    assert (home / "runs/mine/eval/cdd11-test/report.html").is_file()


def test_python_snippets_run(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    if not (home / "cache/mine").is_dir():  # when run alone: what the shell snippets leave behind
        first = ("mmfe data synth", "mmfe cache build --dataset cdd11 --root data")
        for command in commands():
            if command.startswith(first):
                assert run(shlex.split(command)[1:]) == 0
    capsys.readouterr()
    seen: list[str] = []
    for text in snippets("python"):
        exec(compile(text, "README.md", "exec"), {})
        seen += capsys.readouterr().out.splitlines()
    assert read_rgb8(home / "restored.png").shape == data.chelsea().shape
    # What the comments say is printed.
    said = re.findall(r"print\(.*\)  # (.*)", "\n".join(snippets("python")))
    assert [line for line in seen if line.startswith("torch.Size")] == said
    assert said


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        if target not in {"it", "are"}:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
