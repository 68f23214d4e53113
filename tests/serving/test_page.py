"""The page in a browser (Debian's chromium, or Playwright's own): each tab, the keyboard, a phone, hostile texts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bothways.serving.app import Access
from tests.serving.conftest import Live, fake_model

playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
expect = playwright_api.expect
TABS = ("classify", "tag", "answer", "zero-shot", "fill", "similarity", "inside")
TOKEN = "a-token-of-some-length"
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\"'><svg/onload=window.hacked=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except playwright_api.Error as error:
            pytest.skip(f"no browser: apt-get install chromium ({str(error).splitlines()[0]})")
        yield made
        made.close()


@pytest.fixture
def open_page(browser) -> Iterator[Any]:
    """Opens a page of a server, which may ask nobody else and must not write an error to its console."""
    contexts, wrong = [], []

    def make(live, path="/", wait=True, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda one: wrong.append(one.url) if not one.url.startswith(live.url) else None)
        page.on("console", lambda one: wrong.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(live.url + path)
        if wait:
            page.locator("#tabs [aria-selected=true], main.docs section, main > .notice").first.wait_for()
        return page

    yield make
    for context in contexts:
        context.close()
    # An answer that tells of a mistake is an error for the console.
    assert [one for one in wrong if "the server responded with a status of 4" not in one] == []


def panel(page, tab):
    page.get_by_role("tab").and_(page.locator(f"#tab-{tab}")).click()
    return page.locator(f"#panel-{tab}")


def run(opened):
    opened.get_by_role("button", name="Run").click()
    opened.locator("ul.meta").wait_for()


@pytest.mark.parametrize("tab", TABS)
def test_an_example_is_one_click_away(live, open_page, tab):
    opened = panel(open_page(live), tab)
    opened.locator(".examples button").nth(1).click()
    opened.locator("ul.meta").wait_for()
    expect(opened.locator("ul.meta")).to_contain_text("round trip")
    expect(opened.locator("ul.meta")).to_contain_text("window")
    assert opened.locator(".bars li, mark, .tokens li").count() > 1


def test_classes_are_bars_with_their_share(live, open_page):
    opened = panel(open_page(live), "classify")
    opened.get_by_label("Text", exact=True).fill("a great film")
    run(opened)
    best = opened.locator(".bars li.best")
    expect(best).to_contain_text("POSITIVE")
    share = float(best.locator(".value").inner_text().removesuffix(" %"))
    bar = best.locator(".bar").bounding_box()["width"] / best.bounding_box()["width"]
    assert bar == pytest.approx(share / 100, abs=0.02)


def test_entities_are_where_they_are_also_after_other_characters(live, open_page):
    opened = panel(open_page(live), "tag")
    opened.get_by_label("Text", exact=True).fill("😀😀 Tim Cook lives in Cupertino.")
    run(opened)
    marks = opened.locator("mark")
    assert [one.split("\n")[0] for one in marks.evaluate_all("all => all.map(one => one.firstChild.data)")] == [
        "Tim Cook",
        "Cupertino",
    ]
    tip = marks.first.locator(".tip")
    expect(tip).to_be_hidden()
    marks.first.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("PER, 9")


def test_the_answer_is_lit_in_the_passage_and_others_can_be_chosen(live, open_page):
    opened = panel(open_page(live), "answer")
    run(opened)
    expect(opened.locator(".text mark")).to_have_text("Maurice Koechlin and Émile Nouguier")
    second = opened.locator(".bars button").nth(1)
    second.click()
    expect(opened.locator(".text mark")).to_have_text(second.inner_text())


def test_labels_are_chips_that_the_keyboard_makes_and_removes(live, open_page):
    opened = panel(open_page(live), "zero-shot")
    add = opened.get_by_label("Labels: add one")
    add.focus()
    for _ in range(4):
        add.press("Backspace")
    expect(opened.locator(".chip")).to_have_count(0)
    add.type("weather")
    add.press("Enter")
    add.type("travel, sports")
    add.press("Enter")
    expect(opened.locator(".chip")).to_have_count(3)
    opened.get_by_role("button", name="Remove travel").click()
    opened.get_by_role("button", name="Remove sports").press("Enter")
    opened.get_by_label("Text", exact=True).fill("Bake it for twenty minutes.")
    add.type("cooking")  # and no Enter: it counts as it is
    run(opened)
    expect(opened.locator(".bars li")).to_have_count(2)
    expect(opened.locator(".bars li.best")).to_contain_text("cooking")


def test_a_click_on_a_word_masks_it_and_a_guess_fills_it(live, open_page):
    opened = panel(open_page(live), "fill")
    text = opened.get_by_label("Text", exact=True)
    text.fill("The cat sat on the mat.")
    opened.locator(".words").get_by_role("button", name="sat", exact=True).click()
    expect(text).to_have_value("The cat [MASK] on the mat.")
    run(opened)
    guess = opened.locator(".bars button").nth(1)
    word = guess.inner_text()
    guess.click()
    expect(text).to_have_value(f"The cat {word} on the mat.")
    opened.locator(".words").get_by_role("button", name="cat", exact=True).click()
    expect(text).to_have_value(f"The [MASK] {word} on the mat.")
    opened.locator(".words").get_by_role("button", name="cat, masked").click()
    expect(text).to_have_value(f"The cat {word} on the mat.")


def test_two_masks_have_bars_each(live, open_page):
    opened = panel(open_page(live), "fill")
    opened.get_by_role("button", name="Two masks").click()
    expect(opened.get_by_role("heading", name="Mask 2")).to_be_visible()


def test_similar_sentences_come_first(live, open_page):
    opened = panel(open_page(live), "similarity")
    run(opened)
    expect(opened.locator(".bars li").first).to_contain_text("A kitten is lying on the couch.")


def test_a_token_shows_its_place_in_the_text(live, open_page):
    opened = panel(open_page(live), "inside")
    opened.get_by_role("button", name="Accents").click()
    opened.locator(".tokens button", has_text="cafe").click()
    expect(opened.locator(".text mark")).to_have_text("café")
    expect(opened.get_by_text("id 7668, type id 0, characters 10 to 14")).to_be_visible()


@pytest.fixture(scope="module")
def live_attentive(attentive) -> Iterator[Live]:
    with Live(attentive.app) as running:
        yield running


def shares_of(opened) -> list[float]:
    texts = opened.locator(".tokens .share").evaluate_all("all => all.map(one => one.textContent)")
    return [float(text.removeprefix("attention ").removesuffix(" %")) / 100 for text in texts]


def test_a_token_shades_the_others_by_their_share_of_its_attention(live_attentive, open_page):
    opened = panel(open_page(live_attentive), "inside")
    opened.get_by_label("Text", exact=True).fill("a great film")
    opened.get_by_label("Second text").fill("well acted")
    run(opened)
    body = {"model": "tiny", "text": "a great film", "text_pair": "well acted", "attentions": True}
    answer = opened.page.request.post(f"{live_attentive.url}/v1/tokenize", data=body).json()
    expected = np.array(answer["attentions"])
    film = next(place for place, token in enumerate(answer["tokens"]) if token["token"] == "film")
    tokens = opened.locator(".tokens button")
    tokens.nth(film).click()
    np.testing.assert_allclose(shares_of(opened), expected[-1, :, film].mean(0), atol=0.00051)
    opened.get_by_label("Layer").select_option("1")
    opened.get_by_label("Head").select_option("3")
    row = expected[0, 2, film]
    np.testing.assert_allclose(shares_of(opened), row, atol=0.00051)
    assert not np.allclose(row, expected[-1, :, film].mean(0), atol=0.001), "all alike: nothing is compared"
    grounds = tokens.evaluate_all("all => all.map(one => getComputedStyle(one).getPropertyValue('--share'))")
    np.testing.assert_allclose([float(one.removesuffix("%")) for one in grounds], 100 * row / row.max(), atol=0.01)
    expect(opened.get_by_text(f"film attends most to {answer['tokens'][int(row.argmax())]['token']} ")).to_be_visible()
    tokens.first.focus()
    tokens.first.press("Enter")
    expect(tokens.first).to_have_attribute("aria-pressed", "true")
    np.testing.assert_allclose(shares_of(opened), expected[0, 2, 0], atol=0.00051)
    opened.locator("summary").click()
    expect(opened.locator("tbody tr").first.locator("td").nth(2)).to_have_text(f"{100 * expected[0, 2, 0, 0]:.1f} %")


def test_a_share_is_seen_when_pointed_at_and_always_read_out(live_attentive, open_page):
    opened = panel(open_page(live_attentive), "inside")
    run(opened)
    tokens = opened.locator(".tokens button")
    tokens.nth(1).click()
    third = tokens.nth(2)
    expect(third).to_have_accessible_name(re.compile(r" · \d attention \d+\.\d %$"))
    shown = "one => getComputedStyle(one.querySelector('.share')).clipPath"
    assert third.evaluate(shown) == "inset(50%)"
    third.hover()
    assert third.evaluate(shown) == "none"


def test_a_model_without_attentions_has_one_line_that_says_how_to_get_them(live_attentive, open_page):
    opened = panel(open_page(live_attentive), "inside")
    line = opened.get_by_text("bothways export DIR --attentions")
    expect(opened.get_by_label("Attention, for up to 32 tokens")).to_be_checked()
    expect(line).to_be_hidden()
    opened.get_by_label("Model").select_option("fake")
    expect(line).to_be_visible()
    run(opened)
    expect(opened.get_by_label("Layer")).to_have_count(0)
    opened.get_by_label("Model").select_option("tiny")
    opened.get_by_role("textbox", name="Text", exact=True).fill("a great film " * 20)
    opened.get_by_role("button", name="Run").click()
    expect(opened.get_by_role("alert")).to_contain_text("expected at most 32; send a shorter text")
    opened.get_by_label("Attention, for up to 32 tokens").uncheck()
    run(opened)
    expect(opened.locator(".tokens button")).to_have_count(62)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_axe_finds_nothing_in_attention(live_attentive, open_page, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    size = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = open_page(live_attentive, "/#inside", **size)
    opened = page.locator("#panel-inside")
    opened.get_by_label("Text", exact=True).fill(HOSTILE[:30])
    run(opened)
    opened.locator(".tokens button").last.click()
    opened.locator("summary").click()
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    assert page.locator("#main img").count() == 0


def test_a_long_text_says_in_how_many_windows_it_was_read(live, open_page):
    opened = panel(open_page(live), "classify")
    opened.get_by_label("Text", exact=True).fill("a great film. " * 400)
    run(opened)
    expect(opened.locator("ul.meta")).to_contain_text("4 windows")


def test_what_is_wrong_is_said(live, open_page):
    opened = panel(open_page(live), "classify")
    opened.get_by_label("Text", exact=True).fill("")
    opened.get_by_role("button", name="Run").click()
    expect(opened.get_by_role("alert")).to_have_text("input 0: the text is empty")


@pytest.mark.parametrize("tab", TABS)
def test_no_text_becomes_html(live, open_page, tab):
    page = open_page(live)
    opened = panel(page, tab)
    for field in opened.locator("textarea, input[type=text]:not([aria-label])").all():
        if field.is_visible():
            field.fill(HOSTILE + (" [MASK]" if tab == "fill" else ""))
    if tab == "zero-shot":
        opened.get_by_label("Labels: add one").fill(HOSTILE[:60])
    opened.get_by_role("button", name="Run").click()
    opened.locator("ul.meta, [role=alert]").first.wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#main img, #main script, #main svg").count() == 0


def test_the_files_make_no_html_of_texts():
    from bothways.serving.page import NAMES, _file

    for name in NAMES:
        content = _file(name).content.decode()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
            found = content.replace("http://www.w3.org/2000/svg", "")
            assert forbidden not in found, (name, forbidden)


def test_the_keyboard_reaches_everything(live, open_page):
    page = open_page(live)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the form")).to_be_focused()
    page.locator("#tab-classify").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-tag")).to_be_focused()
    expect(page.locator("#panel-tag")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#panel-inside")).to_be_visible()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel-classify")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="A good review")).to_be_focused()
    text = page.locator("#panel-classify").get_by_label("Text", exact=True)
    text.focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#panel-classify ul.meta")).to_be_visible()


def test_the_address_opens_a_tab(live, open_page):
    page = open_page(live, "/#fill")
    expect(page.locator("#panel-fill")).to_be_visible()
    page.locator("#tab-tag").click()
    assert page.url.endswith("#tag")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
@pytest.mark.parametrize("tab", [*TABS, "docs"])
def test_axe_finds_nothing(live, open_page, tab, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    size = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = open_page(live, "/docs" if tab == "docs" else f"/#{tab}", **size)
    if tab == "docs":
        page.locator("summary").first.click()
    else:
        run(page.locator(f"#panel-{tab}"))
        for summary in page.locator(f"#panel-{tab} summary").all():
            summary.click()
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"


def test_light_and_dark(live, open_page):
    page = open_page(live, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark mode").click()
    assert page.evaluate(ground) != light
    page.get_by_role("button", name="Light mode").click()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("tab", TABS)
def test_the_code_does_what_the_page_did(live, open_page, tab):
    opened = panel(open_page(live), tab)
    if tab == "classify":
        opened.get_by_label("Text", exact=True).fill('it\'s a "great" film\\n: ü 😀 $HOME `x`')
    code = opened.locator("pre code")
    curl = code.inner_text()
    opened.get_by_role("button", name="Python").click()
    python = code.inner_text()
    if shutil.which("curl"):
        done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=60)
        assert "error" not in json.loads(done.stdout)
    done = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("[{")


def test_copying(live, open_page):
    page = open_page(live, permissions=["clipboard-read", "clipboard-write"])
    opened = panel(page, "classify")
    opened.get_by_role("button", name="Copy").click()
    expect(opened.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl http")


def test_a_token_is_asked_for(serve, open_page):
    client = serve(fake_model(), access=Access(TOKEN))
    with Live(client.app) as live:
        page = open_page(live, wait=False)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.keyboard.press("Enter")
        opened = panel(page, "similarity")
        run(opened)
        assert TOKEN not in page.content()
        expect(opened.locator("pre code")).to_contain_text("Bearer $TOKEN")


def test_a_tab_without_a_model_tells_how_to_get_one(serve, open_page):
    client = serve()
    with Live(client.app) as live:
        page = open_page(live, "/#classify")
        expect(page.locator("#panel-classify")).to_contain_text("bothways serve sentiment")
        run(panel(page, "similarity"))
