from pathlib import Path

from mmfe_cache.guides import DEFAULT_PROMPT
from mmfe_cache.store import location, store_path


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


def test_the_prompt_is_the_guides_own():
    assert location.DEFAULT_PROMPT == DEFAULT_PROMPT
