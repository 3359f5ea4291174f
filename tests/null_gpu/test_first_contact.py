"""The first minutes on a GPU, rehearsed: every part runs, is kept, and finds its way into docs."""

import pytest

from benchmarks import gpu_first_contact
from benchmarks.gpu_first_contact import BEGIN, END, NOT_MEASURED, PARTS, ROWS, table, too_far

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing


def test_every_part_runs_on_a_device_that_computes_nothing(on_null_gpu, tmp_path):
    done = on_null_gpu("first_contact.py", tmp_path)
    assert done["errors"] == {}
    assert set(done["found"]) == set(PARTS)
    assert done["code"] == 1  # the numbers are none
    # The names that the table looks for, where they do not depend on sizes.
    for row in ROWS:
        if not any(letter.isdigit() for letter in row.key):
            assert row.key in done["found"][row.part], row


def test_all_parts_together_take_ten_minutes_at_most():
    assert sum(limit for _, limit in PARTS.values()) <= 600


@pytest.fixture
def parts(monkeypatch):
    """Three parts of which the second fails; counts how often each was run."""
    ran = []

    def part(name, found):
        def run(sizes):
            ran.append(name)
            if found is None:
                yield {"copy_tb_per_s": 2.5}
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            yield found

        return run, 9

    close = {"differences": {"a": 1e-4}, "limits": {"a": 1e-3}}
    found = {"versions": {"card": "A card"}, "ceilings": None, "correct_network": close}
    made = {name: part(name, value) for name, value in found.items()}
    monkeypatch.setattr(gpu_first_contact, "PARTS", made)
    return ran


def run(monkeypatch, *arguments):
    line = ["gpu_first_contact", *map(str, arguments), "--tiny", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", line)
    return gpu_first_contact.main()


def test_a_part_that_fails_leaves_the_others_and_only_it_is_run_again(
    parts, tmp_path, monkeypatch, capsys
):
    assert run(monkeypatch, "--out", tmp_path) == 1
    assert parts == ["versions", "ceilings", "correct_network"]
    assert "illegal memory access" in (tmp_path / "ceilings.error.txt").read_text()
    said = capsys.readouterr().out
    assert "| card | A card |" in said and "ceilings: not whole" in said
    assert "| copy on the card | 2.50 TB/s |" in said  # it was found before the part failed
    assert run(monkeypatch, "--out", tmp_path) == 1
    assert parts[3:] == ["ceilings"]
    assert run(monkeypatch, "--out", tmp_path, "--only", "versions,correct_network") == 0
    assert parts[4:] == []
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--out", tmp_path, "--only", "banana")


def test_a_number_that_is_too_far_or_none_fails_the_command():
    limits = {"a": 1e-3, "b": 1e-3}
    assert too_far({"x": {"differences": {"a": 1e-4, "b": 0.0}, "limits": limits}}) == []
    wrong = too_far({"x": {"differences": {"a": 2e-3, "b": float("nan")}, "limits": limits}})
    assert len(wrong) == 2 and "x: a differs" in wrong[0]


def test_the_docs_hold_the_table_and_the_script_fills_it(tmp_path):
    text = gpu_first_contact.DOCS.read_text(encoding="utf-8")
    kept = text.split(BEGIN)[1].split(END)[0].strip()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in kept.splitlines()[2:]]
    assert rows == [row.label for row in ROWS]
    docs = tmp_path / "performance.md"
    docs.write_text(text, encoding="utf-8")
    gpu_first_contact.write_docs({"ceilings": {"copy_tb_per_s": 3.456}}, docs)
    filled = docs.read_text(encoding="utf-8")
    assert "| copy on the card | 3.46 TB/s |" in filled
    assert filled.count(NOT_MEASURED) == table({}).count(NOT_MEASURED) - 1
    assert filled.split(BEGIN)[0] == text.split(BEGIN)[0]
    assert filled.split(END)[1] == text.split(END)[1]
