"""The page in a real headless Chromium: upload, restore, compare, download, what goes wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import struct
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
from skimage import data

from mmfe_cache.degradations import KIND_NAMES, KINDS, degrade
from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.guides.registry import find_guide
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run
from mmfe_restore import Restorer
from mmfe_restore.web import Studio, serving

from .small import small_recipe
from .web_page import Page, look, outside_requests, read_back, wait_for

ROOT = Path(__file__).parents[1]


def photograph(path: Path, seed: int = 0, height: int = 48, width: int = 64) -> Path:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 90, (height // 8, width // 8, 3))
    write_png(path, np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Networks that cannot be asked for some degradations alone: another guide's, and unguided."""
    folder = tmp_path_factory.mktemp("networks")
    without = {"experts": "none", "encoder_guidance": "none", "decoder_guidance": "none"}
    recipes = {
        "prompt": small_recipe("prompt", guidance_dim=find_guide("prompt").dim),
        "unguided": small_recipe(**without),
    }
    for name, recipe in recipes.items():
        Restorer.from_recipe(recipe).save_pretrained(folder / name)
    return {name: str(folder / name) for name in recipes}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, str]) -> Studio:
    names = ["mmfe-small", *networks.values()]
    return Studio(names, tmp_path_factory.mktemp("studio"), max_megapixels=0.1)


def command(photo: Path, folder: Path, *extra: str) -> bytes:
    """What `mmfe restore` makes of a photograph."""
    assert run(["restore", str(photo), "-o", str(folder), "--force", *extra]) == 0
    return (folder / photo.name).read_bytes()


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


def words_of(said: str) -> list[str]:
    """The words of a command's error, without the notes before it."""
    return said.partition("mmfe: ")[2].split()


@pytest.mark.parametrize(
    ("kinds", "only"),
    [
        (["rain"], "rain"),
        (["snow", "low"], "low,snow"),
        ([], None),
        (list(KINDS), None),
    ],
)
def test_some_degradations_alone_are_those_of_only(
    studio: Studio, tmp_path: Path, kinds: list[str], only: str | None
) -> None:
    photo = photograph(tmp_path / "in.png")  # dark, so that leaving low light out shows
    expected = command(photo, tmp_path / "out", *([] if only is None else ["--only", only]))
    if only == "rain":
        assert expected != command(photo, tmp_path / "all")
    shown = studio.restore(photo, "mmfe-small", 1, lambda _: None, kinds)
    assert shown.download.read_bytes() == expected


@pytest.mark.parametrize(
    ("network", "kinds"), [("prompt", ["rain"]), ("unguided", ["rain"]), (None, ["rain", "fog"])]
)
def test_a_refused_choice_is_said_as_by_the_command_and_keeps_the_upload(
    studio: Studio,
    networks: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    network: str | None,
    kinds: list[str],
) -> None:
    photo = photograph(tmp_path / "in.png")
    name = "mmfe-small" if network is None else networks[network]
    words = ["restore", str(photo), "-o", str(tmp_path / "out"), "--checkpoint", name]
    assert run([*words, "--only", ",".join(kinds)]) == 2
    said = words_of(capsys.readouterr().err)
    before = set(studio._folder.iterdir())
    with pytest.raises(UsageError) as caught:
        studio.restore(photo, name, 1, lambda _: None, kinds)
    assert said == str(caught.value).split()
    assert set(studio._folder.iterdir()) == before
    everything = command(photo, tmp_path / "all", "--checkpoint", name)
    shown = studio.restore(photo, name, 1, lambda _: None)
    assert shown.download.read_bytes() == everything
    assert not photo.exists()


@pytest.mark.parametrize(
    ("name", "strength"),
    [("owner/name", 1.0), ("../elsewhere", 1.0), ("mmfe-small", 2.0), ("mmfe-small", float("nan"))],
)
def test_what_the_page_does_not_offer_is_refused_unseen(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, strength: float
) -> None:
    """A request need not come from the page: no other network is loaded, let alone downloaded."""
    monkeypatch.setattr(studio, "_load", lambda _: pytest.fail("it was loaded"))
    photo = photograph(tmp_path / "in.png")
    with pytest.raises(UsageError):
        studio.restore(photo, name, strength, lambda _: None)
    assert photo.exists()


def test_frames_are_told_beside_the_result_alone(studio: Studio, tmp_path: Path) -> None:
    import warnings

    from PIL import Image

    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("brown", "navy"))
    first.save(tmp_path / "in.webp", save_all=True, append_images=[second])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = studio.restore(tmp_path / "in.webp", "mmfe-small", 1, lambda _: None)
    assert shown.notes == ("it holds 2 frames, of which the first is read",)


def test_a_large_photograph_tells_how_far_it_has_come(studio, tmp_path, monkeypatch):
    monkeypatch.setattr("mmfe_restore.inference.files.LARGE", 1)
    told: list[float] = []
    studio.restore(photograph(tmp_path / "in.png"), "mmfe-small", 1, told.append)
    assert told == sorted(told)
    assert told[-1] == 1


