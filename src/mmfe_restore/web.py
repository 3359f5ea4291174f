"""A page for the browser: drop a photograph, compare, download. Needs the extra `web` (Gradio).

Nothing is sent anywhere and nothing is kept: uploads lie in a temporary folder, are removed as soon
as they are restored, results after some minutes, and the folder itself when the page ends. Where a
choice is refused, the photograph waits for another one as long as a result would.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mmfe_cache.degradations import KIND_NAMES, KINDS
from mmfe_cache.errors import DataError, MmfeError, UsageError
from mmfe_cache.images import read_noted, read_rgb8, read_size, shrink
from mmfe_cache.progress import Progress, Task
from mmfe_restore.model.folders import find_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfe_restore.inference import PhotographGuide
    from mmfe_restore.model import Restorer

LOOPBACK = "127.0.0.1"
KEEP_SECONDS = 600.0
"""How long a result can be downloaded."""

PREVIEW_SIDE = 1600
"""Pixels of the longer side of what the page shows; what is downloaded has every pixel."""

MAX_MEGAPIXELS, MAX_MEGABYTES = 50.0, 100

_CSS = """
.gradio-container {width: 100% !important; max-width: 1100px !important; margin: auto}
#model input {text-overflow: ellipsis}
#kinds [data-testid=checkbox-group] {display: grid; grid-template-columns: 1fr 1fr}
footer {display: none !important}
"""


@dataclass(frozen=True)
class Shown:
    """What the page shows of one restored photograph.

    Attributes:
        before: (h, w, 3) uint8, the photograph, no side longer than `PREVIEW_SIDE`.
        after: the restored one, of the same size.
        seen: severity by label; None where the guide names none.
        download: the restored file, in the photograph's own format.
        notes: what the new file does not have of the old one.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    seen: dict[str, float] | None
    download: Path
    notes: tuple[str, ...]


class _Watched(Progress):
    """Tells how far a large photograph has come."""

    def __init__(self, watch: Callable[[float], None]) -> None:
        self._watch = watch

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples", done: int = 0
    ) -> Generator[_Share]:
        """Pass on what a task of percent reports."""
        yield _Share(self._watch if unit == "%" else None)


class _Share(Task):
    def __init__(self, watch: Callable[[float], None] | None) -> None:
        self._watch, self._percent = watch, 0

    def advance(self, amount: int = 1) -> None:
        self._percent += amount
        if self._watch is not None:
            self._watch(self._percent / 100)


