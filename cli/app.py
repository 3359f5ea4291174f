"""The typer application and its commands; errors become exit codes here.

A new command is one file and its name in `COMMANDS`, or in `GROUPS`.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated

import typer

from . import output
from .help import Application
from .options import FOLDER_NAMES

app = Application(
    name="mmfe",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # a docstring's line breaks are not the help's
    help="All-in-one image restoration guided by what a multimodal LLM sees.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    "demo",
    "train",
    "eval",
    "compare",
    "ablate",
    "restore",
    "inspect",
    "export",
    "web",
    "doctor",
)
"""Files that hold one command each: a function ``command``."""

OPEN_DATA = ("train", "eval")
"""Those of them that open a data set: their help names the folders of one's own."""

GROUPS = ("data", "guide", "cache", "model", "plot")
"""Files that hold a group of commands each: a typer application ``app``."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, and after `_ENDS`: 128 + SIGINT."""

_ENDS = ("SIGTERM", "SIGHUP")
"""Windows lacks the second."""

_ROOM = "free some space there and give the same command again"
_PLACE = "choose a place that you may write to, or change its permissions"
_FILE = "name another path: a part of this one is a file, where a folder would have to be"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.EROFS: _PLACE,
    errno.ENOTDIR: _FILE,
    errno.EEXIST: _FILE,
    errno.EISDIR: "name a file; a folder has this name",
}


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.print_line(f"mmfe {version('mmfe')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an expected error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no messages; warnings stay.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """All-in-one image restoration guided by what a multimodal LLM sees."""
    output.VERBOSITY.debug = debug
    output.VERBOSITY.quiet = quiet


for _name in COMMANDS:
    _module = importlib.import_module(f".{_name}", __package__)
    app.command(_name, epilog=FOLDER_NAMES if _name in OPEN_DATA else None)(_module.command)
for _name in GROUPS:
    app.add_typer(importlib.import_module(f".{_name}", __package__).app, name=_name)


def main() -> None:
    """Run the command line and exit by the contract: 0, 1, 2, 3 or 130."""
    output.write_any_name()
    output.warn_plainly()
    _leave_matplotlib_out()
    _stop_as_by_ctrl_c()
    sys.exit(run())


def _stop_as_by_ctrl_c() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does.

    Schedulers and containers stop a program by the one, a terminal that is closed by the other.
    What was half written is cleared away, and what the same command would do is said. Training has
    handlers of its own. Processes that are forked keep the usual end: pools stop theirs by it.
    """
    numbers = [getattr(signal, name) for name in _ENDS if hasattr(signal, name)]
    # Elsewhere whoever started this has decided otherwise, such as nohup.
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _stop)
    if hasattr(os, "register_at_fork"):  # Windows forks nothing

        def as_usual() -> None:
            for number in taken:
                signal.signal(number, signal.SIG_DFL)

        os.register_at_fork(after_in_child=as_usual)


def _stop(number: int, frame: object) -> None:
    raise output.StoppedError(signal.Signals(number).name)


class _WithoutPlots(MetaPathFinder):
    """Lets torchmetrics believe that matplotlib is not installed.

    torchmetrics, which Lightning imports, imports it for plots of metrics that nothing here draws.
    That costs every training and restoration a quarter of a second, and where HOME cannot be
    written, complaints about a cache of fonts. `mmfe plot` imports matplotlib by itself.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchmetrics.utilities.imports":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        run_module = spec.loader.exec_module

        def without_plots(module: ModuleType) -> None:
            run_module(module)
            module.__dict__["_MATPLOTLIB_AVAILABLE"] = False

        spec.loader.exec_module = without_plots
        return spec


def _leave_matplotlib_out() -> None:
    sys.meta_path.insert(0, _WithoutPlots())


def run(arguments: list[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: what follows ``mmfe``; None takes the process's own.

    Returns:
        0 done, 1 failed, 2 wrong usage, 3 cache missing, stale or damaged, 130 interrupted.
    """
    from mmfe_cache.errors import MmfeError

    try:
        code = app(arguments, prog_name="mmfe", standalone_mode=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_gone()  # typer has turned it into an exit of 1
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        if code == INTERRUPTED and not output.VERBOSITY.told:
            # typer has turned Ctrl-C into an exit; a command inside `mmfe demo` tells it once.
            output.VERBOSITY.told = True
            then = _what_then(sys.argv[1:] if arguments is None else arguments)
            output.error(f"interrupted; run the same command again{then}")
        return code
    except MmfeError as problem:
        if output.VERBOSITY.debug:
            raise
        output.error(str(problem))
        return problem.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except ModuleNotFoundError as problem:
        from .packages import about_missing

        missing = about_missing(problem)
        if missing is None or output.VERBOSITY.debug:
            raise
        output.error(str(missing))
        return missing.exit_code
    except OSError as problem:
        if output.VERBOSITY.debug:
            raise
        output.error(_about_files(problem))
        return 1
    return code if isinstance(code, int) else 0


def _what_then(arguments: Sequence[str]) -> str:
    """What the command does when it is given again."""
    words = [word for word in arguments if not word.startswith("-")]
    goes_on = _goes_on(words) and not (words[0] == "restore" and "--force" in arguments)
    if output.VERBOSITY.step:
        step = "" if goes_on else ", which begins anew; the steps before it are done"
        return f": the demo goes on with its step '{output.VERBOSITY.step}'{step}"
    start = _start(arguments) if words[:1] == ["train"] else "auto"
    if start != "auto":  # the same command would remove what was just saved
        return f" without --resume {start} to go on; with it, it begins there anew"
    return " to go on" if goes_on else "; it begins anew"


def _start(arguments: Sequence[str]) -> str:
    """What ``--resume`` says, the last time where it is repeated."""
    start = "auto"
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--resume":
            start = following
        elif word.startswith("--resume="):
            start = word.partition("=")[2]
    return start


def _goes_on(words: Sequence[str]) -> bool:
    """Whether a command, given again after an interruption, keeps what it had done."""
    if words[:1] in (["data"], ["cache"]):
        return words[1:2] in (["synth"], ["pack"], ["build"], ["repair"], ["pull"])
    if words[:2] == ["guide", "distill"]:
        return True
    return words[:1] in (["demo"], ["train"], ["ablate"], ["restore"])


def _about_files(problem: OSError) -> str:
    # Where a file written aside could not be renamed, the second name is the user's.
    name = problem.filename2 or problem.filename or ""
    said = f"{problem.strerror or problem}: {name}".rstrip(": ")
    remedy = _REMEDIES.get(problem.errno or 0)
    return said if remedy is None else f"{said}\n  to do:    {remedy}"


def _reader_gone() -> int:
    """The reader of our output has gone (`mmfe ... | head`); nothing is wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
