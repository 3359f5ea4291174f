"""What the documentation names exists: every command and option of `mmfe`, every page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mmfe_cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for name in ("*.md", "docs/**/*.md", "src/**/*.md") for page in ROOT.glob(name))
SOURCES = sorted((ROOT / "cli").glob("*.py"))
"""Their docstrings hold the help's examples."""

_COMMAND = re.compile(r"(?<![\w/.=-])mmfe ([a-z-][^`\n&|;)]*)")
_OPTION = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]*)")


def commands_in(text: str) -> list[str]:
    """What follows ``mmfe`` in every command of a text; its lines may end in a backslash."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = re.sub(r"\s#.*", "", joined)
    return [match[1].strip() for match in _COMMAND.finditer(joined) if match[1].strip()]


@cache
def whole() -> Any:
    return typer.main.get_command(app)


def unknown(command: str) -> str | None:
    """What a command names that does not exist; None where all of it does."""
    found = whole()
    words = command.split()
    path = ["mmfe"]
    while words and hasattr(found, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in found.commands:
            return f"{' '.join(path)} has no command {name}"
        found = found.commands[name]
        path.append(name)
    known = {option for parameter in found.params for option in parameter.opts}
    known |= {"--help", "-h"}
    for option in _OPTION.findall(" ".join(words)):
        if option.split("=")[0] not in known:
            return f"{' '.join(path)} has no option {option}"
    return None


def code_in(markdown: str) -> str:
    """Code blocks, fenced and indented, and inline code of a page."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    indented = [line for line in rest.splitlines() if line.startswith("    ")]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    return "\n".join([*fenced, *indented, *inline])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_pages_exist(page):
    text = code_in(page.read_text(encoding="utf-8"))
    problems = {command: unknown(command) for command in commands_in(text)}
    assert not {command: said for command, said in problems.items() if said}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_examples_in_help_exist(source):
    text = source.read_text(encoding="utf-8")
    examples = re.findall(r"[Ee]xample: (mmfe .*)", text) + re.findall(r"`(mmfe [^`]+)`", text)
    problems = {command: unknown(command) for command in commands_in("\n".join(examples))}
    assert not {command: said for command, said in problems.items() if said}


def test_commands_that_do_not_exist_are_found():
    assert commands_in("a\n    mmfe train --recipe x \\\n        --root y\n") == [
        "train --recipe x  --root y"
    ]
    assert unknown("train --recipe cdd11 --set a=b") is None
    assert unknown("trian --recipe cdd11") == "mmfe has no command trian"
    assert unknown("data chek") == "mmfe data has no command chek"
    assert unknown("train --recipes x") == "mmfe train has no option --recipes"
    assert code_in("text mmfe prose\n    mmfe a\n`mmfe b`\n```sh\nmmfe c\n```\n").split() == [
        *("mmfe", "c"), *("mmfe", "a"), *("mmfe", "b")
    ]  # fmt: skip


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


WIDTH = 110
"""Columns of a line of prose."""


def long_lines(markdown: str) -> list[str]:
    """Lines of prose above `WIDTH`; tables, code and lines without a blank may be longer."""
    prose = re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return [
        line
        for line in prose.splitlines()
        if len(line) > WIDTH
        and not line.startswith(("|", "    ", "!["))
        and " " in re.sub(r"`[^`]+`", "", line).strip()
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short_enough_to_read_side_by_side(page):
    assert long_lines(page.read_text(encoding="utf-8")) == []


def test_long_lines_are_found_and_only_these():
    long = "word " * 30
    text = f"short\n{long}\n| {long}|\n    {long}\n```\n{long}\n```\n`{long}`\n- {long}\n"
    assert long_lines(text) == [long, f"- {long}"]


def test_what_installs_an_extra_leaves_the_checkout_installed_as_make_does():
    # Without -e pip puts a copy in its place, which a later `git pull` does not reach.
    code = [path for top in ("src", "cli") for path in (ROOT / top).rglob("*.py")]
    found: list[str] = []
    for path in [*PAGES, *code]:
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"pip install -c constraints\.txt (?:-e )?'?\.(?=[\[\s`'])", text)
    assert len(found) > 10
    assert [command for command in found if " -e " not in command] == []
