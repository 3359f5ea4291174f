"""The page in a real headless Chromium: upload, restore, compare, download, what goes wrong."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import struct
import time
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.errors import MmfeError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run
from mmfe_restore.web import Studio

ROOT = Path(__file__).parents[1]


def photograph(path: Path, seed: int = 0, height: int = 48, width: int = 64) -> Path:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 90, (height // 8, width // 8, 3))
    write_png(path, np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(["mmfe-small"], tmp_path_factory.mktemp("studio"), max_megapixels=0.1)


def test_a_result_is_that_of_mmfe_restore_and_the_upload_is_gone(studio, tmp_path):
    upload = photograph(tmp_path / "in.jpg")
    told: list[float] = []
    assert run(["restore", str(upload), "-o", str(tmp_path / "out"), "--strength", "0.6"]) == 0
    shown = studio.restore(upload, "mmfe-small", 0.6, told.append)
    assert not upload.exists()
    assert shown.download.name == "in-restored.jpg"  # the format of what came
    expected = (tmp_path / "out" / "in.jpg").read_bytes()
    assert shown.download.read_bytes() == expected
    assert np.array_equal(shown.after, read_rgb8(shown.download))
    assert shown.seen is not None
    assert set(shown.seen) == {"low", "haze", "rain", "snow"}
    studio.sweep(older_than=-1)
    assert not shown.download.exists()


def test_what_cannot_be_restored_leaves_nothing_behind(studio, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no picture", encoding="utf-8")
    large = tmp_path / "large.png"
    Image.new("L", (400, 300)).save(large)
    huge = tmp_path / "huge.png"
    huge.write_bytes(claims_to_be(20_000, 10_000))
    for path, words in ((text, "not an image"), (large, "too large"), (huge, "too large")):
        with pytest.raises(MmfeError, match=words):
            studio.restore(path, "mmfe-small", 1, lambda _: None)
        assert not path.exists()
    assert not list(studio._folder.iterdir())
    with pytest.raises(MmfeError, match="no checkpoint"):
        Studio(["nothing-here"], tmp_path)


def claims_to_be(width: int, height: int) -> bytes:
    """A PNG whose header names a size that nothing in it fills."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


# In the browser

HAS_GRADIO = importlib.util.find_spec("gradio") is not None
needs_page = pytest.mark.skipif(not HAS_GRADIO, reason="Gradio is not installed (extra `web`)")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from mmfe_restore.web import serving

    with serving(["mmfe-small"], max_megapixels=0.1) as found:
        yield found


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory):
    spec = importlib.util.spec_from_file_location(
        "browser", ROOT / "tests" / "mmfe_restore" / "evaluation" / "browser.py"
    )
    browser = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browser)
    with browser.chromium(tmp_path_factory.mktemp("profile")) as found:
        yield browser, found


def wait_for(found, seconds: float = 200):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("the page did not come that far")


