"""What commands print where."""

from __future__ import annotations

import json

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


def test_progress_without_a_terminal_writes_plain_lines_to_stderr(capsys):
    progress = output.console_progress()
    with progress.task("encoding", total=3) as task:
        task.advance()
    progress.warn("slow disk")
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.splitlines() == ["encoding", "warning: slow disk"]


def test_quiet_leaves_warnings(capsys, monkeypatch):
    monkeypatch.setattr(output.VERBOSITY, "quiet", True)
    progress = output.console_progress()
    with progress.task("encoding", total=3):
        progress.message("hello")
    progress.warn("slow disk")
    assert capsys.readouterr().err == "warning: slow disk\n"
