"""The notebook's cells, run in order; the Space's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement

from mmfe_cache.images import read_rgb8

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
    assert names["seen"] == {"low": pytest.approx(0.75, abs=0.15), "haze": 0, "rain": 0, "snow": 0}
    assert names["psnr"](names["restored"]) > names["psnr"](names["photo"]) + 5
    restored = names["restored"]
    assert np.array_equal(read_rgb8(tmp_path / "restored.png"), restored)
    halfway = (names["photo"].astype(float) + restored) / 2
    assert np.abs(names["gentle"] - halfway).max() <= 1  # both are rounded to 8 bits


def test_the_space_is_whole():
    text = (FOLDER / "space" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (FOLDER / "space" / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub's limit
    wanted = Requirement((FOLDER / "space" / "requirements.txt").read_text().strip())
    assert wanted.name == "mmfe"
    assert wanted.extras == {"web"}
