"""The page of `mmfe web` in a browser's window, as a person uses it."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmfe_cache.images import read_rgb8

Found = TypeVar("Found")


def wait_for(found: Callable[[], Found], seconds: float = 200) -> Found:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("the page did not come that far")


class Page:
    """The page in the window, as a person uses it."""

    def __init__(self, driver: Any, address: str, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
        )
        driver.get(address)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return next(iter(self.all(selector)), None)

    def upload(self, path: Path) -> None:
        wait_for(lambda: self.one("#upload input[type=file]")).send_keys(str(path))
        wait_for(lambda: path.name.split(".")[0] in self.one("#upload").text)

    def start(self) -> None:
        wait_for(lambda: self.one("#start")).click()

    def result(self, stem: str) -> bytes:
        """Wait until the upload of a PNG is restored and gone, and download what became of it."""
        wait_for(lambda: self.one("#upload input[type=file]"))
        wait_for(lambda: self.one("#download")).click()
        return wait_for(lambda: next(self.folder.glob(f"{stem}-restored*.png"), None)).read_bytes()

    def take(self, network: str) -> None:
        self.one("#model input").click()
        wait_for(
            lambda: next((o for o in self.all("[role=option]") if network in o.text), None)
        ).click()

    def turn(self, *kinds: str) -> None:
        """Click the boxes of these."""
        for kind in kinds:
            self.one(f"#kinds input[name={kind}]").click()

    def errors(self) -> list[str]:
        return [said.text for said in self.all(".toast-body") if said.text]


def look(window: Any, path: Path) -> None:
    """Keep screenshots at three widths, none of which the page exceeds."""
    browser, driver = window
    for width in (390, 800, 1280):
        browser.resize(driver, width, 1000)
        time.sleep(0.5)
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} pixels wide at {width}"
        path.with_name(f"{path.name}-{width}.png").write_bytes(
            base64.b64decode(driver.get_screenshot_as_base64())
        )


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
