"""Packs that are damaged, foreign or untrue are refused by name."""

import errno
import os
import zlib
from contextlib import suppress

import h5py
import numpy as np
import pytest

from mmfe_cache.errors import DataError
from mmfe_cache.packing import (
    PackReader,
    forget_packs,
    open_pack,
    pack,
)


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_found(samples, compress, tmp_path):
    path = tmp_path / "p.h5"
    pack(samples, path, compress)
    with h5py.File(path) as file:
        data = file["tiles"].id
        offset = data.get_chunk_info(3).byte_offset if compress else data.get_offset() + 3 * 12288
    content = bytearray(path.read_bytes())
    content[offset + 40] ^= 0xFF
    path.write_bytes(content)
    forget_packs()
    assert len(open_pack(path).damaged()) == 1
    path.write_bytes(content[:-1])
    forget_packs()
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(path)


def test_foreign_and_linked_files_are_refused(samples, tmp_path):
    good = tmp_path / "good.h5"
    pack(samples, good)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["tiles"] = np.zeros(3)
    with pytest.raises(DataError, match="not a pack of this version") as caught:
        open_pack(foreign)
    assert caught.value.remedy.startswith("move it away")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(tmp_path / "text.h5")
    with pytest.raises(DataError, match="does not exist"):
        open_pack(tmp_path / "gone.h5")

    linked = tmp_path / "linked.h5"
    linked.write_bytes(good.read_bytes())
    with h5py.File(linked, "r+") as file:
        del file["tiles"]
        file["tiles"] = h5py.ExternalLink(str(good), "/tiles")
    with pytest.raises(DataError, match="what a pack does not hold"):
        open_pack(linked)

    extra = tmp_path / "extra.h5"
    extra.write_bytes(good.read_bytes())
    with h5py.File(extra, "r+") as file:
        file["more"] = 1
    with pytest.raises(DataError, match="more"):
        open_pack(extra)

    outside = tmp_path / "outside.h5"
    outside.write_bytes(good.read_bytes())
    with h5py.File(outside, "r+") as file:
        shape = file["tiles"].shape
        del file["tiles"]
        place = [(str(tmp_path / "raw"), 0, int(np.prod(shape)))]
        file.create_dataset("tiles", shape, np.uint8, external=place)
    with pytest.raises(DataError, match="tiles"):
        open_pack(outside)

    unfinished = tmp_path / "unfinished.h5"
    unfinished.write_bytes(good.read_bytes())
    with h5py.File(unfinished, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(DataError, match="not finished"):
        open_pack(unfinished)


def test_a_pack_that_the_system_does_not_open_is_not_to_be_removed(samples, tmp_path):
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(DataError, match="cannot be opened") as caught:
        PackReader(tmp_path / "folder.h5")
    assert caught.value.got == os.strerror(errno.EISDIR)
    assert "remove" not in str(caught.value)


def test_a_pack_is_not_to_be_removed_where_too_many_files_are_open(samples, tmp_path):
    resource = pytest.importorskip("resource")
    path, taken = tmp_path / "p.h5", []
    pack(samples, path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.open(path, os.O_RDONLY)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(path, os.O_RDONLY))
        with pytest.raises(DataError, match="cannot be opened") as caught:
            PackReader(path)
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.got == os.strerror(errno.EMFILE)
    assert "remove" not in str(caught.value)
    assert PackReader(path).damaged() == ()


def change(file, name, value):
    del file[name]
    file[name] = value


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: change(f, "height", f["height"][...] + 64), "do not fit together"),
        (lambda f: change(f, "first_tile", f["first_tile"][...] - 1), "do not fit together"),
        (lambda f: change(f, "width", f["width"][:-1]), "does not list 8 pictures"),
        (lambda f: change(f, "height", f["height"][...].astype(float)), "does not list 8"),
        (lambda f: change(f, "digest", f["digest"][:, :8]), "digests are"),
        (lambda f: change(f, "name", f["height"][...]), "cannot be read"),
        (lambda f: change(f, "about", np.frombuffer(b"nothing", np.uint8)), "damaged"),
        (lambda f: change(f, "tiles", f["tiles"][...].astype(np.uint16)), "tiles are"),
        (lambda f: f.attrs.__setitem__("stored_as", "secrets"), "stored as"),
        (lambda f: f.attrs.__setitem__("version", 1), "not a pack of this version"),
        (lambda f: f.attrs.__delitem__("compressed"), "cannot be read"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(samples, tmp_path, compress, spoil, words):
    path = tmp_path / "p.h5"
    pack(samples, path, compress)
    with h5py.File(path, "r+") as file:
        spoil(file)
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError) as caught:
        PackReader(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("spoil", [lambda p: p[:3], lambda p: p.astype(float)])
def test_places_of_tiles_that_cannot_be_true_are_refused(samples, tmp_path, spoil):
    path = tmp_path / "p.h5"
    pack(samples, path, compress=True)
    with h5py.File(path, "r+") as file:
        change(file, "location", spoil(file["location"][...]))
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError, match="cannot be read") as caught:
        PackReader(path)
    assert "places of tiles" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"picture":1}', b'"picture":99}'), (b'"clean"', b'"dirty"'), (b'"id"', b"7")]
)
def test_a_list_of_samples_that_cannot_be_true_is_refused(samples, tmp_path, old, new):
    path = tmp_path / "p.h5"
    pack(samples, path)
    with h5py.File(path, "r+") as file:
        text = zlib.decompress(file["samples"][...].tobytes())
        assert old in text
        change(file, "samples", np.frombuffer(zlib.compress(text.replace(old, new)), np.uint8))
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError, match="list of samples is damaged"):
        PackReader(path).samples(samples.root)