class Studio:
    """Networks that are loaded once, and a folder that holds results for some minutes.

    Args:
        names: what can be chosen, as `find_model` reads it.
        folder: where results lie.
        device: where it computes.
        max_megapixels: larger photographs are refused.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        device: str = "auto",
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        for name in names:
            find_model(name)  # a wrong name is said before the page is there
        self.names = tuple(names)
        self._folder, self._device = folder, device
        self._max_megapixels = max_megapixels
        self._one = threading.Lock()
        self._load = cache(self._load_anew)

    def restore(
        self,
        upload: Path,
        model: str,
        strength: float,
        watch: Callable[[float], None],
        kinds: Collection[str] = (),
    ) -> Shown:
        """Restore an uploaded photograph, which is removed.

        Args:
            upload: the file, under its own name.
            model: one of the names.
            strength: as for `restore_image`.
            watch: is told the share that is done.
            kinds: the degradations to take away, as ``only`` of `restore_files`; all of them, or
                none, is for whatever the guide sees.

        Raises:
            UsageError: a network or strength that the page does not offer, or a network that cannot
                be asked for these degradations; the upload is still there.
            MmfeError: what is wrong with the photograph.
        """
        from mmfe_restore.inference import restore_files

        self.sweep()
        only = None if set(kinds) in (set(), set(KINDS)) else kinds
        refused = False
        if model not in self.names:  # whoever reaches the page may ask for anything
            expected = " or ".join(self.names)
            raise UsageError("the page has no such network", got=model, expected=expected)
        if not 0 <= strength <= 1:
            raise UsageError("the strength is out of range", got=strength, expected="0 to 1")
        try:
            height, width = read_size(upload)
            if height * width > self._max_megapixels * 1e6:
                raise DataError(
                    "the photograph is too large for this page",
                    got=f"{height * width / 1e6:.0f} megapixels",
                    expected=f"at most {self._max_megapixels:g}",
                    remedy="mmfe restore takes it",
                )
            before, _ = read_noted(upload)
            place = self._folder / f"result-{secrets.token_hex(8)}"
            with self._one:  # two at once would take the memory of two
                restorer, guide = self._load(model)
                report = restore_files(
                    [upload],
                    place,
                    restorer,
                    guide,
                    suffix="-restored",
                    strength=strength,
                    only=only,
                    progress=_Watched(watch),
                )
        except UsageError:
            refused = True
            raise
        finally:
            if not refused:
                upload.unlink(missing_ok=True)
        if report.failed:
            raise report.failed[0][1]
        (done,) = report.restored
        seen = None if done.seen is None else dict(done.seen)
        after = shrink(read_rgb8(done.target), PREVIEW_SIDE)
        return Shown(shrink(before, PREVIEW_SIDE), after, seen, done.target, done.notes)

    def sweep(self, older_than: float = KEEP_SECONDS) -> None:
        """Remove results that were there for longer."""
        for place in self._folder.glob("result-*"):
            try:
                if time.time() - place.stat().st_mtime > older_than:
                    shutil.rmtree(place, ignore_errors=True)
            except FileNotFoundError:  # another request was faster
                continue

    def _load_anew(self, name: str) -> tuple[Restorer, PhotographGuide | None]:
        from mmfe_cache.machine import pick_device
        from mmfe_restore.inference import guide_for
        from mmfe_restore.model import Restorer

        restorer = Restorer.from_pretrained(find_model(name)).to(pick_device(self._device))
        return restorer, guide_for(restorer, device=self._device)


def require_gradio() -> None:
    """Refuse a page where Gradio is not installed, without importing anything.

    Raises:
        UsageError: it is not.
    """
    if find_spec("gradio") is None:
        raise UsageError(
            "the page needs Gradio, which is not installed", remedy="pip install 'mmfe[web]'"
        )


def _gradio() -> Any:
    """Gradio, with its telemetry switched off."""
    require_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio  # pyright: ignore[reportMissingImports]

    return gradio


def _check_address(host: str, port: int | None) -> None:
    """Say in one line that nothing can be served there; Gradio's server would try 100 ports."""
    try:
        family, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as problem:  # the latter of a name that cannot be one
        said = (getattr(problem, "strerror", None) or str(problem)).partition(" (")[0]
        taken = getattr(problem, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        option = "--port" if taken else "--host"
        raise _not_served(f"{host}, port {port or 'any'}: {said}", option) from problem


def _not_served(got: str, option: str) -> UsageError:
    problem = "the page cannot be served there"
    return UsageError(problem, got=got, remedy=f"choose another {option}")


def build_page(studio: Studio) -> Any:
    """The page as Gradio's Blocks."""
    gr = _gradio()

    # Gradio finds its progress bar by the default of an argument.
    def restore(
        upload: str | None,
        model: str,
        strength: float,
        kinds: list[str],
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        if not upload:
            raise gr.Error("drop a photograph first", print_exception=False)
        try:
            progress(0, desc="looking")
            shown = studio.restore(
                Path(upload), model, strength, lambda s: progress(s, desc="restoring"), kinds
            )
        except MmfeError as problem:
            line = " · ".join(part.strip() for part in str(problem).splitlines())
            raise gr.Error(line.replace(upload, Path(upload).name), print_exception=False) from None
        lines = list(shown.notes)
        if shown.seen is not None and not any(shown.seen[kind] for kind in kinds or KINDS):
            lines.append("The guide sees nothing of what is to be taken away: little is changed.")
        said = "\n".join(f"- {line}" for line in lines)
        seen = {KIND_NAMES[kind]: severity for kind, severity in (shown.seen or {}).items()}
        return (
            gr.ImageSlider(value=(shown.before, shown.after), visible=True),
            gr.Label(value=seen or None, visible=shown.seen is not None),
            gr.DownloadButton(value=str(shown.download), visible=True),
            gr.Markdown(value=said, visible=bool(said)),
            None,
        )

    with gr.Blocks(title="mmfe", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as page:
        gr.Markdown(
            "# mmfe\nRemoves low light, haze, rain and snow from photographs. "
            "Nothing leaves this machine."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label="Photograph", elem_id="upload", height=140)
                model = gr.Dropdown(
                    list(studio.names), value=studio.names[0], label="Network", elem_id="model"
                )
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength", elem_id="strength")
                kinds = gr.CheckboxGroup(
                    [(name, kind) for kind, name in KIND_NAMES.items()],
                    value=list(KINDS),
                    label="Take away",
                    info="All or none: whatever the guide sees. Some: these alone (--only).",
                    elem_id="kinds",
                )
                start = gr.Button("Restore", variant="primary", elem_id="start")
                seen = gr.Label(
                    label="What the guide sees", show_heading=False, visible=False, elem_id="seen"
                )
            with gr.Column(scale=2, min_width=300):
                pair = gr.ImageSlider(
                    label="Before and after",
                    format="png",
                    interactive=False,
                    visible=False,
                    max_height=640,
                    elem_id="pair",
                )
                download = gr.DownloadButton("Download", visible=False, elem_id="download")
                notes = gr.Markdown(visible=False, elem_id="notes")
        done = start.click(
            restore,
            [upload, model, strength, kinds],
            [pair, seen, download, notes, upload],
            concurrency_limit=1,
            # There alone, so that an error does not cover the result that was there before.
            show_progress_on=[upload],
            api_name="restore",
        )
        # An upload that is gone is not shown as if it could be restored.
        done.failure(
            lambda path: gr.skip() if path and Path(path).exists() else None,
            [upload],
            [upload],
            show_progress="hidden",
            api_visibility="private",
        )
    return page


@contextmanager
def serving(
    names: Sequence[str],
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    device: str = "auto",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Generator[str]:
    """Serve the page while the block runs.

    Args:
        names: the networks to choose from.
        host: the address to listen on; others than the loopback let other machines in.
        port: None takes the first free one from 7860 on.
        device: where it computes.
        max_megapixels: larger photographs are refused.

    Yields:
        The page's address.

    Raises:
        UsageError: Gradio is missing, a network is not there, the port is taken, or the address is
            none of this machine's.
    """
    _check_address(host, port)
    with (
        TemporaryDirectory(prefix="mmfe-web-") as folder,
        _environment("GRADIO_TEMP_DIR", folder),
    ):
        gr = _gradio()
        page = build_page(Studio(names, Path(folder), device=device, max_megapixels=max_megapixels))
        try:
            # Gradio asks its own address, which a proxy of this machine's environment cannot reach.
            with _environment("no_proxy", "*"):
                _, address, _ = page.launch(
                    server_name=f"[{host}]" if ":" in host else host,  # as in an address
                    server_port=port,
                    share=False,
                    quiet=True,
                    prevent_thread_lock=True,
                    max_file_size=f"{MAX_MEGABYTES}mb",
                    ssr_mode=False,
                    css=_CSS,
                    # Fonts of the machine: the theme's own would be fetched from elsewhere.
                    theme=gr.themes.Default(
                        font=["system-ui", "sans-serif"], font_mono=["monospace"]
                    ).set(
                        block_info_text_color="*neutral_600",
                        block_info_text_color_dark="*neutral_300",
                    ),
                )
        except (OSError, ValueError) as problem:  # the latter where its own address does not answer
            said = str(problem).splitlines()[0]
            raise _not_served(f"{host}, port {port}: {said}", "--port") from problem
        try:
            yield str(address)
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(name: str, value: str) -> Generator[None]:
    """Set a variable of the environment while the block runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
