"""One command line: options are called alike and take the same, and help shows all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer.main

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_cache.errors import ModelError, UsageError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cache.machine import Precision, long_name, short_name
from mmfe_cli import choices
from mmfe_cli.app import app, run
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.folders import find_weights


def every_command(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, found
    for name, inner in getattr(found, "commands", {}).items():
        yield from every_command(inner, (*path, name))


EVERY = dict(every_command(typer.main.get_command(app)))


def options(name: str) -> dict[tuple[str, ...], Any]:
    return {
        path: parameter
        for path, command in EVERY.items()
        for parameter in command.params
        if name in parameter.opts
    }


def test_out_is_o_everywhere() -> None:
    found = options("--out")
    assert set(found) == set(options("-o"))
    assert {("restore",), ("train",), ("demo",), ("plot", "errors"), ("cache", "build")} <= set(
        found
    )
    assert all("-o" in parameter.opts for parameter in found.values())


def test_precision_takes_the_same_words_everywhere() -> None:
    found = options("--precision")
    assert set(found) == {("restore",), ("cache", "build"), ("cache", "repair")}
    for path in found:
        code = run(
            [*path, "--precision", "half", *(["x", "-o", "y"] if path == ("restore",) else [])]
        )
        assert code == 2


def test_devices_are_named_alike_and_completed() -> None:
    found = options("--device")
    assert {("restore",), ("inspect",), ("web",), ("eval",), ("cache", "build")} <= set(found)
    assert len({parameter.help for parameter in found.values()}) == 2  # with a Mac's, and without
    context = typer.main.get_command(app).make_context("mmfe", [], resilient_parsing=True)
    for path, parameter in found.items():
        names = [item.value for item in parameter.shell_complete(context, "")]
        assert names[:3] == ["auto", "cpu", "cuda"], path
        assert all(name in parameter.help for name in names), path


def test_short_and_long_words_mean_the_same() -> None:
    for word in get_args(Precision):
        assert short_name(long_name(word)) == short_name(word)
        assert long_name(short_name(word)) == long_name(word)
    pairs = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
    for short, long in pairs.items():
        assert long_name(short) == long and short_name(long) == short
        with_long = load_recipe("demo", [f"train.precision={long}"])
        assert with_long == load_recipe("demo", [f"train.precision={short}"])
    with pytest.raises(UsageError):
        load_recipe("demo", ["train.precision=half"])


def test_restore_without_a_guide_in_both_ways(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    for word, extra in (
        ("a", ["--guide", "none", "--precision", "float32"]),
        ("b", ["--no-guide", "--precision", "32"]),
        ("c", ["--no-guide", "--guide", "none", "--precision", "auto"]),
        ("d", ["--no-guide", "--precision", "bfloat16"]),
    ):
        target = tmp_path / f"{word}.png"
        arguments = ["restore", str(tmp_path / "in.png"), "-o", str(target), *extra]
        assert run([*arguments, "--checkpoint", str(model)]) == 0
        assert np.array_equal(read_rgb8(target), image)  # the network starts as the identity
    capsys.readouterr()
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "e.png")]
    assert run([*arguments, "--no-guide", "--guide", "scene"]) == 2
    assert "not both" in capsys.readouterr().err


def test_the_literals_are_what_defines_them() -> None:
    from mmfe_cache.datasets import SPLITS
    from mmfe_restore.evaluation.ablation_plan import ABLATIONS, PROMPTS
    from mmfe_restore.evaluation.published import PROTOCOLS
    from mmfe_restore.model import MOFE_SITES

    assert tuple(one.value for one in choices.Composition) == COMPOSITIONS
    assert get_args(choices.Split) == SPLITS
    assert get_args(choices.Table) == (*ABLATIONS, PROMPTS)
    assert get_args(choices.Protocol) == tuple(PROTOCOLS)
    assert get_args(choices.Site) == tuple(MOFE_SITES)


def test_the_shell_completes_choices() -> None:
    context = typer.main.get_command(app).make_context("mmfe", [], resilient_parsing=True)
    for path, name, typed, wanted in (
        (("eval",), "protocol", "mo", ["moce-ir"]),
        (("eval",), "table_format", "l", ["latex"]),
        (("ablate",), "table", "table5", ["table5a", "table5b", "table5c"]),
        (("restore",), "file_format", "w", ["webp"]),
        (("cache", "build"), "precision", "bf", ["bf16", "bfloat16"]),
        (("plot", "experts"), "site", "lat", ["latent_in", "latent_out"]),
    ):
        parameter = next(p for p in EVERY[path].params if p.name == name)
        found = parameter.shell_complete(context, typed)
        assert [item.value for item in found if item.value.startswith(typed)] == wanted, name


def test_a_revision_of_a_repository_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, object]] = []

    def download(name: str, **hub: Any) -> str:
        asked.append((name, hub.get("revision")))
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for source, options_ in (
        ("owner/name", {}),
        ("owner/name@v1.0", {}),
        ("owner/name@v1.0", {"revision": "main"}),
    ):
        with pytest.raises(ModelError, match="owner/name"):
            Restorer.from_pretrained(source, **options_)
    assert asked == [("owner/name", None), ("owner/name", "v1.0"), ("owner/name", "main")]


def test_restore_takes_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), dtype=np.uint8))
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out")]
    assert run([*arguments, "--checkpoint", "no-such-owner/no-such-name@v2"]) == 1
    assert "no-such-owner/no-such-name@v2 is neither" in capsys.readouterr().err


def test_eval_and_init_from_take_a_revision_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, object]] = []

    def download(name: str, **hub: Any) -> str:
        asked.append((name, hub.get("revision")))
        if name != "owner/name" or hub.get("local_files_only"):
            raise LocalEntryNotFoundError("no such repository here")
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMFE_RUNS", str(tmp_path / "mine"))
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    for split in ("train", "test"):
        for label in ("clear", *COMPOSITIONS):
            place = tmp_path / "set" / split / label
            place.mkdir(parents=True)
            write_png(place / "1.png", image)
    wanted = ["--checkpoint", "owner/name@v1", "--recipe", "demo", "--root", "set", "--no-guide"]
    assert run(["eval", *wanted, "--json"]) == 0
    assert set(asked) == {("owner/name", "v1")}
    # Its report lies where runs lie, and neither in the Hub's cache nor in the package.
    report = Path(json.loads(capsys.readouterr().out)["report"])
    assert report == tmp_path / "mine/owner/name@v1/eval/cdd11-test/report.html"
    assert report.is_file()

    asked.clear()
    plan = ["train", "--recipe", "demo", "--set", "model.width=8", "--dry-run", "--root", "set"]
    narrow = ["--set", "model.num_heads=[1,1,2,2]"]
    # 3: the network fits, and then there is no cache.
    assert run([*plan, *narrow, "--init-from", "owner/name@v2"]) == 3
    assert asked[0] == ("owner/name", "v2")
    capsys.readouterr()
    assert run([*plan, "--init-from", "owner/name"]) == 1
    assert "another network's" in capsys.readouterr().err
    for words in (["eval", "--checkpoint"], [*plan, "--init-from"]):
        assert run([*words, "nobody/nothing@v3"]) == 1
        assert "nobody/nothing@v3 is neither a folder nor" in capsys.readouterr().err

    # A run that goes on needs no weights to begin with, and asks nobody for them.
    assert find_weights("owner/name@v1", needed=False) == Path("owner/name@v1")
    assert find_weights("owner/name") == model / "model.safetensors"
    asked.clear()
    for path in ("weights/restormer.pth", "mine/x", "./owner/name", "runs/x/model"):
        assert find_weights(path) == Path(path)
    assert asked == []


def words(text: str) -> list[str]:
    return text.replace("`", "").replace("│", " ").split()


def shown(path: tuple[str, ...], width: int, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        assert run([*path, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_all_of_it(
    path: tuple[str, ...], width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(path, width, capsys)
    assert max(map(len, text.splitlines())) <= width
    command, said = EVERY[path], words(text)
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert option in [word.rstrip(",") for word in said]
        follows(words(parameter.help or ""), said)
    for paragraph in re.split(r"\n\s*\n", command.help or ""):
        follows(words(paragraph), said)
    follows(words(getattr(command, "epilog", None) or ""), said)
    for name in getattr(command, "commands", {}):
        assert name in said


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_a_group_without_a_command_shows_its_help(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for path, command in EVERY.items():
        if hasattr(command, "commands"):
            assert run(list(path)) == 2
            bare = capsys.readouterr()
            assert run([*path, "--help"]) == 0
            assert "\n".join(bare.out.split()) == "\n".join(capsys.readouterr().out.split())
            assert bare.err.strip() == ""


def follows(wanted: list[str], said: list[str]) -> None:
    """The words stand there whole and in their order."""
    if wanted:
        joined = "\0".join(said)
        assert "\0".join(wanted) in joined, " ".join(wanted)


def test_a_wide_terminal_cuts_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    for path, command in EVERY.items():
        said = words(shown(path, 120, capsys))
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in said, (path, option)
