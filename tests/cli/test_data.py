import json

import h5py
import numpy as np
import pytest
from PIL import Image

from mmfe_cache.datasets import splits_of
from mmfe_cache.images import write_png
from mmfe_cache.packing import forget_packs
from mmfe_cache.seeds import generator
from mmfe_cli.app import run


@pytest.fixture(autouse=True)
def fresh_packs():
    forget_packs()
    yield
    forget_packs()


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b", "c"):
        small = generator("cli", name).integers(0, 256, (4, 5, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC)
        write_png(tmp_path / "photos" / f"{name}.png", np.asarray(image))
    return tmp_path / "photos"


def call(capsys, *arguments):
    code = run(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_synth_check_pack_and_check_again(photos, tmp_path, capsys):
    out = tmp_path / "out"
    code, text, _ = call(capsys, "synth", photos, "--out", out, "--json")
    assert code == 0
    report = json.loads(text)
    assert report["scenes"] == {"train": 2, "test": 1}
    assert report["pairs"] == {"train": 22, "test": 11}
    assert report["written"] == 36

    code, text, _ = call(capsys, "check", "--dataset", "cdd11", "--root", out, "--json")
    report = json.loads(text)
    assert code == 0
    assert report["ok"] is True
    assert report["epoch"]["draws"] == 22
    assert len(report["parts"]) == 22
    assert {part["layout"] for part in report["parts"]} == {"mmfe data synth"}

    shown = call(capsys, "check", "--root", out, "--fast")[1]
    assert shown.count("80x64") == 22
    assert shown.count("mmfe data synth") == 1  # the layout of all of them
    assert " recorded " in shown and "published" not in shown  # nobody published one's own set
    assert shown.count("train: low_haze_rain ") == shown.count("test: low_haze_rain ") == 1

    code, text, _ = call(capsys, "pack", "--root", out, "--compress", "--json")
    assert code == 0
    packs = json.loads(text)["packs"]
    assert [entry["pictures"] for entry in packs] == [24, 12]
    assert (out / "packed" / "train.h5").exists()
    assert call(capsys, "pack", "--root", out)[0] == 0


def test_verify_finds_packs_and_what_is_damaged_in_them(photos, tmp_path, capsys):
    out, packs = tmp_path / "out", tmp_path / "packs"
    call(capsys, "synth", photos, "--out", out, "--composition", "low")
    code, text, messages = call(capsys, "verify", "--root", out)
    assert (code, text) == (1, "")
    assert "there is no pack of 'cdd11', split train or test" in messages
    assert "packed/cdd11-train.h5" in messages
    for options, root in ((("--compress",), out), (("--out", packs), packs)):
        assert call(capsys, "pack", "--root", out, *options)[0] == 0
        code, text, _ = call(capsys, "verify", "--root", root)
        assert code == 0
        assert text.count("nothing damaged") == 2
        path = root / "packed" / "test.h5" if root == out else packs / "test.h5"
        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            tiles = file["tiles"].id
            start = tiles.get_chunk_info(0).byte_offset if root == out else tiles.get_offset()
        content[start + 40] ^= 0xFF
        path.write_bytes(content)
        forget_packs()
        code, text, messages = call(capsys, "verify", "--root", root)
        assert code == 1
        assert f"{path}: damaged: test/" in text
        assert "1 pictures are damaged" in messages
        code, text, _ = call(capsys, "verify", "--root", root, "--json")
        assert code == 1
        assert [len(entry["damaged"]) for entry in json.loads(text)["packs"]] == [0, 1]
        assert call(capsys, "verify", "--root", root, "--split", "train")[0] == 0


def test_a_folder_of_packs_is_a_root_that_has_the_splits_it_holds(photos, tmp_path, capsys):
    out, packs = tmp_path / "out", tmp_path / "packs"
    call(capsys, "synth", photos, "--out", out, "--composition", "low")
    code, text, _ = call(capsys, "pack", "--root", out, "--split", "train", "--out", packs)
    assert code == 0
    assert f"--root '{packs}'" in text
    code, text, _ = call(capsys, "verify", "--root", packs, "--json")
    assert [entry["split"] for entry in json.loads(text)["packs"]] == ["train"]
    assert splits_of("cdd11", packs) == ("train",)
    code, _, messages = call(capsys, "verify", "--root", packs, "--split", "test")
    assert code == 1
    assert "split test" in messages


def test_tables_go_to_stdout_and_messages_to_stderr(photos, tmp_path, capsys):
    code, text, messages = call(capsys, "synth", photos, "--out", tmp_path / "o")
    assert code == 0
    assert "train" in text
    assert "reading photographs" in messages
    assert "reading photographs" not in text
    code, text, _ = call(capsys, "list")
    assert code == 0
    assert "aio5-rain13k" in text


def test_list_json_has_the_published_numbers(capsys):
    code, text, _ = call(capsys, "list", "--json")
    assert code == 0
    found = {entry["name"]: entry for entry in json.loads(text)["datasets"]}
    assert found["cdd11"]["published"] == {"train": 13013, "test": 2200}
    assert found["folder"]["published"] is None


def test_an_incomplete_set_exits_1_and_names_what_is_missing(photos, tmp_path, capsys):
    root = tmp_path / "lol"
    for side in ("low", "high"):
        image = np.zeros((20, 20, 3), np.uint8)
        write_png(root / "our485" / side / "1.png", image)
    code, text, _ = call(capsys, "check", "--dataset", "lol-v1", "--root", root, "--fast")
    assert code == 1
    assert "485" in text
    assert "not there" in text
    assert "eval15/low" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("synth", "{tmp}/none", "--out", "{tmp}/o"), 1, "does not exist"),
        (("synth", "{tmp}/empty", "--out", "{tmp}/o"), 1, "no photograph"),
        (("synth", "{tmp}/photos", "--out", "{tmp}/full"), 1, "something else"),
        (("synth", "{tmp}/photos", "--out", "{tmp}/o", "--composition", "fog"), 2, "fog"),
        (("check", "--dataset", "nothing", "--root", "{tmp}"), 2, "unknown data set"),
        (("check", "--root", "{tmp}", "--split", "val"), 2, "unknown split"),
        (("pack", "--root", "{tmp}/none"), 1, "is not there"),
        (("pack", "--root", "{tmp}", "--workers", "0"), 2, "--workers"),
        (("verify", "--dataset", "nothing", "--root", "{tmp}"), 2, "unknown data set"),
        (("verify", "--root", "{tmp}", "--split", "val"), 2, "unknown split"),
        (("verify", "--root", "{tmp}/none"), 1, "there is no pack"),
        (("pack", "--root", "{tmp}/empty"), 1, "the low part is not there"),
        (("synth", "{tmp}/photos", "--out", "{tmp}/o", "--mask-share", "0.5"), 2, "there are none"),
        (("synth",), 2, ""),
    ],
)
def test_bad_input_gets_one_message_and_the_contracts_exit_code(
    photos, tmp_path, capsys, arguments, code, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    got, text, messages = call(capsys, *(a.format(tmp=tmp_path) for a in arguments))
    assert got == code
    assert text == ""
    assert words in messages
    assert "Traceback" not in messages
    assert not (tmp_path / "o").exists()


def test_an_empty_root_names_pages_and_folders_in_few_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = call(capsys, "check", "--dataset", "aio5", "--root", tmp_path)
    assert code == 1
    assert "where to get RESIDE: https://" in text
    assert "PromptIR / AdaIR: Train/Denoise" in text
    assert "one epoch" not in text
    lines = text.splitlines()
    assert lines[-1] == "aio5 is not whole (10 parts are not there), so this exits with 1."
    assert len(lines) < 40  # they were over 130
