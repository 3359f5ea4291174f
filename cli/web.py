"""`mmfe web`: a page on this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from . import completion, output
from .options import Device


def command(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="A network to choose from beside those of `mmfe model list`: a run's folder, its "
            "model/, or OWNER/NAME or OWNER/NAME@REVISION on the Hugging Face Hub; may be "
            "repeated.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="[default: the first free one from 7860 on]"),
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(min=0.1, help="Larger photographs are refused.")
    ] = 50,
    device: Device = "auto",
) -> None:
    """Open a page that restores photographs: before and after, what to take away, download.

    It listens on this machine alone unless --host says otherwise. Nothing is kept: uploads are
    removed as soon as they are restored, results and what was not restored after ten minutes and at
    the end.

    Example: mmfe web
    """
    from mmfe_cache.machine import check_device, pick_device
    from mmfe_restore.model.folders import find_model, shipped_models

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    check_device(device)
    names = [*(checkpoint or ()), *shipped_models()]
    for name in names:
        find_model(name)
    from mmfe_restore.web import LOOPBACK, require_gradio, serving

    require_gradio()
    pick_device(device)
    output.take_threads(device)
    if host not in (LOOPBACK, "localhost"):
        output.remark(f"--host {host}: whoever reaches this machine can use the page")
    with serving(
        names, host=host, port=port, device=device, max_megapixels=max_megapixels
    ) as address:
        output.print_line(f"the page is at {address} ; Ctrl-C ends it")
        try:
            while True:
                time.sleep(3600)
        except output.StoppedError:
            raise
        except KeyboardInterrupt:
            pass  # the way to end it: nothing was interrupted
