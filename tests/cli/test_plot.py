"""`mmfe plot`: bad input (the drawing is tested beside its library)."""

from __future__ import annotations

import pytest

from mmfe_cli.app import run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["embeddings", "none.zarr"], 3),
        (["routing", "--checkpoint", "none"], 2),
        (["experts", "--recipes", "table5a"], 2),
    ],
)
def test_what_is_not_there(tmp_path, monkeypatch, capsys, arguments, code):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", *arguments]) == code
    message = capsys.readouterr().err
    assert "none" in message or "table5a" in message
    assert not (tmp_path / "figures").exists()
