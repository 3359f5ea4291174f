import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from mmfe_cache import open_cache
from mmfe_cache.datasets import write_synth
from mmfe_cli.app import run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    (folder / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(photographs, name)()).save(folder / "photos" / f"{name}.png")
    write_synth(folder / "photos", folder / "data", max_side=64)
    return folder / "data"


@pytest.fixture
def build(root, tmp_path, capsys):
    def command(*extra):
        options = ["--dataset", "cdd11", "--root", str(root), "--guide", "oracle", "--json"]
        code = run(["cache", "build", *options, "--out", str(tmp_path / "caches"), *extra])
        captured = capsys.readouterr()
        return code, (json.loads(captured.out) if captured.out else None), captured.err

    return command


def test_without_a_split_both_are_built_at_the_recipes_views(build):
    code, found, _ = build()
    assert code == 0
    assert found["encodings"] == found["guide_calls"] == 4 * 11 + 11
    train, test = found["stores"]
    assert train["views"] == ["whole@128", "whole@160", "whole@192", "whole@224"]
    assert test["views"] == ["whole@224"]
    assert open_cache(train["path"]).views == tuple(train["views"])
    code, found, _ = build()
    assert code == found["encodings"] == found["guide_calls"] == 0


def test_a_recipe_gives_the_views(build):
    from mmfe_restore import load_recipe

    recipe = load_recipe("demo")
    _, found, _ = build("--recipe", "demo")
    assert found["stores"][0]["views"] == list(recipe.training_views)
    assert found["stores"][1]["views"] == [recipe.eval.view]


def test_dry_run_builds_nothing(build, tmp_path):
    code, found, _ = build("--dry-run")
    assert code == 0
    assert found["encodings"] == 55
    assert found["stored_vectors"] == 55 * 35
    assert found["tokens"] == 0  # The oracle reads no tokens.
    assert found["bytes"] > 0
    assert found["free"] > 0
    assert found["hours"] >= 0
    assert not (tmp_path / "caches").exists()


def test_dry_run_counts_the_language_models_tokens(build, tmp_path, capsys):
    assert run(["guide", "make-tiny", str(tmp_path / "tiny"), "--json"]) == 0
    capsys.readouterr()
    views = ["--split", "test", "--views", "whole@56,whole@224"]
    code, found, message = build("--dry-run", "--guide", str(tmp_path / "tiny"), *views)
    assert code == 0, message
    from mmfe_cache import load_guide

    guide = load_guide(str(tmp_path / "tiny"), device="cpu")
    blank = [np.zeros((side, side, 3), np.uint8) for side in (56, 224)]
    few, many = (guide.sequence_tokens(guide.prepare(image)) for image in blank)
    assert few < many
    assert found["tokens"] == 11 * (few + many)
    assert found["stored_vectors"] == 22 * 35


