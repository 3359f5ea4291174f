"""The reference of recipes says what the schema says, and the page is current."""

from __future__ import annotations

from pathlib import Path

import yaml

from mmfe_restore.recipes import Recipe, recipe_to_dict
from mmfe_restore.recipes.reference import recipe_reference, recipe_reference_markdown

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


def test_the_page_is_current():
    expected = recipe_reference_markdown().rstrip() + "\n"
    assert PAGE.read_text(encoding="utf-8") == expected, (
        "mmfe train --explain-config > docs/recipes.md"
    )


def test_every_key_is_explained_with_its_default():
    values = recipe_to_dict(Recipe("a"))
    flat = {
        f"{section}.{key}" if isinstance(inner, dict) else section: value
        for section, inner in values.items()
        for key, value in (inner.items() if isinstance(inner, dict) else [("", inner)])
    }
    *sections, stage = recipe_reference()
    keys = [key for section in sections for key in section.keys]
    assert {key.name for key in keys} == set(flat)
    for key in keys:
        assert key.meaning, key
        if key.name != "name":
            assert yaml.safe_load(key.default) == flat[key.name], key
    assert [key.name for key in stage.keys] == ["epochs", "resolution", "batch_size"]
