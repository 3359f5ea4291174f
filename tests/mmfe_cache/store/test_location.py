import json
from pathlib import Path

import pytest

from benchmarks.cache_support import TinyGuide, sample_set
from mmfe_cache.errors import CacheError
from mmfe_cache.guides import DEFAULT_PROMPT
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store import location, store_path
from mmfe_cache.store.format import OtherVersionError, serialise
from mmfe_cache.store.location import origins
from mmfe_cache.store.verify import verify


def test_default_place():
    expected = Path("cache/cdd11/train/scene.zarr")
    assert store_path("cdd11", "train", "scene") == expected
    assert store_path("cdd11", "train", "scene", DEFAULT_PROMPT) == expected


def test_root_takes_the_place_of_the_data_sets_folder(tmp_path):
    assert store_path("cdd11", "test", "scene", root=tmp_path) == tmp_path / "test/scene.zarr"


def test_another_prompt_makes_another_store():
    paths = {store_path("d", "train", "g", prompt) for prompt in (None, "one?", "two?")}
    assert len(paths) == 3
    assert all(path.name.startswith("g") for path in paths)


def test_a_directory_is_named_by_its_content(tmp_path):
    places = []
    for folder, text in (("a", "{}"), ("b", "{}"), ("c", '{"x": 1}')):
        guide = tmp_path / folder / "tuned"
        guide.mkdir(parents=True)
        (guide / "config.json").write_text(text)
        places.append(store_path("d", "train", str(guide)))
    assert places[0] == places[1] != places[2]
    assert places[0].name.startswith("tuned-")


def test_what_a_file_browser_leaves_in_a_directory_moves_no_store(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs")
    place = store_path("d", "train", str(tmp_path))
    for name in (".DS_Store", "._config.json", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert store_path("d", "train", str(tmp_path)) == place
    (tmp_path / ".gitattributes").unlink()  # it counted from the beginning
    assert store_path("d", "train", str(tmp_path)) != place


def test_the_prompt_is_the_guides_own():
    assert location.DEFAULT_PROMPT == DEFAULT_PROMPT


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "cache/patterns/train/tiny.zarr"
    build_cache(sample_set(5), TinyGuide(), ["whole@16"], path)
    return path


def flip(file, word):
    data = bytearray(file.read_bytes())
    data[data.index(word)] ^= 1
    file.write_bytes(data)


def test_an_undamaged_root_is_certain(store):
    (found,) = origins(store)
    assert (found.dataset, found.split, found.guide) == ("patterns", "train", "tiny")
    assert found.prompt == "what is it?"
    assert found.certain


def test_a_damaged_root_still_says_most_and_the_place_says_the_rest(store):
    flip(store / "zarr.json", b"patterns")
    text, place = origins(store)
    assert (text.dataset, text.split, text.guide) == ("qatterns", "train", "tiny")
    assert text.prompt == "what is it?"
    assert (place.dataset, place.split, place.guide) == ("patterns", "train", "tiny")
    assert not text.certain
    assert not place.certain


def test_the_place_fills_what_the_text_does_not_say(store):
    flip(store / "zarr.json", b'"tiny"')
    text, both, place = origins(store)
    assert text.guide is None
    assert (both.dataset, both.split, both.guide) == ("patterns", "train", "tiny")
    assert both.prompt == "what is it?"
    assert place.known


@pytest.mark.parametrize("content", [b"", b"\xff\x00{", b'{"attributes": 7}'])
def test_a_root_that_says_nothing_leaves_the_place(store, content):
    (store / "zarr.json").write_bytes(content)
    assert [found.known for found in origins(store)] == [False, True, True]
    moved = store.rename(store.parent.parent.parent / "moved.zarr")
    assert [found.known for found in origins(moved)] == [False]


def test_no_folder_is_no_cache(tmp_path):
    with pytest.raises(CacheError, match="no cache at"):
        next(origins(tmp_path / "none.zarr"))


@pytest.mark.parametrize(("schema", "age"), [(0, "older"), (2, "newer")])
def test_an_undamaged_store_of_another_version_is_neither_verified_nor_repaired(store, schema, age):
    file = store / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["mmfe-cache"]["schema"] = schema
    file.write_bytes(serialise(document))
    before = file.read_bytes()
    for work in (
        lambda: next(origins(store)),
        lambda: verify(store),
        lambda: repair_cache(store, sample_set(5), TinyGuide()),
    ):
        with pytest.raises(OtherVersionError, match=age):
            work()
    assert file.read_bytes() == before
