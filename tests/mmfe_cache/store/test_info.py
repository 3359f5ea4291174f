"""What is recorded of a view's embeddings, against plain loops and closed forms."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store import info
from mmfe_cache.store.format import FORMAT, parse_document, serialise
from mmfe_cache.store.info import describe, first_component, mean_cosine, measure
from mmfe_cli.app import run

VIEW = "whole@16"
COUNT = 10


def build(path):
    build_cache(sample_set(COUNT), TinyGuide(), [VIEW], path, batch_size=2, shard_samples=4)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build(tmp_path_factory.mktemp("statistics") / "a.zarr")


def plainly(reader):
    """The same figures, pair by pair and by a singular value decomposition."""
    every = reader.gather(range(COUNT), VIEW, tokens="all").present()
    found = {}
    for name, tensor in every.items():
        values = tensor.double().numpy()
        rows = values if name == "answer" else values[:, 0]
        cosines = [
            a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in combinations(rows, 2)
        ]
        singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
        found[name] = {
            "rms": np.sqrt((values**2).mean()),
            "mean_cosine": np.mean(cosines),
            "first_component": singular[0] / singular.sum(),
        }
    return found


def test_a_build_records_what_a_plain_reading_finds(store):
    recorded = describe(open_cache(store))["statistics"][VIEW]
    assert recorded["samples"] == COUNT
    for name, figures in plainly(open_cache(store)).items():
        assert recorded[name] == pytest.approx(figures, rel=2e-3), name
    assert recorded == measure(open_cache(store), VIEW)


def test_closed_forms():
    assert mean_cosine(np.array([[1.0, 0], [0, 2], [-3, 0]])) == pytest.approx(-1 / 3)
    assert mean_cosine(np.full((4, 3), 2.0)) == pytest.approx(1)
    # Variances 9 and 1 along two axes.
    rows = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert first_component(rows + 5) == pytest.approx(0.9)
    assert first_component(np.repeat(rows, 3, axis=1) + 5) == pytest.approx(0.9)
    assert first_component(np.full((5, 3), 0.1)) is None
    assert mean_cosine(np.zeros((3, 2))) is None
    assert (mean_cosine(rows[:1]), first_component(rows[:1])) == (None, None)


def test_a_large_view_is_measured_on_samples_spread_over_it(store, monkeypatch):
    monkeypatch.setattr(info, "MOST_SAMPLES", 5)
    monkeypatch.setattr(info, "CHUNK", 2)
    reader = open_cache(store)
    found = measure(reader, VIEW)
    assert found["samples"] == 5
    answers = reader.gather([0, 2, 4, 6, 8], VIEW, ["answer"]).answer.double().numpy()
    assert found["answer"]["rms"] == pytest.approx(np.sqrt((answers**2).mean()), rel=1e-3)


def test_a_cache_of_an_earlier_version_is_read_and_measured_on_request(tmp_path, capsys):
    path = build(tmp_path / "old.zarr")
    new = tree(path)
    recorded = describe(open_cache(path))["statistics"]
    file = path / "whole-16" / "zarr.json"
    document = parse_document(file.read_bytes(), "it")
    del document["attributes"][f"{FORMAT}-view"]["statistics"]
    file.write_bytes(serialise(document))
    before = tree(path)
    assert run(["cache", "info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"] == {VIEW: None}
    assert run(["cache", "info", str(path)]) == 0
    assert "not recorded: --statistics computes it" in capsys.readouterr().out
    assert run(["cache", "info", str(path), "--statistics", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"] == recorded
    assert run(["cache", "verify", str(path)]) == 0
    assert tree(path) == before
    build(path)  # and a build that finds it whole records what is lacking, as a repair's
    assert tree(path) == new
    assert open_cache(path).gather([0], VIEW).answer is not None


def test_info_prints_them(store, capsys):
    assert run(["cache", "info", str(store)]) == 0
    shown = capsys.readouterr().out
    rms = describe(open_cache(store))["statistics"][VIEW]["answer"]["rms"]
    assert f"answer RMS {rms:.3g}, cosine" in shown
    assert f"(of {COUNT} samples)" in shown


def test_repair_brings_them_back(tmp_path):
    path = build(tmp_path / "a.zarr")
    before = tree(path)
    file = path / "whole-16" / "zarr.json"
    file.write_bytes(file.read_bytes()[:-30])
    report = repair_cache(path, sample_set(COUNT), TinyGuide())
    assert (report.encodings, report.after.intact) == (0, True)
    assert tree(path) == before
