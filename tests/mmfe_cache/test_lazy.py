"""Public names that are imported at their first use."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("package", "name"),
    [("mmfe_restore.training", "train"), ("mmfe_restore.evaluation", "evaluate")],
)
def test_a_function_that_is_called_as_its_module_stays_public(package: str, name: str) -> None:
    # Importing the module binds it to the package, in the function's place.
    module = importlib.import_module(f"{package}.{name}")
    assert getattr(importlib.import_module(package), name) is getattr(module, name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import mmfe_restore.training as package

    assert "train" in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
