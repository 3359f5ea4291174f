"""The command line's contract: start-up, exit codes, streams."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.images import write_png
from mmfe_cli import output
from mmfe_cli.app import COMMANDS, GROUPS, run


def mmfe(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from mmfe_cli.app import main; main()", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_help_names_every_command_and_exits_0():
    done = mmfe("--help", COLUMNS="100")
    assert done.returncode == 0
    for name in (*COMMANDS, *GROUPS):
        assert f" {name} " in done.stdout


def test_commands_that_draw_nothing_do_without_matplotlib():
    """Where HOME cannot be written, matplotlib complains of its cache of fonts when imported."""
    program = (
        "import sys\n"
        "from mmfe_cli import app\n"
        "sys.argv = ['mmfe', 'train', '--recipe', 'demo', '--root', 'nowhere', '--dry-run']\n"
        "try:\n"
        "    app.main()\n"
        "except SystemExit as done:\n"
        "    import lightning.pytorch, mmfe_restore.evaluation, mmfe_restore.training\n"
        "    assert 'torchmetrics' in sys.modules and 'matplotlib' not in sys.modules\n"
        "    import matplotlib.figure\n"  # there all the same, for those who draw
        "    sys.exit(done.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": "/dev/null", "MPLCONFIGDIR": ""},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "nowhere" in done.stderr


def test_help_loads_nothing_heavy():
    heavy = ["torch", "numpy", "transformers", "lightning", "zarr", "h5py", "skimage", "PIL"]
    program = (
        "import sys\n"
        "from mmfe_cli.app import run\n"
        f"for name in {[None, *COMMANDS, *GROUPS]!r}:\n"
        "    code = run([name, '--help'] if name else ['--help'])\n"
        f"    loaded = [m for m in {heavy!r} if m in sys.modules]\n"
        "    assert not code and not loaded, (name, code, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes streams by a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    words = f"{shlex.quote(sys.executable)} -m mmfe_cli model list --json {closed}"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("mmfe-small" in done.stdout) == (closed == "2>&-")


def test_help_takes_few_function_calls():
    # The contract is half a second of CPU time. Seconds depend on the machine, calls do not:
    # 127,000 of them took 0.25 s on one machine and over 0.5 s on another.
    program = (
        "import sys\n"
        "calls = 0\n"
        "def count(frame, event, argument):\n"
        "    global calls\n"
        "    calls += event == 'call'\n"
        "sys.setprofile(count)\n"
        "from mmfe_cli.app import run\n"
        "code = run(['--help'])\n"
        "sys.setprofile(None)\n"
        "print(code, calls, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    code, calls = map(int, done.stderr.split())
    assert code == 0
    assert 10_000 < calls < 200_000


def test_unknown_command_exits_2_and_says_so_on_stderr():
    done = mmfe("restroe")
    assert done.returncode == 2
    assert "restroe" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("modle info", "No such command 'modle'. Did you mean 'model'?"),
        ("model foo", "No such command 'foo'. There are: info, list."),
        ("nothing", "There are: demo, train, eval,"),
        ("model info x", "mmfe model info takes options only, each by its name, such as --recipe."),
        ("train x y", "Got unexpected x y: mmfe train takes options only"),
        ("train x", "For example: mmfe train --recipe cdd11"),
        ("doctor x", "each by its name. Example: mmfe doctor --json"),
        ("compare a b c", "Got unexpected c: mmfe compare takes RUN_A RUN_B and options."),
    ],
)
def test_words_that_a_command_does_not_take_get_what_it_takes(words, said, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(words.split()) == 2
    assert said in capsys.readouterr().err


def test_expected_errors_show_no_traceback_and_exit_by_kind(tmp_path):
    done = mmfe("cache", "info", str(tmp_path / "none.zarr"))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "none.zarr" in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = mmfe("--debug", "cache", "info", str(tmp_path / "none.zarr"))
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("words", ["--quiet restore", "restore --quiet", "restore -q"])
def test_switches_of_mmfe_stand_before_the_command_or_after_it(words, tmp_path):
    write_png(tmp_path / "in.png", np.zeros((16, 16, 3), np.uint8))
    done = mmfe(*words.split(), str(tmp_path / "in.png"), "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    ["cache info none.zarr --debug", "cache --debug info none.zarr", "restore --debug broken.png"],
)
def test_debug_is_understood_anywhere(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"no picture")
    done = mmfe(*words.split())
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_what_follows_two_dashes_is_no_switch(tmp_path):
    done = mmfe("restore", "-o", str(tmp_path / "out"), "--", "--quiet")
    assert done.returncode == 1
    assert "image --quiet does not exist" in done.stderr


STOPPED = """
import os, signal, sys, tempfile, time
from mmfe_cli import app
told = int(sys.argv[1])
for ignored in (True, False):
    signal.signal(told, signal.SIG_IGN if ignored else signal.SIG_DFL)
    app._stop_as_by_ctrl_c()
    try:
        with tempfile.TemporaryDirectory(dir=sys.argv[2]):
            os.kill(os.getpid(), told)
            time.sleep(0 if ignored else 60)
            print("went on")
    except KeyboardInterrupt:
        print("interrupted")
if (child := os.fork()) == 0:
    os.kill(os.getpid(), told)
    time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_ended_clears_away(name, tmp_path):
    number = getattr(signal, name)
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(int(number)), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    # Under nohup it goes on; what it forks ends as usual.
    assert done.stdout.split("\n") == ["went on", "interrupted", str(-number), ""]
    assert not list(tmp_path.iterdir())


