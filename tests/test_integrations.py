"""The notebook's cells, run in order; the Space's files."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from packaging.requirements import Requirement

FOLDER = Path(__file__).parents[1] / "integrations"


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((FOLDER / "notebook" / "restore.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # kept without what a run leaves
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["seen"]["low"] > 0.3
    assert names["psnr"](names["restored"]) > names["psnr"](names["photo"]) + 5
    assert (tmp_path / "restored.png").is_file()


def test_the_space_is_whole():
    text = (FOLDER / "space" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (FOLDER / "space" / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub's limit
    wanted = Requirement((FOLDER / "space" / "requirements.txt").read_text().strip())
    assert wanted.name == "mmfe"
    assert wanted.extras == {"web"}
