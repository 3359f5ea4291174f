"""The stand-in of docs/reproduce.md keeps its runs where the document's commands have them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.reproduce_standin import DOCUMENT, commands, made_small
from mmfe_cli.app import run
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training.run_dir import claim

SMALL = [made_small(words) for words in commands(DOCUMENT)]
ABLATIONS = {words[2]: words[1:] for words in SMALL if "ablate" in words}


def option(words: list[str], name: str) -> list[str]:
    """The values that an option is given, in order."""
    return [after for word, after in pairwise(words) if word == name]


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the document trains itself lies in its place, begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMFE_RUNS", raising=False)
    for words in SMALL:
        if "train" in words and "ablate" not in words:
            (name,), (out,) = option(words, "--recipe"), option(words, "--out")
            claim(Path(out), load_recipe(name, option(words, "--set")))


@pytest.mark.parametrize("table", ABLATIONS)
def test_rows_lie_where_the_documents_commands_have_them(
    table: str, begun: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in ABLATIONS[table] if word != "--dry-run"]
    assert run([*words, "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    # Table 4b keeps its stages, so that there the full model is another training than `cdd11`.
    shared = [row["recipe"] for row in rows if row["out"] == "runs/cdd11"]
    assert len(shared) == (table != "table4b")
    for row in rows:
        assert row["out"] == ("runs/cdd11" if row["recipe"] in shared else f"runs/{row['recipe']}")
        trained = row["recipe"] in {*shared, "table4a/mofe"}
        assert row["state"] == ("started" if trained else "missing")
