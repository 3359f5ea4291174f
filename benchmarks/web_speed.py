"""The page's first result beside `mmfe restore`, in turns: what a person waits for either.

    python -m benchmarks.web_speed [--rounds 3] [--json]

Each round starts `mmfe web` anew, waits until the page answers, and asks it for one photograph as
the page's button does (upload, restore, download); then the same photograph goes through
`mmfe restore`, from the start of the process to its end. The page may take a second longer. Needs
the extra `web`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 1.0
"""Seconds that the page's first result may take beyond the command."""

STARTING = 300.0
"""Seconds after which a page that does not answer is given up."""


def program(folder: Path, threads: int) -> dict[str, Any]:
    """How processes are started here: the same threads, nothing of the user's."""
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {"env": {**os.environ, **limits}, "cwd": folder}


@contextmanager
def page(folder: Path, threads: int) -> Generator[str]:
    """`mmfe web` in a process of its own; its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).with_name("mmfe")), "web", "--port", str(port)]
    serving = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **program(folder, threads)
    )
    try:
        end = time.monotonic() + STARTING
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if serving.poll() is not None or time.monotonic() > end:
                    said = b"" if serving.stderr is None else serving.stderr.read()
                    sys.exit(f"mmfe web did not start: {said.decode(errors='replace').strip()}")
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        serving.terminate()
        serving.wait()


def page_seconds(folder: Path, photo: Path, threads: int) -> tuple[float, bytes]:
    """From the upload to the downloaded result, on a page that has restored nothing yet."""
    from gradio_client import Client, handle_file

    with page(folder, threads) as address:
        client = Client(address, verbose=False, download_files=str(folder / "downloads"))
        started = time.perf_counter()
        given = handle_file(str(photo))
        answer = client.predict(given, "mmfe-small", 1.0, api_name="/restore")
        taken = time.perf_counter() - started
    found = answer[2]["value"] if isinstance(answer[2], dict) else answer[2]
    return taken, Path(found).read_bytes()


def command_seconds(folder: Path, photo: Path, threads: int) -> tuple[float, bytes]:
    """From the start of `mmfe restore` to its end."""
    out = folder / "out.png"
    words = [str(Path(sys.executable).with_name("mmfe")), "restore", str(photo), "-o", str(out)]
    started = time.perf_counter()
    subprocess.run([*words, "--force"], check=True, capture_output=True, **program(folder, threads))
    return time.perf_counter() - started, out.read_bytes()


def measure(size: tuple[int, int], threads: int, rounds: int) -> dict[str, Any]:
    """Both, in turns.

    Args:
        size: height and width of the photograph in pixels.
        threads: of each process.
        rounds: how often.
    """
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pages: list[float] = []
    commands: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photo = folder / "in.png"
        Image.fromarray(image).save(photo)
        for _ in range(rounds):
            shown, restored = page_seconds(folder, photo, threads)
            taken, expected = command_seconds(folder, photo, threads)
            if restored != expected:
                sys.exit("the page and the command restored different pictures")
            pages.append(shown)
            commands.append(taken)
    beyond = [one - other for one, other in zip(pages, commands, strict=True)]
    return {
        "size": "x".join(map(str, size)),
        "threads": threads,
        "rounds": rounds,
        "page_first_s": round(statistics.median(pages), 3),
        "command_s": round(statistics.median(commands), 3),
        "ratio": round(statistics.median(pages) / statistics.median(commands), 3),
        "beyond_command_s": round(statistics.median(beyond), 3),
        "limit_s": LIMIT,
        "within": statistics.median(beyond) <= LIMIT,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="720x1080", help="HEIGHTxWIDTH")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    found = measure((height, width), given.threads, given.rounds)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'first result':>14} {'command':>9} {'beyond':>8} {'limit':>6}")
    print(
        f"{found['page_first_s']:>12.2f} s {found['command_s']:>7.2f} s "
        f"{found['beyond_command_s']:>6.2f} s {LIMIT:>4.1f} s"
    )


if __name__ == "__main__":
    main()
