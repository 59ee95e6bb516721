"""The page of a comparison in headless Chromium: by mouse, by keys, on a phone, closed and opened again."""

import os
import shutil

import pytest

from nex_merge.compare.page import write_page
from nex_merge.compare.sheets import read_sheets
from nex_merge.runs.preferred import tally
from tests.compare.compared import chat, opened
from tests.labels.answered import answer_run

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None and os.environ.get("NEX_MERGE_BROWSER") != "required":
    pytest.skip("the page is tested in Chromium, which is not installed", allow_module_level=True)

from playwright.sync_api import sync_playwright  # noqa: E402

HOSTILE = "</script><script>throw x</script><img src=x onerror=alert()> \x1b[m \u202e & \"quoted\" '{{ x }}' so"


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM is not None, "NEX_MERGE_BROWSER=required, but Chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def found(chats):
    answer_run(chats, lambda v, p: f"{chat(v, p)}\n{HOSTILE}" if p != 11 else "the same")
    return opened(chats, "0", "base")


@pytest.fixture
def file(found, tmp_path):
    assert write_page(found, tmp_path / "judge.html") == 11
    return tmp_path / "judge.html"


@pytest.fixture
def open_page(browser, file):
    """Opens the page; fails on any error and on any request beyond the file."""
    contexts, faults = [], []

    def new_page(width=1280, context=None):
        context = context or browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on(
            "request", lambda r: faults.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
        )
        page.goto(file.as_uri())
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert faults == []


def saved(page, path):
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    return download.value.suggested_filename


def test_nothing_on_it_says_whose_an_answer_is(file):
    text = file.read_text()
    for name in ("0000", "base", "first", "second", "swap", "seed"):
        assert name not in text.replace("scrollTo", ""), name


def test_keys_and_buttons_give_a_file_that_the_run_counts(open_page, found, tmp_path):
    page = open_page()
    assert page.text_content("#place") == "Prompt 1 of at most 11"
    left, right = page.text_content("#left"), page.text_content("#right")
    first = found.questions()[0]
    assert (left, right) == (first.left, first.right) and "\x1b" not in left and "<img" in left
    page.keyboard.press("1")
    page.click("[data-said=right]")
    page.keyboard.press("3")
    assert page.text_content("#place") == "Prompt 4 of at most 11" and not page.is_visible("#about p")
    page.keyboard.press("u")
    assert "you said: Both good" in page.text_content("#place")
    page.keyboard.press("4")
    page.fill("#judge", 'Ann "the judge" 1')
    assert saved(page, tmp_path / "back.csv") == f"{found.comparison.id}-Ann-the-judge-1.csv"
    read = read_sheets(found, [tmp_path / "back.csv"], None)
    assert [one.prompt for one in read] == list(found.comparison.order[:3])
    assert read[0] == found.judgement(first.prompt, 'Ann "the judge" 1', "left") and read[2].better == "neither"


def test_a_reload_loses_nothing(open_page):
    page = open_page()
    page.keyboard.press("2")
    page.fill("#judge", "Ann")
    page.reload()
    assert page.text_content("#place") == "Prompt 2 of at most 11" and page.input_value("#judge") == "Ann"
    other = open_page(context=page.context)
    assert other.text_content("#place") == "Prompt 2 of at most 11"


def test_at_the_end_it_asks_for_the_file(open_page, found, tmp_path):
    page = open_page()
    assert page.is_disabled("#save") and page.is_disabled("#back")
    for _ in range(11):
        page.keyboard.press("1")
    assert page.is_visible("#end") and not page.is_visible("#question")
    assert page.evaluate("document.activeElement.id") == "save" and page.is_disabled("[data-said=left]")
    page.keyboard.press("1")
    saved(page, tmp_path / "back.csv")
    kept = found.keep(*read_sheets(found, [tmp_path / "back.csv"], None))
    assert len(tally(found.run.path, kept.comparison).outcomes) == 11


def test_on_a_phone_the_answers_stand_one_above_the_other_and_all_keys_fit(open_page):
    page = open_page(390)
    left, right = (page.locator("article").nth(i).bounding_box() for i in (0, 1))
    assert right["y"] >= left["y"] + left["height"] and right["x"] == left["x"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("[data-said]").all():
        box = button.bounding_box()
        assert box["y"] + box["height"] <= 800 and box["height"] >= 44 and button.is_visible()
    wide = open_page(1280)
    left, right = (wide.locator("article").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"] and abs(left["width"] - right["width"]) < 1


def test_everything_has_a_name_for_screen_readers(open_page):
    page = open_page()
    names = page.eval_on_selector_all("button", "all => all.map(one => one.textContent.trim())")
    assert all(names) and page.get_by_label("Your name").is_visible()
    page.keyboard.press("1")
    assert page.evaluate("document.activeElement.id") == "prompt-title", "the next prompt is read out"
