"""What commands print where."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from mmfe_cli import output


def test_a_table_in_a_pipe_is_never_folded(capsys):
    title = "a title longer than its table, whole and only once, on a line of its own"
    output.print_table(title, ["name", "value"], [["x" * 150, 1.234], ["[red]y", None]])
    printed = capsys.readouterr().out
    assert printed.count(title) == 1
    assert "x" * 150 in printed
    assert "1.23" in printed
    assert "[red]y" in printed  # a file name is text, never markup
    assert "–" in printed


def test_json_has_no_infinities(capsys):
    output.print_json({"psnr": float("inf"), "rows": [float("nan"), 1.5, ("a", 2)]})
    assert json.loads(capsys.readouterr().out) == {"psnr": None, "rows": [None, 1.5, ["a", 2]]}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_every_file_name_can_be_printed(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    output.write_any_name()
    name = os.fsdecode(b"\xff\xfe") + "写真.png"
    output.print_json({"path": name})
    assert json.loads(raw.getvalue().decode("utf-8")) == {"path": name}
    before = len(raw.getvalue())
    output.print_line(name)
    said = raw.getvalue()[before:]
    assert said == (os.fsencode(name) if encoding == "utf-8" else b"????.png") + b"\n"