def test_dry_run_needs_no_weights(build, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    options = ["--dry-run", "--guide", "qwen2.5-vl-3b", "--views", "whole@56,whole@224"]
    code, found, message = build(*options)
    assert code == 0, message
    assert (found["weights_here"], found["download"], found["hours"]) == (
        False,
        7_509_245_952,
        None,
    )
    # (side / 28)² image tokens and the 29 of the conversation, for 22 samples.
    assert found["tokens"] == 22 * (4 + 64 + 2 * 29)
    # 35 vectors of 2048 float16 an encoding, and little else.
    assert 1 < found["bytes"] / (44 * 35 * 2048 * 2) < 1.02
    assert not (tmp_path / "caches").exists()
    code, _, message = build(*options[1:])
    assert code == 1
    assert "hf download Qwen/Qwen2.5-VL-3B-Instruct" in message


def test_dry_run_by_config_json_alone(root, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl", "hidden_size": 3584}')
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--dataset", "cdd11", "--root", str(root), "--split", "test", "--dry-run"]
    assert run(["cache", "build", *options, "--guide", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "the weights of mine are not here, so no hours are known" in text
    assert "hours │" not in text


def test_stores_that_fit_only_one_by_one_are_refused_before_anything_is_built(
    build, tmp_path, monkeypatch
):
    from mmfe_cache.precompute import build as building, plan

    code, found, _ = build("--dry-run")
    room = max(store["bytes"] for store in found["stores"]) + 1
    for module in (building, plan):
        monkeypatch.setattr(module, "free_bytes", lambda path: room)
    code, _, message = build()
    assert code == 1
    assert "would not fit" in message
    assert not (tmp_path / "caches").exists()


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--views", "whole@0"], 2, "out of range"),
        (["--views", "nonsense"], 2, "unknown view"),
        (["--views", ","], 2, "names no view"),
        (["--guide", "nobody"], 2, "nobody"),
        (["--devices", "0"], 2, "--devices"),
        (["--workers", "0"], 2, "--workers"),
        (["--out", __file__], 1, "a file where one of its folders should be"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--out", "s3://bucket/caches"], 2, "built in a local folder"),
        (["--batch-size", "0", "--dry-run"], 2, "--batch-size"),
        (["--shard-samples", "0"], 2, "--shard-samples"),
        (["--prompt", "a", "--prompt-file", "b"], 2, "not both"),
        (["--root", "/nowhere"], 1, "/nowhere"),
        (["--root", __file__], 1, "no folder"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(build, tmp_path, extra, code, words):
    found, _, message = build(*extra)
    assert found == code
    assert words in message
    assert "Traceback" not in message
    assert not list(tmp_path.rglob("*.zarr"))


def test_info_verify_and_repair(build, root, tmp_path, capsys):
    build("--split", "test")
    path = tmp_path / "caches/test/oracle.zarr"
    assert run(["cache", "info", str(path)]) == 0
    assert "what oracle sees in the test split of cdd11" in capsys.readouterr().out
    assert run(["cache", "info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 11
    assert run(["cache", "verify", str(path), "--pixels", "--root", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["intact"]
    assert report["pixels"] == 11
    file = path / "whole-224/joint/c.0.0.0"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    assert run(["cache", "verify", str(path)]) == 3
    captured = capsys.readouterr()
    assert "whole-224/joint/c.0.0.0: 1 damaged chunk (" in captured.out
    assert f"mmfe cache repair {path}" in captured.err
    assert run(["cache", "repair", str(path), "--root", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["intact"]
    assert report["encodings"] == 11
    assert run(["cache", "verify", str(path)]) == 0


def test_repair_asks_for_what_a_lost_root_cannot_say(build, root, tmp_path, capsys):
    build("--split", "test")
    path = tmp_path / "caches/test/oracle.zarr"
    (path / "zarr.json").unlink()
    assert run(["cache", "repair", str(path), "--root", str(root)]) == 3
    assert "--dataset, --split and --guide" in capsys.readouterr().err
    told = ["--dataset", "cdd11", "--split", "test", "--guide", "oracle"]
    assert run(["cache", "repair", str(path), "--root", str(root), *told]) == 0
    assert run(["cache", "verify", str(path)]) == 0


def test_the_remedy_that_verify_prints_for_a_damaged_root_works(build, root, tmp_path, capsys):
    build("--split", "test")
    path = tmp_path / "caches/test/oracle.zarr"
    expected = (path / "zarr.json").read_bytes()
    for word in (b"checksum", b"fingerprint", b"num_samples", b'"oracle"'):
        data = bytearray(expected)
        data[data.index(word)] ^= 2
        (path / "zarr.json").write_bytes(data)
        assert run(["cache", "verify", str(path)]) == 3
        remedy = capsys.readouterr().err.split("to do:")[1].split(" (as when")[0].split()
        assert remedy[1:3] == ["cache", "repair"]
        assert run([*remedy[1:], "--root", str(root)]) == 0
        assert (path / "zarr.json").read_bytes() == expected
        # What a single flipped bit leaves is enough without the options, too.
        (path / "zarr.json").write_bytes(data)
        assert run(["cache", "repair", str(path), "--root", str(root)]) == 0
        assert (path / "zarr.json").read_bytes() == expected
        capsys.readouterr()


def test_pull_copies(build, tmp_path, capsys):
    build("--split", "test")
    address = (tmp_path / "caches/test/oracle.zarr").as_uri()
    assert run(["cache", "pull", address, str(tmp_path / "copy.zarr")]) == 0
    assert run(["cache", "verify", str(tmp_path / "copy.zarr")]) == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["verify", "a.zarr", "--workers", "0"], "--workers"),
        (["repair", "a.zarr", "--workers=-1"], "--workers"),
        (["repair", "s3://bucket/a.zarr"], "local folder"),
    ],
)
def test_what_verify_and_repair_refuse(command, words, capsys):
    assert run(["cache", *command]) == 2
    assert words in capsys.readouterr().err


def test_caches_are_not_built_at_an_address_that_the_environment_names(root, monkeypatch, capsys):
    monkeypatch.setenv("MMFE_CACHE", "s3://bucket/caches")
    options = ["--dataset", "cdd11", "--root", str(root), "--guide", "oracle"]
    assert run(["cache", "build", *options]) == 2
    assert "built in a local folder" in capsys.readouterr().err


def test_what_goes_wrong_after_the_right_guess_is_said(build, root, tmp_path, capsys):
    from mmfe_cache.lock import locked

    build("--split", "test")
    data = (tmp_path / "caches/test/oracle.zarr/zarr.json").read_bytes()
    # The place says nothing of the data set: its guess comes second and is wrong.
    path = (tmp_path / "caches/test/oracle.zarr").rename(tmp_path / "caches/test/x.zarr")
    (path / "zarr.json").write_bytes(data.replace(b"checksum", b"checksun"))
    with locked(path):
        assert run(["cache", "repair", str(path), "--root", str(root)]) == 3
    assert "another build is writing" in capsys.readouterr().err
    assert run(["cache", "repair", str(path), "--root", str(root)]) == 0


def test_repair_is_told_which_tokens_joint_pools(build, root, tmp_path, capsys):
    assert run(["guide", "make-tiny", str(tmp_path / "tiny")]) == 0
    capsys.readouterr()
    guide = ["--guide", str(tmp_path / "tiny")]
    code, found, _ = build(
        "--split", "test", "--views", "whole@56", *guide, "--joint", "from-image"
    )
    assert code == 0
    path = found["stores"][0]["path"]
    Path(path, "zarr.json").unlink()
    told = ["--dataset", "cdd11", "--split", "test", "--root", str(root), *guide]
    assert run(["cache", "repair", path, *told, "--joint", "from-image"]) == 0


@pytest.mark.parametrize("command", ["info", "verify", "repair"])
def test_a_missing_cache_exits_three(command, tmp_path, capsys):
    assert run(["cache", command, str(tmp_path / "none.zarr")]) == 3
    assert "no cache at" in capsys.readouterr().err


def test_a_cache_of_another_dataset_is_refused(build, root, tmp_path):
    build("--split", "test", "--views", "whole@16")
    # The other split's store put in this one's place.
    (tmp_path / "caches/train").mkdir(parents=True)
    (tmp_path / "caches/test/oracle.zarr").rename(tmp_path / "caches/train/oracle.zarr")
    code, _, message = build("--split", "train", "--views", "whole@16")
    assert code == 3
    assert "split: test in the cache, train now" in message


def test_interrupting_exits_130_and_the_next_call_goes_on(build, monkeypatch, tmp_path):
    from mmfe_cache.guides.oracle import OracleGuide

    original = OracleGuide.encode_samples
    calls = []

    def interrupted(self, samples):
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, samples)

    monkeypatch.setattr(OracleGuide, "encode_samples", interrupted)
    options = ["--split", "train", "--views", "whole@16", "--shard-samples", "4"]
    code, _, _ = build(*options, "--batch-size", "2")
    assert code == 130
    # What is finished waits beside the store; the store itself shows no view yet.
    left = {p.name for p in (tmp_path / "caches/train").iterdir()}
    assert left == {"oracle.zarr", "oracle.zarr.partial"}
    assert open_cache(tmp_path / "caches/train/oracle.zarr").views == ()
    code, found, _ = build(*options, "--batch-size", "2")
    assert code == 0
    assert found["encodings"] == 7
    assert found["stores"][0]["reused"] == 4
    assert [p.name for p in (tmp_path / "caches/train").iterdir()] == ["oracle.zarr"]


def test_verify_with_pixels_names_all_damage(build, root, tmp_path, capsys):
    build("--split", "test")
    path = tmp_path / "caches/test/oracle.zarr"
    for name in ("whole-224/zarr.json", "whole-224/joint/c.0.0.0"):
        data = bytearray((path / name).read_bytes())
        data[40] ^= 1
        (path / name).write_bytes(data)
    command = ["cache", "verify", str(path), "--pixels", "--root", str(root), "--json"]
    assert run(command) == 3
    report = json.loads(capsys.readouterr().out)
    assert [d["file"] for d in report["damages"]] == [
        "whole-224/zarr.json",
        "whole-224/joint/c.0.0.0",
    ]
    assert report["pixels"] == 11
    (path / "zarr.json").write_bytes(b"")
    assert run(command) == 3
    assert [d["file"] for d in json.loads(capsys.readouterr().out)["damages"]] == ["zarr.json"]


def test_a_dry_run_says_what_is_in_the_way(build, tmp_path):
    (tmp_path / "caches/test").mkdir(parents=True)
    (tmp_path / "caches/test/oracle.zarr").write_text("not a cache")
    code, _, message = build("--split", "test", "--dry-run")
    assert code == 3
    assert "in the way" in message


def test_pull_of_no_view_is_a_usage_error(build, tmp_path, capsys):
    build("--split", "test")
    path = tmp_path / "caches/test/oracle.zarr"
    assert run(["cache", "pull", f"file://{path}", str(tmp_path / "b"), "--views", ", "]) == 2
    assert "names no view" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_byte_order_mark_is_no_part_of_the_question(tmp_path):
    from mmfe_cli.cache_build import _prompt

    file = tmp_path / "prompt.txt"
    for start in (b"", b"\xef\xbb\xbf"):
        file.write_bytes(start + "Was stört dieses Bild?\n".encode())
        assert _prompt(None, file) == "Was stört dieses Bild?"