@pytest.mark.browser
@pytest.mark.slow
@needs_page
def test_the_page_as_a_person_uses_it(address, window, tmp_path):
    from selenium.webdriver.common.by import By

    browser, driver = window
    assert re.match(r"http://127\.0\.0\.1:\d+", address)
    browser.resize(driver, 1280, 900)
    driver.get(address)

    def one(selector: str):
        return next(iter(driver.find_elements(By.CSS_SELECTOR, selector)), None)

    def upload(path: Path) -> None:
        wait_for(lambda: one("#upload input[type=file]")).send_keys(str(path))
        wait_for(lambda: path.name.split(".")[0] in one("#upload").text)

    kept = photograph(tmp_path / "dark.png")
    expected = tmp_path / "out" / "dark.png"
    assert run(["restore", str(kept), "-o", str(expected.parent)]) == 0
    upload(kept)
    wait_for(lambda: one("#start")).click()
    pictures = wait_for(lambda: driver.find_elements(By.CSS_SELECTOR, "#pair img"))
    kept_in = tmp_path / "downloads"
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(kept_in)}
    )
    wait_for(lambda: one("#download")).click()
    found = wait_for(lambda: next(kept_in.glob("dark-restored*.png"), None))
    assert found.read_bytes() == expected.read_bytes()
    assert {"low", "haze", "rain", "snow"} <= set(one("#seen").text.split())
    assert len(pictures) >= 2
    after = {picture.get_attribute("src") for picture in pictures}
    shown = [read_back(driver, source, tmp_path) for source in after]
    for image in (read_rgb8(kept), read_rgb8(expected)):
        assert any(np.array_equal(image, one) for one in shown)

    def look(name: str) -> None:
        for width in (390, 1280):
            browser.resize(driver, width, 1000)
            time.sleep(0.5)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"the page is {wide} pixels wide at {width}"
            (tmp_path / f"{name}-{width}.png").write_bytes(
                base64.b64decode(driver.get_screenshot_as_base64())
            )

    look("result")
    text = tmp_path / "text.jpg"
    text.write_text("no picture", encoding="utf-8")
    upload(text)
    one("#start").click()
    said = wait_for(lambda: [t.text for t in driver.find_elements(By.CSS_SELECTOR, ".toast-body")])
    assert "text.jpg" in said[0]
    assert "not an image" in said[0]

    # The earlier result stays, and nothing lies over it.
    look("error")
    for selector in ("#pair", "#seen", "#notes"):
        assert "Error" not in one(selector).text
    shown = {p.get_attribute("src") for p in driver.find_elements(By.CSS_SELECTOR, "#pair img")}
    assert after <= shown

    elsewhere = outside_requests(driver)
    assert not elsewhere, elsewhere


def read_back(driver, source: str, folder: Path) -> np.ndarray:
    path = folder / f"{abs(hash(source))}.png"
    path.write_bytes(urllib.request.urlopen(source).read())
    return read_rgb8(path)


def outside_requests(driver) -> set[str]:
    """Addresses beyond this machine that the page asked for."""
    asked = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    return {
        url for url in asked
        if url.startswith(("http", "ws")) and "127.0.0.1" not in url and "localhost" not in url
    }  # fmt: skip


@needs_page
@pytest.mark.slow
def test_two_at_once_both_get_their_own(address, tmp_path):
    client = pytest.importorskip("gradio_client")
    photos = [photograph(tmp_path / f"{n}.png", seed=n) for n in (1, 2)]
    assert run(["restore", *map(str, photos), "-o", str(tmp_path / "out")]) == 0

    def restore(photo: Path) -> bytes:
        one = client.Client(address, verbose=False, download_files=str(tmp_path / photo.stem))
        given = client.handle_file(str(photo))
        answer = one.predict(given, "mmfe-small", 1.0, api_name="/restore")
        (path,) = (part["value"] if isinstance(part, dict) else part for part in answer[2:3])
        return Path(path).read_bytes()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(restore, photos))
    assert found == [(tmp_path / "out" / photo.name).read_bytes() for photo in photos]


@needs_page
@pytest.mark.slow
def test_the_space_serves_the_same_page(tmp_path, monkeypatch):
    client = pytest.importorskip("gradio_client")
    from mmfe_restore.web import serving

    spec = importlib.util.spec_from_file_location(
        "space_app", ROOT / "integrations" / "space" / "app.py"
    )
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    photo = photograph(tmp_path / "in.png")
    assert run(["restore", str(photo), "-o", str(tmp_path / "out")]) == 0
    served: list[str] = []
    found: list[bytes] = []

    class StoppedError(Exception):
        pass

    @contextmanager
    def on_this_machine(names, *, host, port, **limits):
        # A Space's address is fixed, and open to others; everything else is as it is there.
        assert (host, port) == ("0.0.0.0", 7860)
        with serving(names, **limits) as address:
            served.append(address)
            yield address

    def use_and_stop(_seconds: float) -> None:
        one = client.Client(served[0], verbose=False, download_files=str(tmp_path / "got"))
        answer = one.predict(client.handle_file(str(photo)), "mmfe-small", 1.0, api_name="/restore")
        result = answer[2]["value"] if isinstance(answer[2], dict) else answer[2]
        found.append(Path(result).read_bytes())
        raise StoppedError

    monkeypatch.setattr(app, "serving", on_this_machine)
    monkeypatch.setattr(app, "time", SimpleNamespace(sleep=use_and_stop))
    with pytest.raises(StoppedError):
        app.main()
    assert found == [(tmp_path / "out" / "in.png").read_bytes()]
