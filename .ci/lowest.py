"""Prints constraints that hold each direct dependency at the lowest version that is allowed.

Usage: python .ci/lowest.py pyproject.toml > constraints.txt

Those of the extras too, and of what develops and tests it: where two name the same package, the
higher floor counts. Dependencies of dependencies stay free, so pip takes the newest that agree.
"""

import re
import sys
import tomllib
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FLOOR = re.compile(r">=\s*([0-9][^,;\s]*)")


def floor(requirement: str) -> tuple[str, str]:
    """``numpy>=2.0,<3`` becomes ``("numpy", "2.0")``."""
    name, version = NAME.match(requirement), FLOOR.search(requirement)
    if name is None or version is None:
        sys.exit(f"{requirement!r} has no lower bound; expected NAME>=VERSION")
    return re.sub(r"[-_.]+", "-", name[0]).lower(), version[1]


def as_numbers(version: str) -> list[int]:
    """``2.11.0`` becomes ``[2, 11, 0]``, which compares as versions do."""
    return [int(number) for number in re.findall(r"\d+", version)]


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    floors: dict[str, str] = {}
    for part in (project["dependencies"], *project["optional-dependencies"].values()):
        for name, version in map(floor, part):
            floors[name] = max(floors.get(name, version), version, key=as_numbers)
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(floors.items()))
