"""A file or folder is there whole or not at all, whatever its name, the umask or the disk."""

import ast
import errno
import os
import threading
from pathlib import Path

import pytest

from mmfe_cache import io
from mmfe_cache.errors import MmfeError
from mmfe_cache.io import (
    draft_file,
    draft_folder,
    explained,
    move_folder,
    remove_drafts,
    write_file as write,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def full_disk(monkeypatch):
    """A disk whose every flush fails, as a full one does where space is reserved late."""

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 9, 1], [16, 16], [40], [15, 1, 33, 2]])
def test_parts_of_any_size_make_one_file(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(io, "BLOCK_BYTES", 16)
    parts = [bytes([k + 1]) * size for k, size in enumerate(sizes)]
    write(tmp_path / "a", parts, drafts=tmp_path / "drafts")
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    assert list((tmp_path / "drafts").iterdir()) == []


def test_a_write_that_takes_only_some_bytes_is_continued():
    class Reluctant:
        def __init__(self):
            self.taken = bytearray()

        def write(self, data):
            self.taken += data[:3]
            return min(3, len(data))

    file = Reluctant()
    io._write_all(file, memoryview(b"eleven byte"))
    assert file.taken == b"eleven byte"


def test_text_is_utf8_and_its_line_ends_stay(tmp_path):
    write(tmp_path / "deep" / "a.txt", "größer × 鏡\r\n")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "größer × 鏡\r\n".encode()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    write(path, b"old")
    with pytest.raises(TypeError):
        write(path, [b"new", "no bytes"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "f"
    contents = [bytes([value]) * 100_000 for value in (1, 2)]
    write(path, contents[0])
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            seen.append(path.read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(30):
        write(path, contents[turn % 2])
    stop.set()
    thread.join()
    assert seen
    assert set(seen) <= set(contents)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_permissions_follow_the_umask(tmp_path, umask):
    old = os.umask(umask)
    try:
        write(tmp_path / "made" / "f", b"x")
        with draft_folder(tmp_path / "whole") as draft:
            (draft / "sub").mkdir()
            write(draft / "sub" / "g", b"x")
    finally:
        os.umask(old)
    entries = sorted(tmp_path.rglob("*"))
    assert [e.name for e in entries] == ["made", "f", "whole", "sub", "g"]
    for entry in entries:
        plain = 0o777 if entry.is_dir() else 0o666
        assert entry.stat().st_mode & 0o777 == plain & ~umask, entry


@pytest.mark.parametrize("name", ["n" * 255, "鏡" * 85, "f"])
def test_every_name_that_the_file_system_allows(tmp_path, name):
    write(tmp_path / name, b"x")
    with draft_folder(tmp_path / "folders" / name) as draft:
        write(draft / name, b"y")
    assert (tmp_path / name).read_bytes() == b"x"
    assert (tmp_path / "folders" / name / name).read_bytes() == b"y"


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, full_disk):
    path = tmp_path / "p.png"
    write(path, b"before")
    full_disk()
    with pytest.raises(OSError, match="No space left") as caught:
        write(path, b"after")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(OSError, match="No space left"), draft_folder(tmp_path / "d") as draft:
        (draft / "a").write_bytes(b"x")
    with pytest.raises(MmfeError, match="no space left"), explained(path):
        write(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_without_room_names_the_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def write_there():
        with draft_file(tmp_path / "f") as draft:
            draft.symlink_to("/dev/full")
            draft.write_bytes(b"x")

    with pytest.raises(OSError, match="No space left") as caught:
        write_there()
    assert caught.value.filename == str(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path):
    with draft_folder(tmp_path / "d") as draft:
        write(draft / "old", b"1")
    with pytest.raises(TypeError), draft_folder(tmp_path / "d") as draft:
        write(draft / "half", 2)
    assert [e.name for e in (tmp_path / "d").iterdir()] == ["old"]
    with draft_folder(tmp_path / "d") as draft:
        write(draft / "new", b"3")
    assert [e.name for e in (tmp_path / "d").iterdir()] == ["new"]
    assert [e.name for e in tmp_path.iterdir()] == ["d"]


def test_a_folder_is_not_moved_onto_another_unless_asked(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "f", name.encode())
    with pytest.raises(OSError, match="not empty"):
        move_folder(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "f").read_bytes() == b"b"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".0a1b2c3d.part", ".hidden.part", "x.part"):
        write(tmp_path / name, b"x")
    write(tmp_path / ".ffffffff.part" / "f", b"x")
    remove_drafts(tmp_path)
    remove_drafts(tmp_path / "missing")
    assert sorted(e.name for e in tmp_path.iterdir()) == [".hidden.part", "x.part"]


def test_every_text_file_names_its_encoding():
    """Of `open`, `read_text` and `write_text` alike; ruff's PLW1514 sees only some of them."""
    unnamed = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and not _names_encoding(node)
    ]
    assert unnamed == []


def _names_encoding(call):
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return True
    if name == "read_text":
        return len(call.args) > 0
    if name == "write_text":
        return len(call.args) > 1
    if name != "open" or ast.unparse(function) in ("Image.open", "os.open", "tarfile.open"):
        return True
    mode = next((a for a in call.args if isinstance(a, ast.Constant)), None)
    return mode is not None and "b" in str(mode.value)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("p.read_text()", False),
        ("p.write_text(x)", False),
        ("p.open()", False),
        ("open(p, 'w')", False),
        ("p.open('w', newline='')", False),
        ("p.read_text('utf-8')", True),
        ("p.open('rb')", True),
        ("p.write_text(x, encoding='utf-8')", True),
    ],
)
def test_that_check_sees_both_kinds(code, named):
    assert _names_encoding(ast.parse(code).body[0].value) is named


def test_one_of_a_thing_has_no_plural():
    said = [io.counted(count, "shard") for count in (0, 1, 2, 1200)]
    assert said == ["0 shards", "1 shard", "2 shards", "1,200 shards"]


def test_what_is_not_there_has_a_remedy_that_says_where_a_relative_path_begins(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert io.look_there(Path("x.png")) == f"check the path; it begins in {tmp_path}"
    assert io.look_there(tmp_path / "x.png") == "check the path"


def test_a_file_where_a_folder_would_have_to_be_made_has_a_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MmfeError, match="cannot write") as caught, explained(tmp_path / "file/x"):
        (tmp_path / "file").mkdir()
    assert caught.value.remedy == "choose another place"
