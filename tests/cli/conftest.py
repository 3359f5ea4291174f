"""What the tests of the command line share."""

import os
from pathlib import Path

import pytest

from mmfe_restore import Restorer, load_recipe

# Workers of pytest-xdist have a width of 80 in their environment, which a pipe has not.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the demo's kind: it starts as the identity."""
    folder = tmp_path_factory.mktemp("run") / "model"
    recipe = load_recipe("demo", ["model.width=8", "model.num_heads=[1,1,2,2]"])
    Restorer.from_recipe(recipe).save_pretrained(folder)
    return folder
