"""`evaluate` against a plain loop with scikit-image, and on everything that can go wrong."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mmfe_cache.errors import CacheError, DataError, ModelError, UsageError
from mmfe_cache.guides.lineage import guide_fingerprint
from mmfe_cache.progress import Progress
from mmfe_restore.evaluation import EvalReport, evaluate
from mmfe_restore.evaluation.compare import read_report
from mmfe_restore.evaluation.inputs import centre_crop, load_checkpoint
from mmfe_restore.evaluation.published import protocol_named
from mmfe_restore.evaluation.report.files import facts
from mmfe_restore.evaluation.statistics import to_tensor
from mmfe_restore.model import folders

from .conftest import ArraySource, make_samples, photograph, small_recipe, small_restorer


def figures(report: EvalReport) -> list[dict[str, float]]:
    return [score.values for score in report.scores]


def test_equals_a_plain_loop(samples, guided, cache):
    restorer, recipe = guided
    report = evaluate(restorer, recipe, samples, cache, device="cpu")
    assert [score.id for score in report.scores] == list(samples.ids)
    for index, sample in enumerate(samples):
        embeddings = cache.gather(cache.index_of([sample.id]), "whole@32")
        with torch.no_grad():
            restored = restorer(to_tensor(sample.degraded.read()), embeddings).clamp(0, 1)
        ours = restored[0].permute(1, 2, 0).numpy()
        clean = sample.clean.read().astype(np.float32) / 255
        given = sample.degraded.read().astype(np.float32) / 255
        values = report.scores[index].values
        for prefix, image in (("", ours), ("input_", given)):
            psnr = peak_signal_noise_ratio(clean, image, data_range=1.0)
            assert values[f"{prefix}psnr"] == pytest.approx(psnr, abs=1e-4)
            for window in ("uniform", "gaussian"):
                ssim = structural_similarity(
                    image,
                    clean,
                    channel_axis=2,
                    data_range=1.0,
                    gaussian_weights=window == "gaussian",
                )
                assert values[f"{prefix}ssim_{window}"] == pytest.approx(ssim, abs=1e-5)


def test_the_network_runs_in_true_float32(unguided, samples):
    restorer, recipe = unguided
    seen = []
    allowed = torch.backends.cuda.matmul, torch.backends.cudnn
    hook = restorer.register_forward_hook(lambda *_: seen.append([b.allow_tf32 for b in allowed]))
    evaluate(restorer, recipe, samples, None, device="cpu")
    hook.remove()
    assert seen and all(one == [False, False] for one in seen)


def test_average_is_the_mean_of_class_means(guided, cache, samples):
    restorer, recipe = guided
    uneven = replace(samples, samples=samples.samples[:-2])
    report = evaluate(restorer, recipe, uneven, cache, device="cpu").to_json()
    by_class = {}
    for image in report["images"]:
        by_class.setdefault(image["label"], []).append(image["psnr"])
    means = {label: np.mean(values) for label, values in by_class.items()}
    assert {k: v["psnr"] for k, v in report["classes"].items()} == pytest.approx(means)
    assert report["average"]["psnr"] == pytest.approx(np.mean(list(means.values())))
    assert report["average"]["psnr"] != pytest.approx(
        np.mean([image["psnr"] for image in report["images"]]), abs=1e-6
    )


def test_the_report_states_how_it_was_measured(guided, cache, samples):
    restorer, recipe = guided
    report = evaluate(restorer, recipe, samples, cache, device="cpu").to_json()
    assert report["protocol"] == "mmfe"
    assert report["crop"] == "whole image"
    assert report["range"] == 1.0
    assert report["rounding"] == "none"
    assert (report["view"], report["guide"], report["tokens"]) == ("whole@32", "oracle", "grid")
    assert (report["embeddings"], report["prompt"]) == ("oracle", None)  # it is asked nothing
    assert report["counts"] == {"total": 9, "low": 3, "low_rain": 3, "rain": 3}
    assert report["guide_calls"] == 0
    for row in (report["average"], *report["classes"].values()):
        assert row.keys() >= {"input_psnr", "psnr", "ssim_uniform", "ssim_gaussian"}
    low, high = report["intervals"]["average"]["psnr"]
    assert low <= report["average"]["psnr"] <= high


def test_a_batch_of_one_and_of_many_agree(guided, cache, samples):
    restorer, recipe = guided
    # All images of one size, so that batches really form.
    size = samples.samples[0].degraded.size()
    alike = (sample for sample in samples if sample.degraded.size() == size)
    same = replace(samples, samples=tuple(replace(sample, label="one") for sample in alike))
    one = evaluate(restorer, recipe, same, cache, device="cpu", batch_size=1)
    many = evaluate(restorer, recipe, same, cache, device="cpu", batch_size=3)
    assert len(one.scores) == 3
    for a, b in zip(figures(one), figures(many), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def _one_process(rank: int, port: str, store: str, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    from mmfe_cache.store import open_cache

    dist.init_process_group("gloo", rank=rank, world_size=2)
    recipe = small_recipe()
    report = evaluate(
        small_restorer(recipe), recipe, make_samples(), open_cache(store), device="cpu"
    )
    torch.save((figures(report), [p.id for p in report.pictures]), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_and_count_no_sample_twice(
    guided, cache, samples, tmp_path, free_port, start_method
):
    restorer, recipe = guided
    arguments = (str(free_port), str(cache.path), str(tmp_path))
    mp.start_processes(_one_process, arguments, nprocs=2, start_method=start_method)
    one = evaluate(restorer, recipe, samples, cache, device="cpu")
    for rank in (0, 1):
        found, shown = torch.load(tmp_path / f"{rank}.pt")
        assert len(found) == 9  # An odd number: a sampler that pads would count one twice.
        assert shown == [picture.id for picture in one.pictures]
        for a, b in zip(found, figures(one), strict=True):
            assert a == pytest.approx(b, abs=1e-4)


def test_rounding_changes_the_figures_as_saving_a_png_would(guided, cache, samples):
    restorer, recipe = guided
    plain = evaluate(restorer, recipe, samples, cache, device="cpu")
    rounded = evaluate(restorer, recipe, samples, cache, device="cpu", protocol="onerestore")
    assert rounded.rounding == "uint8"
    assert figures(plain) != figures(rounded)
    sample = samples.samples[0]
    embeddings = cache.gather(cache.index_of([sample.id]), "whole@32")
    with torch.no_grad():
        restored = restorer(to_tensor(sample.degraded.read()), embeddings)[0].clamp(0, 1)
    png = (restored * 255).round().byte().permute(1, 2, 0).numpy()
    expected = peak_signal_noise_ratio(sample.clean.read(), png)
    assert rounded.scores[0].values["psnr"] == pytest.approx(expected, abs=1e-4)


def test_promptir_crops_to_16_and_leaves_cdd11_whole(unguided):
    restorer, recipe = unguided
    mine, cdd11 = make_samples(1), make_samples(1, dataset="cdd11")
    cropped = evaluate(restorer, recipe, mine, None, device="cpu", protocol="promptir")
    assert {(s.height, s.width) for s in cropped.scores} == {(32, 48)}
    whole = evaluate(restorer, recipe, cdd11, None, device="cpu", protocol="promptir")
    assert {(s.height, s.width) for s in whole.scores} == {(40, 52)}


def test_restormer_judges_deraining_in_y(unguided):
    restorer, recipe = unguided
    mine = make_samples(1)
    report = evaluate(restorer, recipe, mine, None, device="cpu", protocol="restormer")
    by_label = {score.label: score.values for score in report.scores}
    from skimage.color import rgb2ycbcr

    for label, in_luma in (("rain", True), ("low", False)):
        sample = next(s for s in mine if s.label == label)
        pair = [sample.clean.read(), sample.degraded.read()]
        if in_luma:
            pair = [np.rint(rgb2ycbcr(image)[..., 0]) for image in pair]
        expected = peak_signal_noise_ratio(*pair, data_range=255)
        assert by_label[label]["input_psnr"] == pytest.approx(expected, abs=1e-4)


def test_a_crop_without_effect_is_said_to_have_none(unguided):
    restorer, recipe = unguided
    cropping = replace(recipe, eval=replace(recipe.eval, crop_multiple=8))
    mine = make_samples(1, {"low": {"low": 0.5}})
    used = evaluate(restorer, cropping, mine, None, device="cpu")
    assert used.crop_multiple == 8
    assert not [note for note in used.notes if "no effect" in note]
    report = evaluate(restorer, cropping, mine, None, device="cpu", protocol="promptir")
    assert report.crop_multiple == 16
    assert any("crop_multiple of 8 has no effect" in note for note in report.notes)
    # Whole images are a wish as well; the peers' sets are never judged whole.
    report = evaluate(restorer, recipe, mine, None, device="cpu", protocol="promptir")
    assert any("crop_multiple of 1 has no effect" in note for note in report.notes)
    tasks = replace(mine, dataset="aio3")
    for asked, used in ((1, 16), (8, 16), (32, 32)):
        cropping = replace(recipe, eval=replace(recipe.eval, crop_multiple=asked))
        report = evaluate(restorer, cropping, tasks, None, device="cpu", protocol="mmfe")
        assert report.crop_multiple == used
        said = [note for note in report.notes if f"crop_multiple of {asked} has no effect" in note]
        assert bool(said) == (asked != used)


def test_a_network_is_judged_with_the_windows_that_it_has(unguided):
    restorer, recipe = unguided
    (sample,) = make_samples(1, {"low": {"low": 0.5}})
    clean, degraded = photograph(1, 60, 90), photograph(2, 60, 90)
    large = replace(
        sample, clean=ArraySource("c.png", clean), degraded=ArraySource("d.png", degraded)
    )
    mine = replace(make_samples(1), samples=(large,))
    whole = evaluate(restorer, recipe, mine, None, device="cpu")
    restorer.attend_within(48)
    report = evaluate(restorer, recipe, mine, None, device="cpu")
    windows = [one.to_json()["attention_window"] for one in (whole, report)]
    assert windows == [None, 48]
    assert dict(facts(report))["attention"] == "windows of 48 pixels"
    with torch.no_grad():
        restored = restorer(to_tensor(degraded))[0].clamp(0, 1)
    ours = restored.permute(1, 2, 0).numpy()
    expected = peak_signal_noise_ratio(clean / 255, ours, data_range=1.0)
    assert report.scores[0].values["psnr"] == pytest.approx(expected, abs=1e-4)
    assert whole.scores[0].values["psnr"] != pytest.approx(expected, abs=1e-4)


def test_identical_images_are_noted_and_left_out(unguided, samples):
    restorer, recipe = unguided
    first = samples.samples[0]
    perfect = replace(first, degraded=first.clean)
    report = evaluate(
        restorer, recipe, replace(samples, samples=(perfect, *samples.samples[1:])), None,
        device="cpu",
    )  # fmt: skip
    assert report.scores[0].values["input_psnr"] == np.inf
    assert any(
        "1 of 3 images left out of the mean of input_psnr" in n for n in report.to_json()["notes"]
    )
    rest = [s.values["input_psnr"] for s in report.scores[1:] if s.label == first.label]
    assert report.summary.classes[first.label]["input_psnr"] == pytest.approx(np.mean(rest))
    assert report.to_json()["images"][0]["input_psnr"] is None


def test_the_reported_gain_compares_the_same_images(unguided):
    restorer, recipe = unguided
    found = make_samples(10, {"low": {"low": 0.5}})
    perfect = [replace(s, degraded=s.clean) for s in found.samples[:9]]
    mixed = replace(found, samples=(*perfect, found.samples[9]))
    report = evaluate(restorer, recipe, mixed, None, device="cpu").to_json()
    last = report["images"][-1]
    gain = last["psnr"] - last["input_psnr"]
    for row in (report["average"], report["classes"]["low"]):
        assert row["gain"] == pytest.approx(gain)
        assert (row["gain_images"], row["gain_left_out"]) == (1, 9)
    assert [image["gain"] for image in report["images"][:9]] == [None] * 9
    assert report["intervals"]["average"]["gain"] == pytest.approx([gain, gain])


def test_images_below_the_window_have_no_ssim_and_a_note(unguided):
    restorer, recipe = unguided
    found = make_samples(1, {"low": {"low": 0.5}})
    tiny = ArraySource("tiny", np.zeros((5, 8, 3), np.uint8))
    other = ArraySource("other", np.full((5, 8, 3), 9, np.uint8))
    found = replace(found, samples=(replace(found.samples[0], degraded=other, clean=tiny),))
    report = evaluate(restorer, recipe, found, None, device="cpu").to_json()
    assert report["average"]["ssim_uniform"] is None
    assert report["average"]["psnr"] is not None
    assert any("smaller than SSIM's window" in note for note in report["notes"])


class TestBadInput:
    def test_differing_sizes_name_both_files(self, unguided, samples):
        restorer, recipe = unguided
        first = samples.samples[0]
        odd = replace(first, clean=ArraySource("clear/odd.png", np.zeros((9, 9, 3), np.uint8)))
        broken = replace(samples, samples=(odd, *samples.samples[1:]))
        with pytest.raises(DataError, match="differ in size") as caught:
            evaluate(restorer, recipe, broken, None, device="cpu")
        assert "clear/odd.png" in str(caught.value)
        assert "low/00.png" in str(caught.value)

    def test_no_images(self, unguided, samples):
        with pytest.raises(DataError, match="holds no image"):
            evaluate(*unguided, replace(samples, samples=()), None)

    def test_no_ground_truth(self, unguided, samples):
        blind = tuple(replace(s, clean=None) for s in samples)
        with pytest.raises(DataError, match="9 of 9 test images have no ground truth"):
            evaluate(*unguided, replace(samples, samples=blind), None)

    def test_no_cache_and_no_null_guidance(self, guided, samples):
        with pytest.raises(ModelError, match="cannot run without embeddings") as caught:
            evaluate(*guided, samples, None)
        assert "mmfe cache build --dataset mine" in str(caught.value)

    def test_cache_of_another_width(self, samples, cache):
        recipe = small_recipe(guidance_dim=128)
        with pytest.raises(CacheError, match="another width"):
            evaluate(small_restorer(recipe), recipe, samples, cache)

    def test_cache_of_another_guide(self, guided, samples, cache):
        restorer, recipe = guided
        other = replace(recipe, guide=replace(recipe.guide, name="scene"))
        with pytest.raises(CacheError, match="another guide") as caught:
            evaluate(restorer, other, samples, cache)
        assert caught.value.exit_code == 3

    def test_cache_of_other_data(self, guided, samples, cache):
        with pytest.raises(CacheError, match="other data"):
            evaluate(*guided, replace(samples, dataset="yours"), cache)

    def test_cache_without_the_view(self, guided, samples, cache):
        with pytest.raises(CacheError, match="lacks the view") as caught:
            evaluate(*guided, samples, cache, view="whole@48")
        assert "--views whole@48" in str(caught.value)

    def test_cache_without_a_sample(self, guided, cache):
        with pytest.raises(CacheError, match="does not hold"):
            evaluate(*guided, make_samples(4), cache)

    def test_unknown_protocol(self, guided, samples, cache):
        with pytest.raises(UsageError, match="unknown protocol"):
            evaluate(*guided, samples, cache, protocol="psnr")

    def test_values_that_are_not_finite(self, unguided, samples):
        _, recipe = unguided
        broken = small_restorer(recipe)
        with torch.no_grad():
            broken.output.weight.fill_(float("nan"))
        with pytest.raises(ModelError, match="not finite"):
            evaluate(broken, recipe, samples, None, device="cpu")

    def test_a_report_that_exists_is_refused_before_any_work(self, unguided, samples, tmp_path):
        out = tmp_path / "report"
        evaluate(*unguided, samples, None, out=out, device="cpu")
        before = (out / "metrics.json").read_bytes()
        with pytest.raises(UsageError, match="exists"):
            evaluate(*unguided, samples, None, out=out, device="cpu")
        assert (out / "metrics.json").read_bytes() == before
        evaluate(*unguided, samples, None, out=out, device="cpu", force=True)

    def test_a_report_that_cannot_stand_beside_is_refused_before_any_work(
        self, unguided, samples, tmp_path
    ):
        restorer, recipe = unguided
        evaluate(restorer, recipe, samples, None, out=tmp_path / "other", device="cpu")
        beside = [read_report(tmp_path / "other")]
        fewer = replace(samples, samples=samples.samples[1:])
        calls = []
        hook = restorer.register_forward_hook(lambda *_: calls.append(1))
        for judged, protocol in ((samples, "onerestore"), (fewer, None)):
            with pytest.raises(UsageError, match="the two evaluations"):
                evaluate(
                    restorer, recipe, judged, None, out=tmp_path / "mine", device="cpu",
                    protocol=protocol, beside=beside,
                )  # fmt: skip
        hook.remove()
        assert not calls and not (tmp_path / "mine").exists()

    def test_a_report_of_other_pictures_is_left_off_the_page(self, unguided, samples, tmp_path):
        class Warned(Progress):
            def __init__(self):
                self.said = []

            def warn(self, text):
                self.said.append(text)

        evaluate(*unguided, samples, None, out=tmp_path / "same", device="cpu")
        first = samples.samples[0]
        dark = ArraySource("dark", first.degraded.read() // 2)
        others = replace(samples, samples=(replace(first, degraded=dark), *samples.samples[1:]))
        evaluate(*unguided, others, None, out=tmp_path / "odd", device="cpu")
        heard = Warned()
        evaluate(
            *unguided, samples, None, out=tmp_path / "mine", device="cpu", progress=heard,
            beside=[read_report(tmp_path / name) for name in ("odd", "same")],
        )  # fmt: skip
        (said,) = heard.said
        assert str(tmp_path / "odd") in said and "bear the same names" in said
        page = (tmp_path / "mine" / "report.html").read_text()
        data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
        assert [other["name"] for other in data["others"]] == ["same"]

    def test_force_spares_what_is_no_report(self, unguided, samples, tmp_path):
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(UsageError, match="exists"):
            evaluate(*unguided, samples, None, out=tmp_path, device="cpu", force=True)
        assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("dataset", "recipe_multiple", "multiple"),
    [("cdd11", 16, 1), ("aio3", 1, 16), ("aio5", 16, 16), ("mine", 1, 1), ("mine", 8, 8)],
)
def test_the_default_protocols_crop_follows_the_data(dataset, recipe_multiple, multiple):
    assert protocol_named("mmfe").crop_for(dataset, recipe_multiple) == multiple


class TestGuideState:
    def folder(self, tmp_path, fingerprint):
        (tmp_path / "config.json").write_text(json.dumps({"guide_fingerprint": fingerprint}))
        return tmp_path

    def test_the_same_state_passes(self, guided, samples, cache, tmp_path):
        folder = self.folder(tmp_path, guide_fingerprint(cache.fingerprint))
        report = evaluate(*guided, samples, cache, device="cpu", checkpoint=folder)
        assert not [note for note in report.notes if "guide" in note]

    def test_a_shipped_network_is_told_by_its_name(
        self, guided, samples, cache, tmp_path, monkeypatch
    ):
        folder = self.folder(tmp_path, guide_fingerprint(cache.fingerprint))
        shipped = replace(folders.shipped_models()["mmfe-small"], folder=folder)
        monkeypatch.setattr(folders, "shipped_models", lambda: {"mmfe-small": shipped})
        report = evaluate(*guided, samples, cache, device="cpu", checkpoint=folder)
        assert report.to_json()["checkpoint"] == "mmfe-small"
        monkeypatch.undo()
        report = evaluate(*guided, samples, cache, device="cpu", checkpoint=folder)
        assert report.to_json()["checkpoint"] == str(folder)

    def test_another_prompt_or_digest_is_refused(self, guided, samples, cache, tmp_path):
        trained = guide_fingerprint(cache.fingerprint) | {"guide.weights": "0000"}
        with pytest.raises(CacheError, match="another state of the guide") as caught:
            evaluate(*guided, samples, cache, checkpoint=self.folder(tmp_path, trained))
        assert "weights: '0000'" in str(caught.value)

    def test_another_precision_is_noted(self, guided, samples, cache, tmp_path):
        trained = guide_fingerprint(cache.fingerprint) | {"guide.dtype": "odd"}
        folder = self.folder(tmp_path, trained)
        report = evaluate(*guided, samples, cache, device="cpu", checkpoint=folder)
        assert any("another precision" in note for note in report.notes)

    def test_a_checkpoint_that_does_not_say_is_noted(self, guided, samples, cache, tmp_path):
        report = evaluate(*guided, samples, cache, device="cpu", checkpoint=tmp_path)
        assert any("not checked" in note for note in report.notes)


@pytest.mark.parametrize(("side", "kept"), [(481, 480), (480, 480), (16, 16), (47, 32)])
def test_centre_crop(side, kept):
    image = np.arange(side * 20 * 3).reshape(side, 20, 3).astype(np.uint8)
    cropped = centre_crop(image, 16)
    assert cropped.shape == (kept, 16, 3)
    top = (side - kept) // 2
    np.testing.assert_array_equal(cropped, image[top : top + kept, 2:18])


def test_centre_crop_of_too_small_an_image():
    with pytest.raises(DataError, match="smaller than the protocol's crop"):
        centre_crop(np.zeros((15, 40, 3), np.uint8), 16)


def test_a_recipe_that_is_given_says_how_embeddings_are_read(guided, tmp_path):
    restorer, recipe = guided
    restorer.save_pretrained(tmp_path, recipe=recipe)
    other = replace(recipe, name="other", guide=replace(recipe.guide, normalise="rms"))
    with pytest.raises(ModelError, match="other is not the recipe of the network") as caught:
        load_checkpoint(tmp_path, other)
    assert (caught.value.got, caught.value.expected) == (
        "guide.normalise='rms'",
        "guide.normalise='none'",
    )
    wrong = replace(recipe, name="wrong", model=replace(recipe.model, encoder_guidance="none"))
    with pytest.raises(ModelError, match="wrong is not the recipe of the network") as caught:
        load_checkpoint(tmp_path, wrong)
    assert caught.value.got == "model.encoder_guidance='none'"
    # A checkpoint that records no recipe leaves it to the one that is given.
    small_restorer(recipe).save_pretrained(tmp_path / "silent")
    opened = load_checkpoint(tmp_path / "silent", other)
    assert opened.restorer.recipe.guide.normalise == opened.recipe.guide.normalise == "rms"
