"""The training set of `mmfe-small`: photographs enlarged, and two made sets joined into one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.datasets import check_dataset, load_dataset, write_synth

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.small_training_set import main

KINDS = ("low", "clear")


@pytest.fixture
def photographs(tmp_path):
    """Two of 40×64: 2.25 times that is 90×144."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 256, (40, 64, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_enlarged_photographs_join_their_own_set(photographs, tmp_path, capsys):
    larger, joined = tmp_path / "larger", tmp_path / "joined"
    assert main(["enlarge", str(photographs), str(larger), "--count", "9"]) == 0
    assert [path.name for path in sorted(larger.iterdir())] == ["big-a.png", "big-b.png"]
    for number, source in enumerate((photographs, larger)):
        write_synth(source, tmp_path / f"set{number}", test_share=0, compositions=KINDS)
    sets = [str(tmp_path / f"set{number}") for number in (0, 1)]
    assert main(["join", *sets, str(joined)]) == 0
    report = check_dataset("cdd11", joined)
    assert report.ok
    assert [(part.found, part.published) for part in report.parts] == [(4, 4), (4, 4)]
    assert report.parts[0].sizes == {"64x40": 2, "144x90": 2}
    samples = load_dataset("cdd11", "train", joined)
    first = load_dataset("cdd11", "train", tmp_path / "set0")
    recorded = {sample.id: sample.severities for sample in samples}
    assert all(recorded[sample.id] == sample.severities for sample in first)
    assert all(severities for name, severities in recorded.items() if name.startswith("low"))


def test_sets_that_share_a_name_are_refused_before_anything_is_written(
    photographs, tmp_path, capsys
):
    for number in (0, 1):
        write_synth(photographs, tmp_path / f"set{number}", test_share=0, compositions=KINDS)
    words = [str(tmp_path / name) for name in ("set0", "set1", "joined")]
    with pytest.raises(SystemExit) as stopped:
        main(["join", *words])
    assert stopped.value.code == 2
    assert "photographs of other names" in capsys.readouterr().err
    assert not (tmp_path / "joined").exists()


def test_partial_targets_are_joined_too(photographs, tmp_path):
    larger, joined = tmp_path / "larger", tmp_path / "joined"
    main(["enlarge", str(photographs), str(larger)])
    for number, source in enumerate((photographs, larger)):
        out = tmp_path / f"set{number}"
        write_synth(source, out, test_share=0, compositions=["low_rain"], partial_share=1)
    assert main(["join", str(tmp_path / "set0"), str(tmp_path / "set1"), str(joined)]) == 0
    report = check_dataset("cdd11", joined)
    assert report.ok
    assert sum(part.found for part in report.parts) == 8
    expected = {s.id for n in (0, 1) for s in load_dataset("cdd11", "train", tmp_path / f"set{n}")}
    assert set(load_dataset("cdd11", "train", joined).ids) == expected
