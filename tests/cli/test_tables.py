"""Tables at every width: no figure is cut, no name is shortened, nothing is wider than asked."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings, strategies as st

from mmfe_cache.guides import GUIDES
from mmfe_cli import output
from mmfe_cli.app import run
from mmfe_cli.tables import LONGEST_WORD, _width, print_table

HEADINGS = ["class", "images", "input dB", "restored dB", "95 % interval", "gain dB", "SSIM 7×7"]


def printed(capsys, columns, rows, caption=None):
    output.print_table("a title", columns, rows, caption)
    return capsys.readouterr().out


def drawn(text):
    """The lines that belong to a table."""
    return [line for line in text.split("\n") if line.startswith(tuple("┏┃┡│└"))]


def cells(text):
    """Every cell's text, folded lines joined."""
    return [
        cell.strip()
        for line in drawn(text)
        if line[0] in "┃│"
        for cell in re.split("[┃│]", line)[1:-1]
    ]


def test_a_table_at_60_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [["low_haze_rain", 200, 12.345, 25.678, "25.50–25.88", "+13.33", "0.8123"]]
    rows += [["low_haze_snow", 200, 2.0, 125.0, "25.50–25.88", "-13.33", "0.8124"]] * 3
    shown = printed(capsys, HEADINGS, rows[:1] + rows[1:], "a caption")
    assert shown == (
        "a title\n"
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━┓\n"
        "┃               ┃        ┃  input ┃ restored ┃        95 % ┃\n"
        "┃ class         ┃ images ┃     dB ┃       dB ┃    interval ┃\n"
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━┩\n"
        "│ low_haze_rain │    200 │  12.35 │    25.68 │ 25.50–25.88 │\n"
        "│ low_haze_snow │    200 │   2.00 │   125.00 │ 25.50–25.88 │\n"
        "│ low_haze_snow │    200 │   2.00 │   125.00 │ 25.50–25.88 │\n"
        "│ low_haze_snow │    200 │   2.00 │   125.00 │ 25.50–25.88 │\n"
        "└───────────────┴────────┴────────┴──────────┴─────────────┘\n"
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┓\n"
        "┃ class         ┃ gain dB ┃ SSIM 7×7 ┃\n"
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━┩\n"
        "│ low_haze_rain │  +13.33 │   0.8123 │\n"
        "│ low_haze_snow │  -13.33 │   0.8124 │\n"
        "│ low_haze_snow │  -13.33 │   0.8124 │\n"
        "│ low_haze_snow │  -13.33 │   0.8124 │\n"
        "└───────────────┴─────────┴──────────┘\n"
        "a caption\n"
    )


def test_few_rows_are_turned_on_their_side(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [["a", *range(1_000_001, 1_000_006)]]
    shown = printed(capsys, ["store", "one", "two", "three", "four", "five"], rows)
    assert shown.splitlines()[2:6] == [
        "┃ store ┃       a ┃",
        "┡━━━━━━━╇━━━━━━━━━┩",
        "│ one   │ 1000001 │",
        "│ two   │ 1000002 │",
    ]


names = st.text(st.characters(categories=("L", "N"), include_characters="_-+./ "), max_size=40)
numbers = st.one_of(
    st.floats(-1e6, 1e6).map(lambda v: f"{v:+.4f}"),
    st.integers(0, 10**9),
    st.floats(-1e4, 1e4),
    st.none(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(40, 140),
    st.integers(1, 9).flatmap(
        lambda n: st.lists(st.tuples(names, *[numbers] * n), min_size=1, max_size=6)
    ),
)
def test_no_figure_is_cut_at_any_width(width, rows):
    import contextlib
    import io

    columns = ["name", *(f"column {i}" for i in range(1, len(rows[0])))]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", str(width))
        output.print_table("", columns, rows)
    text = out.getvalue()
    found = cells(text)
    for row in rows:
        for value in row[1:]:
            if value is not None:
                assert (f"{value:.2f}" if isinstance(value, float) else str(value)) in found
    assert "…" not in "".join(drawn(text)).replace("".join(r[0] for r in rows), "")
    assert all(_width(line) <= width for line in drawn(text))
    # Folded or not, a name is all there: whatever is drawn of it adds up to it.
    joined = "".join(found)
    for row in rows:
        if _width(row[0]) <= LONGEST_WORD // 2:
            assert row[0].replace(" ", "") in joined.replace(" ", "")


def test_a_column_without_any_value_is_left_out_and_said_to_be(capsys):
    shown = printed(capsys, ["name", "here", "never"], [["a", 1, None], ["b", None, None]], "c")
    assert "never" not in "\n".join(drawn(shown))
    assert shown.splitlines()[-1] == "c; no value in: never"
    assert "–" in shown


def test_long_names_stay_apart(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [["x" * 60 + end, 1.0, 2.0, 3.0] for end in "ab"]
    found = cells(printed(capsys, ["name", "one", "two", "three"], rows))
    folded = "".join(c for c in found if set(c) <= set("xab"))
    assert folded.replace("x" * 60 + "a" + "x" * 60 + "b", "") == ""


COMMANDS = [
    ["ablate", "table5c", "--dry-run"],
    ["train", "--recipe", "demo", "--dry-run"],
    ["guide", "list"],
    ["data", "list"],
    ["model", "info", "--recipe", "demo"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_every_figure_of_a_pipe_is_there_on_a_terminal(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    tables = []
    monkeypatch.setattr(output, "print_table", lambda *given, **_: tables.append(given))
    run(command)  # once: the widths are tried on what it prints
    assert tables
    for table in tables:
        check_widths(table, capsys, monkeypatch)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", ["guide list", "data list", "model list"])
def test_no_line_is_too_wide_and_no_word_outside_a_table_is_broken(
    command, width, capsys, monkeypatch
):
    def lines():
        assert run(command.split()) == 0
        return capsys.readouterr().out.splitlines()

    monkeypatch.delenv("COLUMNS", raising=False)
    piped = lines()
    monkeypatch.setenv("COLUMNS", str(width))
    shown = lines()
    assert max(map(_width, shown)) <= width
    prose = [
        " ".join(line for line in text if not line.startswith(tuple("┏┃┡│└"))).split()
        for text in (piped, shown)
    ]
    assert prose[0] == prose[1]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_command_to_copy_stays_in_one_line(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["guide", "list"]) == 0
    shown = capsys.readouterr().out
    for info in GUIDES.values():
        assert info.how_to_get in shown


def test_a_command_longer_than_the_screen_is_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    command = "hf download owner/a-model-with-a-long-name"
    print_table(
        "T", ("name", "get"), [("one", command), ("two", "-"), *[("x", "y")] * 3], None, "get"
    )
    shown = capsys.readouterr().out
    assert max(map(_width, shown.splitlines())) <= 40
    assert "hf download" in shown and command not in shown


def check_widths(table, capsys, monkeypatch):
    """Draw one table without a width and at 60, 80 and 120 columns: the same figures in all."""
    monkeypatch.delenv("COLUMNS", raising=False)
    capsys.readouterr()
    print_table(*table)
    figures = set(re.findall(r"[\d,.]*\d", "\n".join(drawn(capsys.readouterr().out))))
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(*table)
        shown = drawn(capsys.readouterr().out)
        assert max(map(_width, shown)) <= width
        assert "…" not in "".join(shown)
        assert figures <= set(re.findall(r"[\d,.]*\d", "\n".join(shown)))
