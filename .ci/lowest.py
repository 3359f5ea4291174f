"""Prints constraints that hold each direct dependency at the lowest version that is allowed.

Usage: python .ci/lowest.py pyproject.toml > constraints.txt

Dependencies of dependencies stay free, so pip takes the newest that agree with these.
"""

import re
import sys
import tomllib
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FLOOR = re.compile(r">=\s*([0-9][^,;\s]*)")


def lowest(requirement: str) -> str:
    """``numpy>=2.0,<3`` becomes ``numpy==2.0``."""
    name, floor = NAME.match(requirement), FLOOR.search(requirement)
    if name is None or floor is None:
        sys.exit(f"{requirement!r} has no lower bound; expected NAME>=VERSION")
    return f"{name[0]}=={floor[1]}"


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{lowest(text)}\n" for text in project["dependencies"])
