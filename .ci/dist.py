"""Build wheel and sdist, and try the wheel in a fresh environment: `make dist`.

    python .ci/dist.py OUT [--repository ADDRESS] [--shared]

ADDRESS is where a file of the repository can be looked at, without its path, such as
https://example.org/mmfe/blob/v0.2.0: README's links lead there on the package index. ``--shared``
takes the packages of this environment for the trial instead of installing them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from links import absolute_links

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "src", "cli")
"""What a package is made of."""

TRIAL = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image
mmfe = str(Path(sys.executable).with_name("mmfe"))
def run(*words):
    done = subprocess.run([mmfe, *words], check=True, capture_output=True, encoding="utf-8")
    return done.stdout
assert run("--version").strip() == "mmfe " + sys.argv[1], run("--version")
dark = np.kron(np.random.default_rng(0).integers(0, 60, (4, 5, 3)), np.ones((8, 8, 1)))
Image.fromarray(dark.astype(np.uint8)).save("dark.png")
assert json.loads(run("inspect", "dark.png", "--json"))
run("restore", "dark.png", "-o", "restored.png")
assert np.asarray(Image.open("restored.png")).mean() > dark.mean() + 5
import mmfe_restore
assert "site-packages" in mmfe_restore.__file__, mmfe_restore.__file__
print("the wheel works")
"""


def build(out: Path, repository: str, *, isolated: bool) -> tuple[Path, Path]:
    """Write the sdist, and the wheel that is made from it, to ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "mmfe"
        tree.mkdir()
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                aside = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, tree / name, ignore=aside)
            else:
                shutil.copy2(source, tree / name)
        readme = tree / "README.md"
        text = absolute_links(readme.read_text(encoding="utf-8"), "README.md", repository)
        readme.write_text(text, encoding="utf-8")
        made = Path(folder) / "dist"  # ``out`` may hold another version's
        words = [sys.executable, "-m", "build", "--outdir", str(made), str(tree)]
        subprocess.run(words if isolated else [*words, "--no-isolation"], check=True)
        (wheel,), (sdist,) = made.glob("mmfe-*.whl"), made.glob("mmfe-*.tar.gz")
        return Path(shutil.copy2(wheel, out)), Path(shutil.copy2(sdist, out))


def try_wheel(wheel: Path, *, shared: bool) -> None:
    """Install the wheel in a fresh environment and restore a picture with it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=not shared)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        constraints = ["-c", str(ROOT / "constraints.txt")]
        if shared:
            (site,) = (environment / "lib").glob("python*/site-packages")
            # Below the fresh environment's own packages, so that the wheel is what is found.
            paths = [*sysconfig.get_paths().values(), *sys.path]
            shares = dict.fromkeys(p for p in paths if p.endswith("site-packages"))
            (site / "shared.pth").write_text("\n".join(shares) + "\n", encoding="utf-8")
            subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
        else:
            subprocess.run([*pip, "install", *constraints, str(wheel)], check=True)
        version = wheel.name.split("-")[1]
        words = [str(python), "-c", TRIAL, version]
        subprocess.run(words, check=True, cwd=folder)


def main() -> None:
    """Build, try, and print what was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--repository", default=os.environ.get("MMFE_REPOSITORY", ""))
    parser.add_argument("--shared", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    wheel, sdist = build(given.out, given.repository, isolated=not given.shared)
    try_wheel(wheel, shared=given.shared)
    sys.stdout.write(f"{wheel}\n{sdist}\n")


if __name__ == "__main__":
    main()
