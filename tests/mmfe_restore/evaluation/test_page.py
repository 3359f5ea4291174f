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

from mmfe_restore.evaluation import evaluate
from mmfe_restore.evaluation.report.page import render_page
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
        assert browser.title == "small on mine/test"
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
    cells = browser.find_elements(By.CSS_SELECTOR, "#images tbody td")
    assert cells[1].text == "∞"
    assert [cell.text for cell in cells[-2:]] == ["–", "–"]
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


@pytest.mark.parametrize("scenes", [1, 3, 4, 5, 6, 7, 200])
def test_as_many_scenes_are_shown_as_there_is_room_for(scenes):
    assert len(choose(make_samples(scenes, {"low": {"low": 0.5}}))) == min(4, scenes)


def test_pictures_keep_to_their_budget():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, 700, 900, 3), dtype=np.uint8)
    shown = encode("noise", *noise, budget=60_000)
    assert shown.size <= 60_000
    small = encode("small", *noise[:, :40, :50], budget=BUDGET)
    assert (small.width, small.height) == (50, 40)


def test_error_map_is_black_without_error_and_grows_lighter():
    clean = np.full((4, 4, 3), 100, np.uint8)
    maps = [error_map(clean + np.uint8(d), clean)[0, 0].astype(int).sum() for d in (0, 10, 40, 80)]
    assert maps[0] <= 4
    assert maps == sorted(maps)
    assert len(set(maps)) == 4
