from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmfe_cli.app import run

pytest.importorskip("onnx")


def test_the_shipped_network_as_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "new" / "small.onnx"
    assert run(["export", "mmfe-small", "-o", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["inputs"] == ["image"]
    assert told["size"] == path.stat().st_size
    facts = told["facts"]
    assert (facts["model"], facts["guidance"]) == ("mmfe-small", "scene")
    assert facts["licence"] == "Apache-2.0"
    assert {len(facts["restorer_sha256"]), len(facts["guide_sha256"])} == {64}
    import onnx

    kept = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert kept == {"format": "mmfe-onnx-1", **facts}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mmfe-small", "-o", "x.pt"], "TorchScript is not written"),
        (["mmfe-small", "-o", "x.xyz"], "names no kind of file"),
        (["mmfe-small", "-o", "x.pt2"], "--static HxW"),
        (["mmfe-small", "-o", "x.safetensors", "--static", "8x8"], "which have no size"),
        (["mmfe-small", "-o", "x.onnx", "--static", "0x8"], "names no size"),
        (["mmfe-small", "-o", "x.pt2", "--static", "8x8", "--guide", "scene"], "cannot hold"),
        (["mmfe-small", "-o", "x.onnx", "--guide", "scene", "--no-guide"], "not both"),
        (["nothing-here", "-o", "x.onnx"], "there is no checkpoint"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_that_lie_there_are_not_written_over(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    network, guide, nothing = (
        path / "model.safetensors" for path in (model, tmp_path / "guide", tmp_path)
    )
    guide.parent.mkdir()
    save_file({"a": torch.zeros(1)}, guide, {"format": "mmfe-scene", "dim": "128"})
    nothing.write_bytes(b"")
    for path in (network, guide, nothing):
        before = path.read_bytes()
        assert run(["export", str(model.parent), "--no-guide", "-o", str(path)]) == 2
        assert "is not written over" in capsys.readouterr().err
        assert path.read_bytes() == before
    # What `mmfe export` wrote is exported anew.
    for _ in range(2):
        assert run(["export", str(model), "--no-guide", "-o", str(tmp_path / "r.safetensors")]) == 0