def test_reading_end_gone_is_no_error():
    program = f"{sys.executable} -c 'from mmfe_cli.app import main; main()' guide list | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_one_document_on_stdout(capsys):
    assert run(["guide", "list", "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_a_full_disk_says_what_to_do(monkeypatch, capsys):
    from mmfe_cli import app

    def full(*_arguments, **_options):
        with Path("/dev/full").open("wb", buffering=0) as disk:
            disk.write(b"much")

    monkeypatch.setattr(app, "app", full)
    assert run(["guide", "list"]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "free some space" in said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["restore", ""], "One of the arguments"),
        (["restore", "a.png", "--", ""], "What follows --"),
        (["restore", "a.png", "-o", ""], "What follows -o"),
        (["data", "synth", "photos", "--out="], "What follows --out"),
        (["cache", "info", ""], "One of the arguments"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(words, what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"{what} is empty, maybe of a variable that is not set" in said
    assert not any(tmp_path.iterdir())


def test_a_suffix_may_be_empty(tmp_path, capsys):
    for words in (["--suffix", ""], ["--suffix="]):
        assert run(["restore", str(tmp_path / "none.png"), "-o", str(tmp_path), *words]) == 1
        assert "none.png" in capsys.readouterr().err


def test_help_loses_no_part_of_a_path():
    # In markdown <dataset> is a tag, and tags are not shown.
    for name in ("train", "eval", "ablate"):
        shown = " ".join(mmfe(name, "--help", COLUMNS="200").stdout.split())
        assert "TABLE/ROW" in shown or "DATASET" in shown
        types = r"<(none|path|str|bool|int|int range|list\[str\]|list\[Path\]|[^<>|]+(\|[^<>|]+)+)>"
        assert "<" not in re.sub(types, "", shown)


def test_a_file_where_a_folder_should_be_says_what_to_do(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(["guide", "make-tiny", str(tmp_path / "file" / "toy")]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert "a part of this one is a file" in said


def test_an_interrupted_step_of_the_demo_says_that_the_demo_goes_on(monkeypatch, capsys):
    import typer

    import mmfe_cache.datasets
    from mmfe_cli.demo import _Steps

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(mmfe_cache.datasets, "load_dataset", interrupted)
    monkeypatch.setattr(output.VERBOSITY, "told", False)
    with pytest.raises(typer.Exit) as stopped:
        _Steps().run("eval of the ablation", "eval", "--checkpoint", "mmfe-small")
    assert stopped.value.exit_code == 130
    message = capsys.readouterr().err
    assert "the demo goes on with its step 'eval of the ablation', which begins anew" in message
    assert output.VERBOSITY.step == ""
    monkeypatch.setattr(output.VERBOSITY, "told", False)
    assert run(["eval", "--checkpoint", "mmfe-small"]) == 130
    assert "run the same command again; it begins anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("train --recipe demo", " to go on"),
        ("train --resume auto", " to go on"),
        ("train --resume none", " without --resume none to go on; with it, it begins there anew"),
        ("train --resume=a.ckpt -o x", " without --resume a.ckpt to go on"),
        ("-q restore a.png", " to go on"),
        ("restore a.png --force", "; it begins anew"),
        ("eval --force", "; it begins anew"),
    ],
)
def test_what_is_advised_after_an_interruption_never_removes_what_was_saved(
    words, then, monkeypatch, capsys
):
    from mmfe_cli import app

    def stopped(*_arguments, **_options):
        raise SystemExit(130)

    monkeypatch.setattr(app, "app", stopped)
    monkeypatch.setattr(output.VERBOSITY, "told", False)
    assert run(words.split()) == 130
    said = capsys.readouterr().err
    assert said.startswith(f"mmfe: interrupted; run the same command again{then}")


def test_ctrl_c_ends_the_page_as_it_says(monkeypatch, capsys):
    import time
    from contextlib import nullcontext

    from mmfe_cli.output import StoppedError
    from mmfe_restore import web

    def pressed(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(web, "require_gradio", lambda: None)
    monkeypatch.setattr(web, "serving", lambda *_names, **_options: nullcontext("http://here"))
    monkeypatch.setattr(time, "sleep", pressed)
    assert run(["web"]) == 0
    told = capsys.readouterr()
    assert "the page is at http://here ; Ctrl-C ends it" in told.out
    assert "interrupted" not in told.err

    def stopped(_seconds):
        raise StoppedError("SIGTERM")

    monkeypatch.setattr(time, "sleep", stopped)
    assert run(["web"]) == 130


@pytest.mark.parametrize(
    "command", [["data", "check"], ["data", "pack"], ["cache", "build"], ["train"], ["eval"]]
)
def test_the_help_names_the_folders_of_ones_own_pairs(command, capsys, monkeypatch):
    from mmfe_cache.datasets.folder import PAIRS_OF_FOLDERS

    monkeypatch.setenv("COLUMNS", "200")
    assert run([*command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{degraded}+{clean}" in said for degraded, clean in PAIRS_OF_FOLDERS)


def test_what_a_picture_file_holds_more_is_a_plain_warning(tmp_path):
    """Whichever command reads the file: Python would add a file and a line of mmfe's own."""
    pages = [Image.fromarray(np.full((40, 56, 3), value, np.uint8)) for value in (60, 90)]
    path = tmp_path / "photos" / "a.tif"
    path.parent.mkdir()
    pages[0].save(path, save_all=True, append_images=pages[1:])
    command = ["data", "pack", "--dataset", "folder", "--root", str(path.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "mmfe_cli", "-q", *command, "--split", "train", "--json"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())  # wrapped where the tests run in a terminal
    assert said.count(f"warning: {path}: it holds 2 pages, of which the first is read") == 1
    assert said.count("pages") == 1
    assert "reading.py" not in said