def test_what_cannot_be_restored_leaves_nothing_behind(studio, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no picture", encoding="utf-8")
    large = tmp_path / "large.png"
    Image.new("L", (400, 300)).save(large)
    huge = tmp_path / "huge.png"
    huge.write_bytes(claims_to_be(20_000, 10_000))
    studio.sweep(older_than=-1)
    for path, words in ((text, "not an image"), (large, "too large"), (huge, "too large")):
        with pytest.raises(MmfeError, match=words):
            studio.restore(path, "mmfe-small", 1, lambda _: None)
        assert not path.exists()
    assert not list(studio._folder.iterdir())
    with pytest.raises(MmfeError, match="no checkpoint"):
        Studio(["nothing-here"], tmp_path)


def test_where_no_page_can_be_served_is_said_in_one_line(capfd):
    # An address of no machine, and what can be no name of one.
    for host in ("192.0.2.1", "a..b", f"{'a' * 64}.b"):
        with pytest.raises(UsageError, match="choose another --host"):
            serving(["mmfe-small"], host=host).__enter__()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="choose another --port"):
            serving(["mmfe-small"], port=port).__enter__()
    assert capfd.readouterr() == ("", "")
    assert run(["web", "--port", "65536"]) == 2


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
def address(networks: dict[str, str]) -> Iterator[str]:
    with serving(["mmfe-small", networks["prompt"]], max_megapixels=0.1) as found:
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


@pytest.mark.browser
@pytest.mark.slow
@needs_page
def test_the_page_as_a_person_uses_it(address, window, tmp_path):
    browser, driver = window
    assert re.match(r"http://127\.0\.0\.1:\d+", address)
    browser.resize(driver, 1280, 900)
    page = Page(driver, address, tmp_path / "downloads")

    kept = photograph(tmp_path / "dark.png")
    expected = command(kept, tmp_path / "out")
    page.upload(kept)
    page.start()
    assert page.result("dark") == expected
    assert {"low", "haze", "rain", "snow"} <= set(page.one("#seen").text.split())
    after = {picture.get_attribute("src") for picture in page.all("#pair img")}
    shown = [read_back(driver, source, tmp_path) for source in after]
    for image in (read_rgb8(kept), read_rgb8(tmp_path / "out" / "dark.png")):
        assert any(np.array_equal(image, one) for one in shown)

    look(window, tmp_path / "result")
    text = tmp_path / "text.jpg"
    text.write_text("no picture", encoding="utf-8")
    page.upload(text)
    page.start()
    said = wait_for(page.errors)
    assert "text.jpg" in said[0]
    assert "not an image" in said[0]
    # What is gone is not shown as if it could be restored.
    wait_for(lambda: page.one("#upload input[type=file]"))

    # The earlier result stays, and nothing lies over it.
    look(window, tmp_path / "error")
    for selector in ("#pair", "#seen", "#notes"):
        assert "Error" not in page.one(selector).text
    assert after <= {picture.get_attribute("src") for picture in page.all("#pair img")}

    elsewhere = outside_requests(driver)
    assert not elsewhere, elsewhere


@pytest.mark.browser
@pytest.mark.slow
@needs_page
def test_some_degradations_alone_on_the_page(address, window, networks, tmp_path, capsys):
    browser, driver = window
    browser.resize(driver, 1280, 900)
    page = Page(driver, address, tmp_path / "downloads")
    photos = [tmp_path / f"{name}.png" for name in ("alone", "refused")]
    dark = degrade(np.asarray(data.chelsea())[:160, :208], "low", seed_parts=("page",)).image
    for photo in photos:
        write_png(photo, dark)
    only = ["--only", "rain"]
    alone = command(photos[0], tmp_path / "out", *only)
    assert alone != command(photos[0], tmp_path / "all")

    wait_for(lambda: page.one("#kinds"))
    look(window, tmp_path / "choice")
    assert [label.text for label in page.all("#kinds label")] == [*KIND_NAMES.values()]
    assert all(box.is_selected() for box in page.all("#kinds input"))
    page.turn("low", "haze", "snow")
    page.upload(photos[0])
    page.start()
    assert page.result("alone") == alone
    assert page.one("#seen").text.count("0%") < 4
    assert "nothing of what is to be taken away" in page.one("#notes").text  # it sees low light

    # Another guide does not carry it: the command's words, and the photograph waits.
    prompt = ["--checkpoint", networks["prompt"]]
    capsys.readouterr()
    assert run(["restore", str(photos[1]), "-o", str(tmp_path / "no"), *prompt, *only]) == 2
    words = words_of(capsys.readouterr().err)
    page.take(networks["prompt"])
    page.upload(photos[1])
    page.start()
    said = wait_for(page.errors)[0]
    assert words
    assert " ".join(words) in " ".join(said.replace("·", "").split())
    look(window, tmp_path / "refused")
    page.turn("low", "haze", "snow")
    page.start()
    assert page.result("refused") == command(photos[1], tmp_path / "other", *prompt)


@needs_page
@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1"])
def test_the_page_is_served_behind_a_proxy_that_does_not_reach_it(host, free_port, monkeypatch):
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")  # where nothing listens
    with serving(["mmfe-small"], host=host) as address:
        assert "no_proxy" not in os.environ
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"mmfe" in directly.open(address).read()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@needs_page
@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_kept_however_the_page_is_ended(told, free_port, start_forked, tmp_path):
    as_usual = "default_int_handler" if told == signal.SIGINT else "SIG_DFL"
    (tmp_path / "mmfe").write_text(
        f"""
import signal, tempfile
signal.signal({int(told)}, signal.{as_usual})
tempfile.tempdir = {str(tmp_path / "tmp")!r}
from mmfe_cli.app import main
main()
"""
    )
    (tmp_path / "tmp").mkdir()
    wait = start_forked(tmp_path / "mmfe", "web", "--port", free_port)

    def there() -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", free_port)) == 0

    try:
        wait_for(there)
        (folder,) = (tmp_path / "tmp").glob("mmfe-web-*")
        (folder / "photograph.jpg").write_bytes(b"of somebody")
    finally:
        os.kill(wait.pid, told)
    done = wait()
    # Ctrl-C is the way to end a page that is up, and an interruption before.
    assert done.returncode in ({0, 130} if told == signal.SIGINT else {130}), done.stderr
    assert not folder.exists()


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
