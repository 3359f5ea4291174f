"""Every figure drawn from real, small networks and a real cache."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from mmfe_cache.errors import CacheError, DataError, UsageError
from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store import open_cache
from mmfe_restore.evaluation import evaluate
from mmfe_restore.figures import (
    Subject,
    method_of,
    plot_compared,
    plot_embeddings,
    plot_errors,
    plot_experts,
    plot_routing,
)
from mmfe_restore.figures.embeddings import dominance_facts
from mmfe_restore.figures.scatter import tsne
from mmfe_restore.figures.spectrum import measure_experts
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import load_recipe

from ...small import ArraySource, small_recipe

KINDS = {"low": {"low": 0.7}, "rain": {"rain": 0.5}, "low_rain": {"low": 0.5, "rain": 0.4}}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    random = np.random.default_rng(0)
    found = []
    for label, severities in sorted(KINDS.items()):
        for scene in range(3):
            clean = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            degraded = (clean * 0.6).astype(np.uint8)
            severities = {k: v + 0.05 * scene for k, v in severities.items()}
            name = f"{label}/{scene}"
            found.append(
                Sample(
                    name,
                    ArraySource(name, degraded),
                    ArraySource("c", clean),
                    label,
                    str(scene),
                    severities,
                )
            )
    return SampleSet("cdd11", "test", tmp_path_factory.mktemp("r"), "made up", tuple(found))


@pytest.fixture(scope="module")
def cache(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "oracle.zarr"
    build_cache(samples, load_guide("oracle"), ["whole@32"], path)
    return open_cache(path)


def network(**model) -> Restorer:
    recipe = small_recipe("oracle", "whole@32", **{"num_experts": 3, **model})
    torch.manual_seed(0)
    return Restorer.from_recipe(recipe).eval()


def check_files(drawing, columns):
    png, svg, data = drawing.files
    with Image.open(png) as picture:
        picture.load()
        assert np.asarray(picture.convert("L")).std() > 5
    assert "<svg" in svg.read_text()
    with data.open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(rows[0]) == columns
    return rows


def test_embeddings(cache, tmp_path):
    drawing = plot_embeddings(cache, "whole@32", tmp_path)
    rows = check_files(drawing, {"id", "label", "dominant", "pc1", "pc2", "tsne1", "tsne2"})
    assert {row["dominant"] for row in rows} == {""}
    assert "dominated" not in drawing.facts
    assert {row["id"] for row in rows} == set(cache.ids)
    with pytest.raises(UsageError, match="exists"):
        plot_embeddings(cache, "whole@32", tmp_path)
    before = [path.read_bytes() for path in drawing.files]
    again = plot_embeddings(cache, "whole@32", tmp_path, force=True)
    assert [path.read_bytes() for path in again.files] == before


def four_kinds(tmp_path):
    """Caches of two guides on a split in which each degradation also occurs alone."""
    random = np.random.default_rng(1)
    found = []
    for label in ("low", "haze", "rain", "snow", "low_haze", "haze_snow"):
        for scene in range(3):
            parts = label.split("_")
            severities = {kind: 0.9 - 0.3 * place for place, kind in enumerate(parts)}
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            source = ArraySource(label, pixels)
            found.append(Sample(f"{label}/{scene}", source, source, label, str(scene), severities))
    samples = SampleSet("cdd11", "test", tmp_path, "made up", tuple(found))
    for guide in ("oracle", "prompt"):
        build_cache(samples, load_guide(guide, device="cpu"), ["whole@32"], tmp_path / guide)
    caches = [open_cache(tmp_path / guide) for guide in ("oracle", "prompt")]
    return caches, {one.id: one.severities for one in found}


def test_two_guides_side_by_side(tmp_path):
    caches, recorded = four_kinds(tmp_path)
    drawing = plot_compared([(c, "whole@32") for c in caches], tmp_path / "a", severities=recorded)
    columns = {"guide", "id", "label", "dominant", "pc1", "pc2", "tsne1", "tsne2"}
    rows = check_files(drawing, columns)
    panels = drawing.facts["panels"]
    assert [panel["guide"] for panel in panels] == ["oracle", "prompt"]
    for number, cache in enumerate(caches):
        alone = plot_embeddings(cache, "whole@32", tmp_path / f"{number}", severities=recorded)
        assert panels[number] == alone.facts | {"name": cache.guide, "cache": str(cache.path)}
        mine = {row["id"]: row["tsne1"] for row in rows if row["guide"] == cache.guide}
        with alone.files[-1].open() as stream:
            assert {row["id"]: row["tsne1"] for row in csv.DictReader(stream)} == mine
    assert panels[0]["dominated"] == 6
    assert panels[0]["nearest"] > panels[1]["nearest"]  # noise tells no class, the truth does
    words = drawing.files[1].read_text()
    assert f"{panels[0]['nearest']:.0%} of mixtures nearest" in words
    plain = plot_compared([(c, "whole@32") for c in caches], tmp_path / "b")
    assert "of the variance" in plain.files[1].read_text()


def test_two_caches_of_one_guide_are_told_apart(tmp_path):
    (cache, _), _ = four_kinds(tmp_path)
    copied = shutil.copytree(cache.path, tmp_path / "elsewhere" / "asked.zarr")
    other = open_cache(str(copied))  # as from the command line
    drawing = plot_compared([(c, "whole@32") for c in (cache, other)], tmp_path / "a")
    names = ["oracle (oracle)", "oracle (asked)"]
    assert [panel["name"] for panel in drawing.facts["panels"]] == names
    assert [panel["guide"] for panel in drawing.facts["panels"]] == ["oracle", "oracle"]
    with drawing.files[-1].open() as stream:
        assert list(dict.fromkeys(row["guide"] for row in csv.DictReader(stream))) == names
    assert "oracle (asked), whole@32" in drawing.files[1].read_text()
    same = open_cache(shutil.copytree(cache.path, tmp_path / "third" / "oracle"))
    drawing = plot_compared([(c, "whole@32") for c in (cache, same)], tmp_path / "b")
    assert [p["name"] for p in drawing.facts["panels"]] == [str(cache.path), str(same.path)]


def test_caches_of_one_guide_at_several_views_are_told_apart(samples, tmp_path):
    views = ("whole@32", "whole@48")
    for name in ("first", "second"):
        build_cache(samples, load_guide("oracle"), views, tmp_path / f"{name}.zarr")
    one, other = (open_cache(tmp_path / f"{name}.zarr") for name in ("first", "second"))
    drawing = plot_compared([(one, views[0]), (other, views[1])], tmp_path / "a")
    names = [panel["name"] for panel in drawing.facts["panels"]]
    assert names == ["oracle (first)", "oracle (second)"]
    drawing = plot_compared([(one, views[0]), (one, views[1])], tmp_path / "b")
    names = [panel["name"] for panel in drawing.facts["panels"]]
    assert names == [f"{one.path} at {view}" for view in views]


def test_guides_of_different_samples_are_not_set_side_by_side(cache, tmp_path):
    caches, _ = four_kinds(tmp_path)
    with pytest.raises(UsageError, match="the same samples"):
        plot_compared([(cache, "whole@32"), (caches[0], "whole@32")], tmp_path / "out")
    caches[1].pixel_digests = caches[1].pixel_digests ^ np.uint8(1)
    with pytest.raises(UsageError, match="other pixels") as caught:
        plot_compared([(one, "whole@32") for one in caches], tmp_path / "out")
    assert "18 of 18" in str(caught.value)
    with pytest.raises(UsageError, match="too many"):
        plot_compared([(caches[0], "whole@32")] * 5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_embeddings_by_dominant_severity(samples, cache, tmp_path):
    recorded = {one.id: one.severities for one in samples}
    drawing = plot_embeddings(cache, "whole@32", tmp_path, severities=recorded)
    with drawing.files[-1].open() as stream:
        drawn = {row["id"]: row["dominant"] for row in csv.DictReader(stream)}
    # 0.5 beside 0.4 is 1.25 times as much; 0.55 beside 0.45 is less.
    assert drawn == {
        "low/0": "low", "low/1": "low", "low/2": "low",
        "rain/0": "rain", "rain/1": "rain", "rain/2": "rain",
        "low_rain/0": "low", "low_rain/1": "balanced", "low_rain/2": "balanced",
    }  # fmt: skip
    # Haze and snow never occur alone here, so nothing has four centroids to lie near to.
    assert (drawing.facts["dominated"], drawing.facts["nearest"]) == (0, None)


def test_mixtures_are_counted_to_the_nearest_single():
    recorded = {f"{kind}/0": {kind: 0.9} for kind in ("low", "haze", "rain", "snow")}
    answers = [*np.eye(4)]
    for name, strong, place in (("a", "low", 0), ("b", "low", 2), ("c", "rain", 2)):
        recorded[f"low_rain/{name}"] = {"low": 0.5, "rain": 0.5} | {strong: 0.9}
        answers.append(np.eye(4)[place] + 0.1)
    recorded["low_rain/even"] = {"low": 0.5, "rain": 0.5}
    answers.append(np.eye(4)[1])
    names = list(recorded)
    labels = [name.split("/")[0] for name in names]
    facts = dominance_facts(np.array(answers), names, labels, recorded)
    # Two of the three are darker than they are rainy: "low" said of all is right of two.
    expected = {"dominated": 3, "nearest": 2 / 3, "nearest_cosine": 2 / 3}
    assert facts == pytest.approx({**expected, "composition_alone": 2 / 3})


def test_neighbours_keep_groups_together_the_same_every_time():
    random = np.random.default_rng(0)
    middles = 10 * np.eye(3, 12)
    vectors = np.concatenate([middle + random.normal(0, 0.1, (20, 12)) for middle in middles])
    found = tsne(vectors)
    np.testing.assert_array_equal(found, tsne(vectors))
    groups = found.reshape(3, 20, 2)
    within = np.linalg.norm(groups - groups.mean(1, keepdims=True), axis=2).max()
    centres = groups.mean(1)
    between = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert between > 2 * within


def test_what_was_skipped_in_the_cache_is_left_out(samples, tmp_path):
    class Unreadable(ArraySource):
        def read(self):
            raise DataError("image cannot be read", got=self.name)

    spoilt = samples.samples[4]
    changed = tuple(
        replace(one, degraded=Unreadable("x", one.degraded.pixels)) if one is spoilt else one
        for one in samples.samples
    )
    path = tmp_path / "oracle.zarr"
    with_a_gap = replace(samples, samples=changed)
    build_cache(with_a_gap, load_guide("oracle"), ["whole@32"], path, on_error="skip")
    cache = open_cache(path)
    assert cache.skipped == (spoilt.id,)
    for number, draw in enumerate((plot_embeddings, partial(plot_routing, [("n", network())]))):
        drawing = draw(cache, "whole@32", tmp_path / str(number))
        with drawing.files[-1].open() as stream:
            drawn = {row["id"] for row in csv.DictReader(stream)}
        assert drawn == set(cache.ids) - {spoilt.id}


def test_the_callers_matplotlib_settings_stay(cache, tmp_path):
    before = dict(mpl.rcParams)
    plot_embeddings(cache, "whole@32", tmp_path)
    assert dict(mpl.rcParams) == before


def test_routing_holds_the_routers_own_weights(cache, tmp_path):
    restorer = network()
    drawing = plot_routing([("a", restorer)], cache, "whole@32", tmp_path)
    rows = check_files(drawing, {"run", "id", "label", "site", "expert", "weight"})
    answer = cache.gather(cache.index_of(["rain/1"]), "whole@32", arrays=("answer",)).answer
    with torch.no_grad():
        weights = restorer.router_weights(answer.float())["latent_in"][0]
    mine = [r for r in rows if r["id"] == "rain/1" and r["site"] == "latent_in"]
    assert [r["expert"] for r in mine] == ["1", "2", "3"]
    assert [float(r["weight"]) for r in mine] == pytest.approx(weights.tolist(), abs=1e-5)
    assert -1 <= drawing.facts["alignment"]["a"]["all sites"] <= 1


def test_routing_needs_experts(cache, tmp_path):
    with pytest.raises(UsageError, match="no experts"):
        plot_routing([("a", network(experts="none"))], cache, "whole@32", tmp_path)


def test_routing_of_another_state_of_the_guide(cache, tmp_path):
    restorer = network()
    trained = {k: v for k, v in cache.fingerprint.items() if k.startswith("guide.")}
    restorer.guide_fingerprint = {**trained, "guide.weights": "others"}
    with pytest.raises(CacheError, match="another state of the guide than a was trained"):
        plot_routing([("a", restorer)], cache, "whole@32", tmp_path)
    restorer.guide_fingerprint = trained
    assert plot_routing([("a", restorer)], cache, "whole@32", tmp_path).files


def test_routing_of_a_control(cache, tmp_path):
    restorer = network()
    restorer.recipe = load_recipe("demo", ["guide=oracle", "guide.control=shuffled"])
    with pytest.raises(UsageError, match="do not read the embeddings of the samples") as caught:
        plot_routing([("a", restorer)], cache, "whole@32", tmp_path)
    assert caught.value.got == "guide.control=shuffled"


def test_routing_of_another_guides_embeddings(cache, tmp_path):
    with pytest.raises(UsageError, match="another guide"):
        plot_routing([("a", network(guidance_dim=32))], cache, "whole@32", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("domain", ["frequency", "spatial"])
def test_experts_are_ordered_by_their_centroid(samples, tmp_path, domain):
    one_of_them = samples.samples[0]
    image = one_of_them.degraded.read()
    many, one = network(experts=domain), network(num_experts=1, experts=domain)
    subject = Subject(image, one_of_them.id)
    drawing = plot_experts([("three", many), ("one", one)], subject, tmp_path)
    columns = {"run", "expert", "centroid", "mean_change", "weight", "frequency", "share"}
    rows = check_files(drawing, columns)
    order = [e.centroid for e in measure_experts(many, image, "encoder2")]
    assert order == sorted(order)
    assert len({row["expert"] for row in rows if row["run"] == "three"}) == 3
    said = drawing.files[1].read_text()
    assert f"input: {one_of_them.id}" in said
    assert "cycles/pixel" in said
    assert drawing.facts["pixel"] == 2


def test_experts_of_a_cached_sample_have_the_routers_weights(samples, cache, tmp_path):
    restorer = network()
    subject = Subject(samples.samples[-1].degraded.read(), "rain/1", cache, "whole@32")
    drawing = plot_experts([("a", restorer)], subject, tmp_path)
    with drawing.files[-1].open() as stream:
        drawn = {row["expert"]: float(row["weight"]) for row in csv.DictReader(stream)}
    answer = cache.gather(cache.index_of(["rain/1"]), "whole@32", arrays=("answer",)).answer
    with torch.no_grad():
        weights = restorer.router_weights(answer.float())["encoder2"][0].tolist()
    assert drawn == pytest.approx({"1": weights[0], "2": weights[1], "3": weights[2]}, abs=1e-5)


def test_experts_at_an_unknown_site(samples, tmp_path):
    subject = Subject(samples.samples[0].degraded.read(), "x")
    with pytest.raises(UsageError, match="a has no experts there"):
        plot_experts([("a", network())], subject, tmp_path, site="nose")


@pytest.mark.parametrize("domain", ["frequency", "spatial"])
def test_every_map_covers_the_picture_and_not_its_padding(domain):
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    for site, shape in (("encoder2", (19, 26)), ("encoder3", (10, 13)), ("latent_in", (5, 7))):
        found = measure_experts(network(experts=domain), image, site)
        assert {expert.change.shape for expert in found} == {shape}


class TestErrors:
    def folder(self, samples, path):
        for sample in samples:
            (path / sample.label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.clean.read()).save(path / f"{sample.id}.png")
        return path

    def test_a_run_and_a_folder(self, samples, cache, tmp_path):
        restorer = network()
        restorer.save_pretrained(tmp_path / "run" / "model")
        outputs = self.folder(samples, tmp_path / "outputs")
        methods = [
            method_of(f"ours={tmp_path / 'run'}", samples, cache.path),
            method_of(f"other={outputs}", samples, None),
        ]
        drawing = plot_errors(samples.samples[:2], methods, tmp_path / "out")
        rows = check_files(drawing, {"id", "method", "psnr"})
        assert [row["method"] for row in rows[:3]] == ["input", "ours", "other"]
        assert float(rows[2]["psnr"]) == np.inf
        assert np.isfinite(float(rows[1]["psnr"]))

    def test_a_shipped_network_is_a_method_by_its_name(self, samples, tmp_path):
        with pytest.raises(CacheError, match="scene"):  # known, and it wants its guide's cache
            method_of("ours=mmfe-small", samples, tmp_path)

    def test_psnr_in_numbers(self, samples, tmp_path):
        clean = np.full((48, 64, 3), 100, dtype=np.uint8)
        one = replace(
            samples.samples[0],
            degraded=ArraySource("d", clean + np.uint8(51)),
            clean=ArraySource("c", clean),
        )
        # An error of a fifth of the range everywhere: 10 log10(25) dB.
        drawn = plot_errors([one], [], tmp_path / "out")
        assert drawn.facts["psnr"][0]["psnr"] == pytest.approx(13.9794, abs=1e-4)
        assert ">PSNR 13.98 dB<" in drawn.files[1].read_text()

    def test_names_are_no_formulas(self, samples, tmp_path):
        outputs = self.folder(samples, tmp_path / "outputs")
        method = method_of(f"$x^$={outputs}", samples, None)
        svg = plot_errors(samples.samples[:1], [method], tmp_path / "out").files[1]
        assert ">$x^$<" in svg.read_text()

    def test_a_missing_output_is_named(self, samples, tmp_path):
        (tmp_path / "outputs").mkdir()
        method = method_of(f"other={tmp_path / 'outputs'}", samples, None)
        with pytest.raises(DataError, match="holds no output for low/0"):
            plot_errors(samples.samples[:1], [method], tmp_path / "out")

    def test_an_output_of_another_size_is_named(self, samples, tmp_path):
        small = replace(samples, samples=samples.samples[:1])
        outputs = self.folder(small, tmp_path / "outputs")
        Image.new("RGB", (9, 9)).save(outputs / "low" / "0.png")
        with pytest.raises(DataError, match="another size"):
            plot_errors(small.samples, [method_of(str(outputs), small, None)], tmp_path / "out")

    @pytest.mark.parametrize("cropped", [False, True])
    def test_pictures_are_cropped_as_the_protocol_does(self, tmp_path, cropped):
        random = np.random.default_rng(0)
        clean, degraded, output = random.integers(0, 256, (3, 33, 49, 3), dtype=np.uint8)
        one = Sample("rain/0", ArraySource("d", degraded), ArraySource("c", clean), "rain", "0")
        mine = SampleSet("aio3", "test", tmp_path, "made up", (one,))
        inner = (slice(0, 32), slice(0, 48))
        (tmp_path / "outputs" / "rain").mkdir(parents=True)
        saved = Image.fromarray(output[inner] if cropped else output)
        saved.save(tmp_path / "outputs" / "rain" / "0.png")
        restorer = network(experts="none", encoder_guidance="none", decoder_guidance="none")
        restorer.save_pretrained(tmp_path / "run" / "model")
        methods = [method_of(str(tmp_path / name), mine, None) for name in ("outputs", "run")]
        drawn = plot_errors([one], methods, tmp_path / "out", crop=16).facts["psnr"]
        error = (output[inner].astype(float) - clean[inner]) / 255
        assert drawn[1]["psnr"] == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-6)
        report = evaluate(restorer, restorer.recipe, mine, None, device="cpu")
        values = report.scores[0].values
        assert drawn[0]["psnr"] == pytest.approx(values["input_psnr"], abs=1e-9)
        assert drawn[2]["psnr"] == pytest.approx(values["psnr"], abs=0.05)  # not rounded there
        if cropped:
            with pytest.raises(DataError, match="another size") as caught:
                plot_errors([one], methods, tmp_path / "out", crop=32, force=True)
            assert caught.value.expected == "49×33 or, cropped as the protocol does, 32×32"

    def test_a_sample_without_ground_truth_is_named(self, samples, tmp_path):
        blind = replace(samples.samples[0], clean=None)
        with pytest.raises(DataError, match="low/0 has no ground truth"):
            plot_errors([blind], [], tmp_path / "out")

    @pytest.mark.parametrize(
        ("text", "name", "folder"),
        [("x=lr=1", "x", "lr=1"), ("lr=1", "lr=1", "lr=1"), ("x=plain", "x", "plain")],
    )
    def test_an_equals_sign_in_a_path(self, samples, tmp_path, monkeypatch, text, name, folder):
        monkeypatch.chdir(tmp_path)
        self.folder(samples, tmp_path / folder)
        method = method_of(text, samples, None)
        assert method.name == name
        assert method.restore(samples.samples[0], np.zeros(())).shape == (48, 64, 3)

    def test_no_such_method(self, samples, tmp_path):
        with pytest.raises(UsageError, match="no method at"):
            method_of(f"x={tmp_path / 'none'}", samples, None)
