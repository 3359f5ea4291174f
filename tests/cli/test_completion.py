"""What the shell completes, asked as a shell asks, and without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmfe_cli.app import run


@pytest.fixture
def complete(tmp_path, monkeypatch, capsys):
    """Completes a line as bash asks for it, typed in a folder with two finished runs."""
    for name in ("demo", "table4a/full"):
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
        (tmp_path / "runs" / name / "model/config.json").touch()
    (tmp_path / "runs/begun").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_MMFE_COMPLETE", "complete_bash")

    def asked(line):
        monkeypatch.setenv("COMP_WORDS", f"mmfe {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        assert run([]) == 0
        return capsys.readouterr().out.split()

    return asked


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pl", ["plot"]),
        ("plot e", ["embeddings", "experts", "errors"]),
        ("ablate table5", ["table5a", "table5b", "table5c"]),
        ("cache build --dataset aio5", ["aio5", "aio5-rain13k"]),
        ("cache build --recipe table4b/f", ["table4b/full"]),
        ("cache build --guide fast", ["fastvlm-0.5b", "fastvlm-1.5b"]),
        ("cache build --split te", ["test"]),
        ("cache repair x.zarr --guide sc", ["scene"]),
        ("cache repair x.zarr --dataset go", ["gopro"]),
        ("data check --dataset lo", ["lol-v1"]),
        ("data check --split tr", ["train"]),
        ("data pack --dataset cd", ["cdd11"]),
        ("train --recipe table4b/f", ["table4b/full"]),
        ("train --init-from mm", ["mmfe-small"]),
        ("eval --checkpoint ", ["mmfe-small", "runs/demo", "runs/table4a/full"]),
        ("eval --dataset go", ["gopro"]),
        ("eval --recipe sma", ["small"]),
        ("eval --protocol pro", ["promptir"]),
        ("restore a.jpg --checkpoint runs/d", ["runs/demo"]),
        ("restore a.jpg --guide none", ["none"]),
        ("restore a.jpg --guide o", []),
        ("restore a.jpg --format ti", ["tiff"]),
        ("restore a.jpg --score ni", ["niqe"]),
        ("restore a.jpg --only ", ["low", "haze", "rain", "snow"]),
        ("restore a.jpg --only rain,s", ["rain,snow"]),
        ("restore a.jpg --only rain,snow,", ["rain,snow,low", "rain,snow,haze"]),
        ("restore a.jpg --tile ", ["auto", "off"]),
        ("restore a.jpg --device m", ["mps"]),
        ("cache build --device c", ["cpu", "cuda"]),
        ("eval --metric lp", ["lpips"]),
        ("train --resume n", ["none"]),
        ("data synth photos --composition low_h", ["low_haze", "low_haze_rain", "low_haze_snow"]),
        ("plot errors --dataset go", ["gopro"]),
        ("inspect a.jpg --guide ", ["scene"]),
        ("export mm", ["mmfe-small"]),
        ("web --checkpoint runs/d", ["runs/demo"]),
        ("guide evaluate photos --guide sc", ["scene"]),
        ("model info --recipe sma", ["small"]),
        ("compare runs/demo runs/t", ["runs/table4a/full"]),
        ("plot routing --checkpoint runs/d", ["runs/demo"]),
        ("plot routing --recipes table4b/full,table5", ["table4b/full,table5a"]),
    ],
)
def test_the_shell_completes_names(complete, line, expected):
    found = complete(line)
    if expected and "," in expected[0]:
        assert expected[0] in found
    else:
        assert sorted(found) == sorted(expected)


def test_completion_imports_no_torch():
    code = (
        "import sys; from mmfe_cli import completion as c; "
        "[f('') for f in vars(c).values() if getattr(f, '__module__', '') == c.__name__ "
        "and f.__name__[0] != '_']; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
