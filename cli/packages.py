"""The packages that mmfe uses: which are here, and what installs one that is not.

Reads the installed metadata with Python's own means only, since it must work where nothing else
of mmfe's dependencies is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from mmfe_cache.errors import MmfeError

_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")

_IMPORTED_AS = {
    "google-crc32c": "google_crc32c",
    "pillow": "PIL",
    "pywavelets": "pywt",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "setuptools": "pkg_resources",
}
"""Where the module is not called as the package."""

EVERYTHING = (
    "pip install -c constraints.txt -e . in mmfe's checkout installs all of mmfe's packages"
)


@dataclass(frozen=True)
class Package:
    """A package that mmfe uses.

    Attributes:
        name: as pip knows it.
        versions: that mmfe works with, such as ``>=2.0``.
        extra: the optional part of mmfe that needs it; None for the default install.
    """

    name: str
    versions: str
    extra: str | None

    @property
    def module(self) -> str:
        """What Python imports."""
        plain = _normal(self.name)
        return _IMPORTED_AS.get(plain, plain.replace("-", "_"))

    @property
    def installed(self) -> str | None:
        """The version that is here; None where there is none."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None

    @property
    def line(self) -> str:
        """The command that installs it."""
        return f"pip install '{self.name}{self.versions}'"


def packages(*, development: bool = False) -> tuple[Package, ...]:
    """The packages of the default install and of every extra, from mmfe's own metadata."""
    return tuple(one for one in _all_packages() if development or one.extra != "dev")


@cache
def _all_packages() -> tuple[Package, ...]:
    try:
        texts = metadata.requires("mmfe") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return ()
    found: list[Package] = []
    for text in texts:
        match = _REQUIREMENT.match(text)
        if match is not None:
            extra = _EXTRA.search(match[3] or "")
            found.append(Package(match[1], match[2].strip(), extra[1] if extra else None))
    return tuple(found)


def about_missing(problem: ModuleNotFoundError) -> MmfeError | None:
    """What to tell somebody whose command needs a package that is not installed.

    Returns:
        None for a module of mmfe's own or one that mmfe does not use: then it is a fault.
    """
    module = (problem.name or "").split(".")[0]
    wanted = [one for one in packages(development=True) if one.module == module]
    if not wanted or problem.name is None:
        return None
    package = min(wanted, key=lambda one: (one.extra is not None, one.extra == "dev"))
    others = [one.name for one in _missing(packages()) if one.name != package.name]
    return MmfeError(
        f"this command needs the package {package.name}, which is not installed",
        got=f"no module {problem.name}"
        + (f"; not installed either: {', '.join(others)}" if others else ""),
        remedy=f"{package.line}\n            {EVERYTHING}",
    )


def _missing(wanted: Iterable[Package]) -> list[Package]:
    return [one for one in wanted if one.extra is None and one.installed is None]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
