import json

import numpy as np
import pytest
from PIL import Image

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

    code, text, _ = call(capsys, "pack", "--root", out, "--compress", "--json")
    assert code == 0
    packs = json.loads(text)["packs"]
    assert [entry["pictures"] for entry in packs] == [24, 12]
    assert (out / "packed" / "train.h5").exists()
    assert call(capsys, "pack", "--root", out)[0] == 0


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
        (("pack", "--root", "{tmp}/empty"), 1, "the low part is not there"),
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
