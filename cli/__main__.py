"""Starts the command line; says what to install where even its own packages are missing."""

from __future__ import annotations

import sys


def main() -> None:
    """What the command ``mmfe`` runs."""
    try:
        from .app import main as start
    except ModuleNotFoundError as problem:
        from .packages import about_missing

        said = about_missing(problem)
        if said is None:
            raise
        sys.stderr.write(f"mmfe: {said}\n")
        sys.exit(said.exit_code)
    start()


if __name__ == "__main__":
    main()
