from __future__ import annotations

import json

import pytest

from mmfe_cli.app import run


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "info", "--recipe", "table4a/mofe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"recipe", "description", "parameters", "published", "parts", "macs_256"}
    assert found["parameters"] == 29_574_704
    assert found["published"] == 29.6


def test_an_unknown_recipe_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "info", "--recipe", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err
