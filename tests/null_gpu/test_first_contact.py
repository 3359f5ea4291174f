"""The first minutes on a GPU, rehearsed: every part runs, is kept, and finds its way into docs."""

import re
import subprocess

import pytest

from benchmarks import gpu_correct, gpu_first_contact
from benchmarks.gpu_first_contact import (
    BEGIN,
    END,
    NOT_MEASURED,
    PARTS,
    ROWS,
    run_apart,
    table,
    too_far,
)
from benchmarks.gpu_sizes import Sizes, tiny
from mmfe_restore.recipes.schema import ModelConfig

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing


def without_sizes(key):
    """The same name for the table's sizes and the rehearsal's."""
    return re.sub(r"\d+(\.\d+)?", "N", key)


def test_every_part_runs_on_a_device_that_computes_nothing(on_null_gpu, tmp_path):
    done = on_null_gpu("first_contact.py", tmp_path)
    assert done["errors"] == {}
    assert set(done["found"]) == set(PARTS)
    assert done["code"] == 1  # the numbers are none
    # The names that the table looks for.
    for row in ROWS:
        assert without_sizes(row.key) in map(without_sizes, done["found"][row.part]), row


def test_the_table_looks_for_the_sizes_that_are_measured():
    sizes = Sizes("cuda", ModelConfig())
    measured = {
        "step": [f"batch_{batch}_" for batch in sizes.batches],
        "encode": [f"batch_{batch}_" for batch in sizes.encoded],
        "restore": [f"{width}x{height}_" for width, height in sizes.photographs],
        "blocks": [f"{2 * sizes.model.width}ch_{sizes.crop}px_"],
        "kernels": [f"{2 * sizes.model.width}ch_{sizes.crop}px_"],
    }
    for row in ROWS:
        assert row.key.startswith(tuple(measured.get(row.part, [""]))), row


def test_three_steps_in_bfloat16_are_those_of_training():
    # Autocast keeps the weights that it has cast until it is left. Around all three steps it would
    # compare a network that does not learn: 3.8 % off on a card, 0.4 % at this size.
    differences = {}
    for found in gpu_correct.correct_network(tiny("cpu")):
        differences |= found["differences"]
        if "three steps, bf16" in differences:
            break  # before compilation, which takes long
    assert differences["three steps"] < 1e-6
    assert 0 < differences["three steps, bf16"] < 1e-3


def test_the_reference_is_asked_for_before_anything_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_first_contact, "find_spec", lambda name: None)
    line = ["gpu_first_contact", "--out", str(tmp_path), "--tiny", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*line, "--only", "versions,restore"])
    with pytest.raises(SystemExit) as ended:
        gpu_first_contact.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "restore" in said and "pip install spandrel-extra-arches" in said
    assert not list(tmp_path.iterdir())


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


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Runs a part whose process only does what it is told to; (whether it is done, its error)."""

    def run(process):
        def started(command, *, timeout, stderr, text):
            assert command[-3:] == ["--only", "ceilings", "--here"] and str(tmp_path) in command
            assert timeout == PARTS["ceilings"][1]
            return process(command, timeout)

        monkeypatch.setattr(subprocess, "run", started)
        done, error = run_apart("ceilings", tmp_path), tmp_path / "ceilings.error.txt"
        return done, error.read_text(encoding="utf-8") if error.exists() else None

    return run


def timeout(command, limit):
    raise subprocess.TimeoutExpired(command, limit)


def crash(command, limit):
    return subprocess.CompletedProcess(
        command, -11, stderr="Fatal Python error: Segmentation fault"
    )


def test_a_process_that_takes_too_long_or_dies_leaves_a_word(ended, tmp_path):
    assert ended(timeout) == (False, "not done after 15 s\n")
    done, error = ended(crash)
    assert not done
    # Not the word of the run before.
    assert error == "the process ended with -11\nFatal Python error: Segmentation fault"


def test_what_a_process_wrote_itself_stays(ended, tmp_path):
    def fail(command, limit):
        (tmp_path / "ceilings.error.txt").write_text("Traceback", encoding="utf-8")
        return subprocess.CompletedProcess(command, 1, stderr="a warning")

    def succeed(command, limit):
        (tmp_path / "ceilings.json").write_text("{}", encoding="utf-8")
        return subprocess.CompletedProcess(command, 0, stderr="")

    assert ended(fail) == (False, "Traceback")
    assert ended(succeed) == (True, None)


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
