"""What a release consists of: packages, links, cards, images of containers, the documentation."""

from __future__ import annotations

import email
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_links_out_of_a_page_are_absolute_or_text():
    absolute_links = load("links").absolute_links
    page = "[a](docs/a.md#b) ![p](docs/p.svg) [w](https://x.org) [h](#here) [u](../LICENSE)"
    assert absolute_links(page, "README.md", "https://r.org/m/") == (
        "[a](https://r.org/m/docs/a.md#b) ![p](https://r.org/m/docs/p.svg) "
        "[w](https://x.org) [h](#here) [u](https://r.org/m/../LICENSE)"
    )
    assert absolute_links(page, "README.md") == "a *p* [w](https://x.org) [h](#here) u"
    inner = "[a](a.md) [r](../README.md)"
    assert absolute_links(inner, "docs/b.md", inside="docs") == "[a](a.md) r"


@pytest.mark.slow
def test_wheel_and_sdist_are_built_and_the_wheel_works(tmp_path: Path):
    pytest.importorskip("build")
    words = [sys.executable, str(ROOT / ".ci" / "dist.py"), str(tmp_path), "--shared"]
    done = subprocess.run(
        [*words, "--repository", "https://example.org/mmfe/blob/v1"],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "the wheel works" in done.stdout
    with zipfile.ZipFile(tmp_path / f"mmfe-{VERSION}-py3-none-any.whl") as wheel:
        names = wheel.namelist()
        text = wheel.read(f"mmfe-{VERSION}.dist-info/METADATA").decode("utf-8")
    assert "mmfe_restore/weights/mmfe-small/model.safetensors" in names
    assert "mmfe_cache/guides/scene/scene.safetensors" in names
    assert not [name for name in names if "test" in name.split("/")[0]]
    about = email.message_from_string(text)
    assert about["Version"] == VERSION
    assert about["License-Expression"] == "Apache-2.0"
    targets = re.findall(r"\]\(([^)]+)\)", str(about.get_payload()))
    assert targets
    assert not [one for one in targets if not one.startswith(("https://", "#"))]
    with tarfile.open(tmp_path / f"mmfe-{VERSION}.tar.gz") as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "cli/app.py"} <= inside


def test_the_version_is_the_same_everywhere():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(VERSION)}\b", changes, re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION
    # What cff 1.2.0 requires of every file.
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_model_cards_name_licence_data_sets_and_metrics():
    from huggingface_hub import ModelCard

    from mmfe_restore import Restorer
    from mmfe_restore.model.card import model_card
    from mmfe_restore.model.folders import shipped_models

    for shipped in shipped_models().values():
        data = ModelCard((shipped.folder / "README.md").read_text(encoding="utf-8")).data
        assert data.license == shipped.licence.lower()
        assert all(name in shipped.training_data for name in data.datasets)
        assert data.metrics
    restorer = Restorer.from_recipe("small")
    data = ModelCard(model_card(restorer, restorer.recipe)).data
    assert (data.license, data.library_name) == ("other", "mmfe")
    assert data.datasets is None  # what `--dataset cdd11` read may be any set of that layout
    assert data.metrics == ["psnr", "ssim"]


INSTRUCTION = re.compile(r"^(FROM|ARG|WORKDIR|COPY|RUN|USER|ENTRYPOINT|CMD|ENV|LABEL) ")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_container_files_keep_the_rules(kind: str):
    text = (ROOT / "docker" / f"Dockerfile.{kind}").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    assert all(INSTRUCTION.match(line) for line in lines), lines
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)  # pinned, and not `latest`
    admitted = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for line in lines:
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source.removeprefix("./")).exists(), line
                assert f"!{source.removeprefix('./')}\n" in admitted, line
        if "pip install" in line:
            assert line.count("pip install") == line.count("--no-cache-dir")
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 1000"]  # a number, which a cluster can tell from root
    assert lines.index(users[0]) < next(i for i, one in enumerate(lines) if "ENTRYPOINT" in one)
    assert 'ENTRYPOINT ["mmfe"]' in lines


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_hadolint_has_nothing_to_say_of_a_container_file(kind: str):
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("hadolint is not installed (extra `dev`)")
    words = [str(linter), str(ROOT / "docker" / f"Dockerfile.{kind}")]
    done = subprocess.run(words, capture_output=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning(tmp_path: Path):
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert "restore_image" in api
    words = " ".join(api.split())
    assert "how much of the restoration is taken" in words  # an argument's own docstring
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis.com" not in page


def test_make_runs_a_target_whose_name_is_a_folder_here():
    """`docs/` is there, and `dist/` after the first `make dist`: make would call them done."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE)
    assert "docs" in targets
    assert sorted(phony) == sorted(targets)


def test_every_page_of_the_documentation_is_in_its_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r"- (\S+\.md)", text))
