"""`mmfe compare`: bad input (what it computes is tested beside its library)."""

from __future__ import annotations

from mmfe_cli.app import run


def test_a_folder_without_an_evaluation(tmp_path, capsys):
    assert run(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "mmfe eval" in capsys.readouterr().err
