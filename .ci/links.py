"""Links out of a page's own place: to the repository where its address is known, else plain text.

The package index shows README.md without the repository around it, and the documentation's site has
`docs/` alone. mkdocs runs this file as a hook; `.ci/dist.py` imports it.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def absolute_links(text: str, page: str, repository: str = "", *, inside: str | None = None) -> str:
    """Make relative links of a Markdown page absolute, or text.

    Args:
        text: the page.
        page: where it lies in the repository, such as ``docs/install.md``.
        repository: the address of a file is this, a slash and its path; empty where unknown.
        inside: a folder whose files are linked to as they are.
    """

    def replace(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if inside is not None and path.startswith(inside + "/"):
            return match[0]
        if repository:
            return f"{picture}[{words}]({repository.rstrip('/')}/{path})"
        return f"*{words}*" if picture else words

    return LINK.sub(replace, text)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Mkdocs' hook: links that leave `docs/`."""
    repository = os.environ.get("MMFE_REPOSITORY", "")
    return absolute_links(markdown, f"docs/{page.file.src_uri}", repository, inside="docs")
