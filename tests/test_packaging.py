"""What an installed mmfe must contain."""

from __future__ import annotations

import itertools
import tomllib
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed():
    # setuptools cannot find packages and rename `cli` at once, so the list is written by hand.
    found = {
        ".".join(init.parent.relative_to(ROOT / "src").parts)
        for init in (ROOT / "src").rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"mmfe_cli"}


def test_the_packages_are_typed():
    for package in ("mmfe_cache", "mmfe_restore", "mmfe_cli"):
        assert files(package).joinpath("py.typed").is_file()


def test_every_pin_is_exact_and_names_no_address():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert name and version, line
            assert "/" not in line and "@" not in line, line


def test_the_constraints_satisfy_the_lower_bounds():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    project = PROJECT["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    for text in (*project["dependencies"], *extras):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in {"wandb", "s3fs", "gradio", "pyiqa"} and name not in pins:
            continue  # extras that neither the demo nor the tests install
        assert requirement.specifier.contains(pins[name]), (text, pins[name])


def test_releases_that_do_harm_are_excluded_wherever_they_could_be_installed():
    """Lightning 2.6.2 and 2.6.3 were malicious; setuptools before 78.1.1 has CVE-2025-47273."""
    from packaging.requirements import Requirement

    harmful = {"lightning": ("2.6.2", "2.6.3"), "setuptools": ("65.5.0", "78.0.2", "78.1.0")}
    project = PROJECT["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    lists = {
        "dependencies": [*project["dependencies"], *extras],
        "build-system": PROJECT["build-system"]["requires"],
    }
    for file in ROOT.glob("**/requirements*.txt"):
        lines = file.read_text(encoding="utf-8").splitlines()
        lists[str(file)] = [line for line in lines if line and not line.startswith(("#", "-"))]
    lists["constraints"] = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    seen: list[tuple[str, str]] = []
    for place, texts in lists.items():
        for requirement in map(Requirement, texts):
            for version in harmful.get(requirement.name, ()):
                assert not requirement.specifier.contains(version), (place, str(requirement))
                seen.append((place, requirement.name))
    assert {("dependencies", "lightning"), ("dependencies", "setuptools"),
            ("build-system", "setuptools"), ("constraints", "lightning")} <= set(seen)  # fmt: skip


def test_a_build_of_torch_for_cpus_satisfies_its_pin():
    from packaging.specifiers import SpecifierSet

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name: version for name, _, version in (line.partition("==") for line in lines)}
    for name in ("torch", "torchvision"):
        assert SpecifierSet(f"=={pins[name]}").contains(f"{pins[name]}+cpu")
