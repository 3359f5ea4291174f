"""The page, opened in a real browser: sliders, error maps, filters, escaping, no network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from mmfe_cache.degradations import partial_classes
from mmfe_restore.evaluation import evaluate
from mmfe_restore.evaluation.compare import read_report
from mmfe_restore.evaluation.report import add_photograph
from mmfe_restore.evaluation.report.files import class_words, render_page, terms
from mmfe_restore.evaluation.report.pictures import BUDGET, choose, encode, error_map

from .browser import chromium, pixels, resize
from .conftest import ArraySource, make_samples, small_recipe, small_restorer


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    out = tmp_path_factory.mktemp("page") / "report"
    evaluate(small_restorer(recipe), recipe, make_samples(3), None, out=out, device="cpu")
    return out / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture
def opened(browser: Chrome, page: Path) -> Chrome:
    resize(browser, 1280, 900)
    browser.get(page.as_uri())
    return browser


def first_card(window: Chrome):
    card = window.find_element(By.CSS_SELECTOR, ".card .frame")
    window.execute_script("arguments[0].scrollIntoView({block: 'center'})", card)
    # The handle and the tags lie over the pictures: only the pictures are compared.
    window.execute_script(
        "for (const n of arguments[0].querySelectorAll('.line, .tag')) n.style.display = 'none'",
        card,
    )
    return card


def set_slider(window: Chrome, card, share: float) -> None:
    slider = card.find_element(By.TAG_NAME, "input")
    offset = round((share - 0.5) * slider.size["width"])
    chain = ActionChains(window).move_to_element_with_offset(slider, 0, 0).click_and_hold()
    chain.move_to_element_with_offset(slider, offset, 0).release().perform()


@pytest.mark.browser
class TestBrowser:
    def test_moving_a_slider_uncovers_the_other_picture(self, opened):
        card = first_card(opened)
        half = pixels(card.screenshot_as_png)
        set_slider(opened, card, 0.98)
        left_shown = pixels(card.screenshot_as_png)
        set_slider(opened, card, 0.02)
        right_shown = pixels(card.screenshot_as_png)
        width = half.shape[1]
        left, right = slice(width // 8, width * 3 // 8), slice(width * 5 // 8, width * 7 // 8)
        assert np.abs(left_shown - right_shown).mean() > 2  # The two pictures do differ.
        np.testing.assert_array_equal(half[:, left], left_shown[:, left])
        np.testing.assert_array_equal(half[:, right], right_shown[:, right])

    def test_arrow_keys_move_it_too(self, opened):
        card = first_card(opened)
        slider = card.find_element(By.TAG_NAME, "input")
        before = float(slider.get_attribute("value"))
        slider.send_keys(Keys.ARROW_RIGHT)
        assert float(slider.get_attribute("value")) > before
        assert slider.get_attribute("aria-label").startswith("low/00")

    @pytest.mark.parametrize(
        ("mode", "tags"),
        [("clean", ["restored", "clean"]), ("error", ["error of input", "error of restored"])],
    )
    def test_modes_change_what_is_compared(self, opened, mode, tags):
        card = first_card(opened)
        before = pixels(card.screenshot_as_png)
        button = opened.find_element(By.CSS_SELECTOR, f"[data-mode={mode}]")
        button.click()
        card = first_card(opened)
        assert np.abs(pixels(card.screenshot_as_png) - before).mean() > 2
        shown = [t.get_attribute("textContent") for t in card.find_elements(By.CLASS_NAME, "tag")]
        assert shown == tags
        assert opened.find_element(By.ID, "legend").is_displayed() == (mode == "error")

    def test_filtering_by_class(self, opened):
        Select(opened.find_element(By.ID, "label")).select_by_value("rain")
        cards = opened.find_elements(By.CSS_SELECTOR, ".card")
        assert {card.get_attribute("data-label") for card in cards} == {"rain"}
        rows = opened.find_elements(By.CSS_SELECTOR, "#images tbody tr")
        assert len(rows) == 3
        opened.find_element(By.CSS_SELECTOR, ".row[data-label=low]").click()
        cards = opened.find_elements(By.CSS_SELECTOR, ".card")
        assert {card.get_attribute("data-label") for card in cards} == {"low"}
        opened.find_element(By.CSS_SELECTOR, ".row[data-label=low]").click()
        assert len(opened.find_elements(By.CSS_SELECTOR, "#images tbody tr")) == 9

    def test_the_count_of_pictures_follows_the_filter(self, opened):
        said = opened.find_element(By.ID, "choice")
        assert said.text.startswith("9 of 9 images")
        Select(opened.find_element(By.ID, "label")).select_by_value("rain")
        assert said.text.startswith("3 of 3 images")

    def test_the_first_screen_shows_the_way_of_the_picture_of_the_median_gain(self, opened, page):
        images = json.loads((page.parent / "metrics.json").read_text())["images"]
        ranked = sorted(images, key=lambda image: image["gain"])
        assert ranked[4]["id"] in opened.find_element(By.ID, "journey-note").text
        steps = opened.find_elements(By.CSS_SELECTOR, "#journey figcaption b")
        assert [step.text for step in steps] == [
            "What went in", "What came out", "The clean original",
        ]  # fmt: skip
        bottom = opened.execute_script(
            "return document.getElementById('tiles').getBoundingClientRect().top"
        )
        assert bottom < 900

    def test_the_lead_counts_scenes_and_not_their_versions_alone(self, opened):
        lead = opened.find_element(By.CLASS_NAME, "lead").text
        assert lead.startswith("9 degraded pictures of 3 scenes, from ")

    @pytest.mark.parametrize("width", [390, 800, 1280])
    def test_names_of_kinds_are_never_cut_and_every_gain_is_on_the_screen(self, opened, width):
        resize(opened, width, 800)
        script = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
        name = opened.find_element(By.CSS_SELECTOR, ".row .name")
        for words in (
            "low light + haze + snow",
            "a-name-of-my-own-longer-than-all-of-them",
        ):
            opened.execute_script("arguments[0].textContent = arguments[1]", name, words)
            assert opened.execute_script(script, name), words
        gain = opened.find_element(By.CSS_SELECTOR, "#images tbody td:nth-child(4)")
        assert gain.rect["x"] + gain.rect["width"] <= width
        first = opened.find_element(By.CSS_SELECTOR, "#images tbody td:first-child")
        assert first.rect["width"] > 80

    def test_words_and_metrics_are_explained(self, opened):
        terms = opened.find_element(By.ID, "terms").text
        for word in ("PSNR", "SSIM 7×7", "gain", "low light", "rain"):
            assert word in terms
        names = [n.text for n in opened.find_elements(By.CSS_SELECTOR, ".row .name")]
        assert "low light + rain" in names

    def test_sorting_cards_and_table(self, opened, page):
        images = json.loads((page.parent / "metrics.json").read_text())["images"]
        by_psnr = [i["id"] for i in sorted(images, key=lambda i: i["psnr"])]
        Select(opened.find_element(By.ID, "sort")).select_by_value("psnr-up")
        cards = opened.find_elements(By.CSS_SELECTOR, ".card")
        assert [card.get_attribute("data-id") for card in cards] == by_psnr

        opened.find_element(By.CSS_SELECTOR, "[data-key=psnr]").click()
        cells = opened.find_elements(By.CSS_SELECTOR, "#images tbody td:first-child")
        assert [cell.text for cell in cells] == by_psnr[::-1]

    def test_finding_by_name(self, opened):
        opened.find_element(By.ID, "find").send_keys("rain/01")
        cells = opened.find_elements(By.CSS_SELECTOR, "#images tbody td:first-child")
        assert [cell.text for cell in cells] == ["low_rain/01", "rain/01"]

    @pytest.mark.parametrize("width", [320, 390, 768, 1280])
    def test_nothing_is_wider_than_the_screen(self, opened, width):
        resize(opened, width, 800)
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width

    def test_dark_and_light(self, opened):
        background = "return getComputedStyle(document.body).backgroundColor"
        first = opened.execute_script(background)
        opened.find_element(By.ID, "theme").click()
        assert opened.execute_script(background) != first

    def test_no_network_and_no_errors(self, opened):
        opened.get_log("performance")
        opened.get_log("browser")
        opened.refresh()
        events = [json.loads(e["message"])["message"] for e in opened.get_log("performance")]
        asked = [
            e["params"]["request"]["url"]
            for e in events
            if e["method"] == "Network.requestWillBeSent"
        ]
        assert asked
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert not [e for e in opened.get_log("browser") if e["level"] == "SEVERE"]

    def test_hostile_names_stay_text(self, browser, hostile, tmp_path):
        recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
        out = tmp_path / "report"
        evaluate(small_restorer(recipe), recipe, hostile, None, out=out, device="cpu")
        browser.get((out / "report.html").as_uri())
        assert browser.title == "Degraded photographs, restored (recipe small)"
        assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 2
        assert not browser.find_elements(By.CSS_SELECTOR, "img[src=x]")
        shown = browser.find_element(By.CSS_SELECTOR, ".card .id").get_attribute("textContent")
        assert shown == hostile.samples[0].id


@pytest.mark.browser
def test_what_could_not_be_measured_is_no_infinity(browser, tmp_path):
    # Perfect images, too small for either window: the PSNR is infinite, an SSIM is not there.
    found = make_samples(1, {"low": {}})
    tiny = ArraySource("tiny.png", found.samples[0].clean.read()[:6, :6])
    samples = replace(found, samples=(replace(found.samples[0], degraded=tiny, clean=tiny),))
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    evaluate(small_restorer(recipe), recipe, samples, None, out=tmp_path / "r", device="cpu")
    browser.get((tmp_path / "r" / "report.html").as_uri())
    heads = browser.find_elements(By.CSS_SELECTOR, "#images thead th")
    cells = browser.find_elements(By.CSS_SELECTOR, "#images tbody td")
    assert cells[1].text == "∞"
    ssim = [c.text for h, c in zip(heads, cells, strict=True) if h.text.startswith("SSIM")]
    assert ssim == ["–", "–"]
    tiles = browser.find_element(By.ID, "tiles").text
    assert "input PSNR" in tiles
    assert tiles.count("∞") == 1


@pytest.mark.browser
def test_the_gain_on_the_page_leaves_out_what_has_no_input_psnr(browser, tmp_path):
    found = make_samples(10, {"low": {"low": 0.5}})
    perfect = [replace(s, degraded=s.clean) for s in found.samples[:9]]
    samples = replace(found, samples=(*perfect, found.samples[9]))
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    out = tmp_path / "r"
    report = evaluate(small_restorer(recipe), recipe, samples, None, out=out, device="cpu")
    gain = f"{report.scores[-1].gain:+.2f}".replace("-", "−")
    browser.get((out / "report.html").as_uri())
    tile = browser.find_element(By.CSS_SELECTOR, "#tiles .main").text
    assert gain in tile
    assert "9 of 10 images left out" in tile
    row = browser.find_element(By.CSS_SELECTOR, ".row .gain").text
    assert gain in row
    assert "9 of 10 left out" in row
    # Images without a gain are last, whichever way the pictures are sorted.
    browser.find_element(By.CSS_SELECTOR, "[data-key=gain]").click()
    first = browser.find_element(By.CSS_SELECTOR, "#images tbody td")
    assert first.text == samples.samples[9].id
    browser.find_element(By.CSS_SELECTOR, "[data-key=gain]").click()
    assert browser.find_element(By.CSS_SELECTOR, "#images tbody td").text == samples.samples[9].id


@pytest.mark.browser
def test_what_the_guide_saw_is_shown(browser, guided, cache, samples, tmp_path):
    # The oracle sees no picture; told that it were `scene`, the same embeddings come from one.
    restorer, recipe = guided
    plain = evaluate(restorer, recipe, samples, cache, device="cpu")
    assert all(picture.seen is None for picture in plain.pictures)
    report = replace(
        plain, pictures=tuple(replace(p, seen=p.degraded) for p in plain.pictures), guide="scene"
    )
    (tmp_path / "report.html").write_text(render_page(report))
    browser.get((tmp_path / "report.html").as_uri())
    steps = browser.find_elements(By.CSS_SELECTOR, "#journey figcaption")
    assert "scene: the whole picture, shrunk to 32×32 pixels" in steps[1].text


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_published_average_is_on_the_screen(browser, tmp_path, width):
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    samples = make_samples(1, dataset="cdd11")
    found = evaluate(small_restorer(recipe), recipe, samples, None, device="cpu")
    assert not found.published_test_set
    (tmp_path / "own.html").write_text(render_page(found))
    browser.get((tmp_path / "own.html").as_uri())
    assert not browser.find_element(By.ID, "beside-section").is_displayed()
    report = replace(found, published_test_set=True)
    (tmp_path / "report.html").write_text(render_page(report))
    resize(browser, width, 800)
    browser.get((tmp_path / "report.html").as_uri())
    table = browser.find_element(By.ID, "beside")
    head = table.find_elements(By.TAG_NAME, "th")[1]
    assert head.text == "average"
    assert head.rect["x"] + head.rect["width"] <= width
    rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
    averages = [row.find_elements(By.TAG_NAME, "td")[1].text for row in rows]
    assert averages[-2].split() == ["30.40", "0.889"]


@pytest.mark.browser
def test_other_trainings_and_a_photograph_stand_on_the_page(browser, tmp_path):
    from PIL import Image

    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    samples = make_samples(1)
    # The other one is left as it came: it restores nothing.
    for name, seed in (("other", 1), ("mine", 0)):
        restorer = small_restorer(recipe, seed)
        restorer.save_pretrained(tmp_path / name / "model", recipe=recipe)
    other = evaluate(
        small_restorer(recipe, 1), recipe, samples, None, out=tmp_path / "r1", device="cpu",
        checkpoint=tmp_path / "other" / "model", with_pictures=False,
    )  # fmt: skip
    files = []
    for name, value in (("degraded", 20), ("restored", 60), ("clean", 90)):
        files.append(tmp_path / f"{name}.png")
        Image.new("RGB", (24, 16), (value, value, value)).save(files[-1])
    mine = evaluate(
        small_restorer(recipe, 0), recipe, samples, None, out=tmp_path / "r2", device="cpu",
        checkpoint=tmp_path / "mine" / "model", with_pictures=False,
        beside=[read_report(tmp_path / "r1")],
    )  # fmt: skip
    add_photograph(tmp_path / "r2", *files)
    browser.get((tmp_path / "r2" / "report.html").as_uri())
    cells = [c.text for c in browser.find_elements(By.CSS_SELECTOR, "#others tbody tr + tr td")]
    difference = mine.summary.average["psnr"] - other.summary.average["psnr"]
    assert cells[0] == "other"
    assert cells[1] == f"{other.summary.average['psnr']:.2f}"
    assert cells[2] == f"{difference:+.2f}".replace("-", "−")
    assert browser.find_element(By.CSS_SELECTOR, "#photograph .card .id").text == "degraded"
    assert browser.find_element(By.ID, "others-section").is_displayed()


def test_what_a_class_is_called():
    assert class_words("low_haze_rain") == "low light + haze + rain"
    assert class_words("noise-25") == "noise σ 25"
    assert class_words("my_own_class") == "my_own_class"
    assert class_words("low_rain-only-rain") == "low light + rain: rain taken away, the rest kept"
    names = partial_classes("low_haze_rain")
    assert len({class_words(name) for name in (*names, "low_haze_rain")}) == 7
    kinds = [name for name, _ in terms([], ["low_rain-only-rain"])]
    assert kinds[-2:] == ["low light", "rain"]


def test_the_page_refers_to_nothing_outside(page):
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in text


def test_hostile_names_are_escaped_in_the_source(hostile):
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    report = evaluate(small_restorer(recipe), recipe, hostile, None, device="cpu")
    text = render_page(report)
    assert text.count("</script>") == 2
    assert "<img src=x" not in text


def test_shown_scenes_are_the_same_in_every_class():
    samples = make_samples(30)
    chosen = [samples.samples[i] for i in sorted(choose(samples))]
    scenes = {}
    for sample in chosen:
        scenes.setdefault(sample.label, []).append(sample.scene)
    assert len(chosen) == 12
    assert len({tuple(found) for found in scenes.values()}) == 1


def shown_scenes(samples):
    scenes = {}
    for i in sorted(choose(samples)):
        scenes.setdefault(samples.samples[i].label, set()).add(samples.samples[i].scene)
    return scenes


@pytest.mark.parametrize(("lacking", "number"), [(("00", "03"), 4), (("00", "03", "04"), 3)])
def test_scenes_that_one_class_lacks_are_shown_of_none(lacking, number):
    samples = make_samples(6)
    left = [s for s in samples if s.label != "low" or s.scene not in lacking]
    scenes = shown_scenes(replace(samples, samples=tuple(left)))
    assert [len(scenes[label]) for label in ("low", "rain", "low_rain")] == [number, 4, 4]
    assert (scenes["low"] == scenes["rain"] == scenes["low_rain"]) == (number == 4)


@pytest.mark.parametrize("fewer", [0, 1])
def test_the_page_says_that_scenes_are_the_same_only_where_they_are(unguided, fewer):
    restorer, recipe = unguided
    samples = make_samples(2)
    judged = replace(samples, samples=samples.samples[fewer:])
    report = evaluate(restorer, recipe, judged, None, device="cpu")
    assert f'"same_scenes":{json.dumps(not fewer)}' in render_page(report)


@pytest.mark.parametrize("scenes", [1, 3, 4, 5, 6, 7, 200])
def test_as_many_scenes_are_shown_as_there_is_room_for(scenes):
    assert len(choose(make_samples(scenes, {"low": {"low": 0.5}}))) == min(4, scenes)


def test_pictures_keep_to_their_budget():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, 700, 900, 3), dtype=np.uint8)
    shown = encode("noise", *noise, budget=60_000)
    assert sum(len(part or b"") for part in shown.parts.values()) <= 60_000
    small = encode("small", *noise[:, :40, :50], budget=BUDGET)
    assert (small.width, small.height) == (50, 40)


def test_error_map_is_black_without_error_and_grows_lighter():
    clean = np.full((4, 4, 3), 100, np.uint8)
    maps = [error_map(clean + np.uint8(d), clean)[0, 0].astype(int).sum() for d in (0, 10, 40, 80)]
    assert maps[0] <= 4
    assert maps == sorted(maps)
    assert len(set(maps)) == 4
