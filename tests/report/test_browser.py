"""The page in headless Chromium, used by mouse and by keyboard."""

import os
import shutil
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from nex_merge.report import write_report
from nex_merge.report.data import take_snapshot
from nex_merge.runs import files
from tests.report.planted import HOSTILE, plant, plant_work

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None and os.environ.get("NEX_MERGE_BROWSER") != "required":
    pytest.skip("the report is tested in Chromium, which is not installed", allow_module_level=True)

from playwright.sync_api import sync_playwright  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM is not None, "NEX_MERGE_BROWSER=required, but Chromium is not installed"
    with sync_playwright() as playwright:
        # Chromium's sandbox is not available to root; WebGL is rendered in software without a graphics card.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = plant(tmp_path_factory.mktemp("browser") / "run", 20)
    for number, row in enumerate(take_snapshot(run).rows[:8]):
        files.write_accuracy(run.path, row.trial, {"accuracy": 0.5 + number / 100, "source": "held out"})
    write_report(run, run.path / "report.html", datetime.now(UTC), lambda note: None)
    return run


@pytest.fixture(scope="module")
def open_page(browser, run):
    """Opens the page; fails on any error and on any request beyond the file."""
    pages = []

    def new_page(width=1280, theme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: page.faults.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None,
        )
        page.goto((run.path / "report.html").as_uri())
        pages.append(page)
        return page

    yield new_page
    for page in pages:
        assert page.faults == []


@pytest.fixture(scope="module")
def page(open_page):
    return open_page()


def column(page, at):
    """The shown cells of a column of the leaderboard."""
    return page.eval_on_selector_all(
        "#leaderboard tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{at}].textContent)"
    )


def test_it_loads_with_every_figure_drawn(page):
    figures = page.eval_on_selector_all(".plot", "places => places.map(place => place.id)")
    assert figures == ["plot-history", "plot-accuracy", "plot-measure", "plot-parallel", "plot-front"]
    assert page.locator(".plot .main-svg").count() >= len(figures)
    assert page.locator("#plot-parallel .axis-title, #plot-parallel .axis").count() >= 5
    assert page.faults == []


def test_the_keyboard_reaches_everything(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    named = "e => (e.labels?.[0] || e).textContent.trim() || e.getAttribute('aria-label')"
    controls = page.locator("main button, main select, main input, main summary")
    assert all(controls.nth(at).evaluate(named) for at in range(min(controls.count(), 40)))
    # Whatever scrolls can have the focus, so that arrow keys scroll it.
    scrolled = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0).length"
    assert page.eval_on_selector_all("main .scroll, main pre", scrolled) == 0
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_responses_are_escaped(page):
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
    rows = page.locator("#phases .reading > pre").first.locator("span[title]").all_text_contents()
    assert "".join(rows).startswith(HOSTILE)


def test_sorting_by_mouse_and_keyboard(page):
    nex = page.locator("#leaderboard th[data-name='nex']")
    nex.locator("button").click()
    assert nex.get_attribute("aria-sort") == "descending"
    found = [float(cell) for cell in column(page, 3) if cell not in ("failed", "–")]
    assert found == sorted(found, reverse=True) and len(found) == 21
    assert column(page, 3)[-2:] == ["failed", "failed"]  # without a value: last in both directions
    nex.locator("button").focus()
    page.keyboard.press("Enter")
    assert nex.get_attribute("aria-sort") == "ascending"
    assert [float(cell) for cell in column(page, 3)[:-2]] == sorted(found) and column(page, 3)[-1] == "failed"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")  # trial: by number, names after
    assert column(page, 1) == [*map(str, range(20)), "base", "pairs", "signs"]
    assert page.locator("#leaderboard th[aria-sort]").count() == 1
    assert "Sorted by trial, ascending" in page.locator("#count").inner_text()
    page.locator("#leaderboard th[data-name='#'] button").click()


def test_filtering(page):
    page.locator("#state").select_option("failed")
    assert column(page, 1) == ["8", "18"] and "2 of 23 trials shown" in page.locator("#count").inner_text()
    page.locator("#state").select_option("")
    page.locator("#method").select_option("parent")
    assert sorted(column(page, 1)) == ["pairs", "signs"]
    page.locator("#method").select_option("")
    page.locator("#words").fill("repeats itself")
    assert sorted(column(page, 1)) == ["17", "7"]
    page.locator("#words").fill("")
    assert len(column(page, 1)) == 23


def test_choosing_columns(page):
    page.locator("#ranking summary").click()
    shown = page.locator("#leaderboard th:visible")
    few = shown.count()
    page.locator("#columns label", has_text="p.weight.a").locator("input").check()
    assert shown.count() == few + 1 and shown.last.inner_text().startswith("p.weight.a")
    page.locator("#all").click()
    assert shown.count() == page.locator("#leaderboard th").count() > few + 20
    page.locator("#few").click()
    assert shown.count() == few


def test_figures_follow_the_chosen_measure(page):
    page.locator("select[data-plot='plot-accuracy']").select_option(label="mean tokens")
    assert page.locator("#plot-accuracy .xtitle").text_content() == "mean tokens"
    assert page.locator("#plot-accuracy .ytitle").text_content() == "accuracy"


def test_the_theme_is_the_systems_until_it_is_chosen(page, open_page):
    paper = "getComputedStyle(document.querySelector('#plot-history .main-svg')).backgroundColor"
    body = "getComputedStyle(document.body).backgroundColor"
    light, light_paper = page.evaluate(body), page.evaluate(paper)
    page.locator("#theme").click()
    dark, dark_paper = page.evaluate(body), page.evaluate(paper)
    assert dark != light and dark_paper != light_paper
    assert page.locator("#theme").inner_text() == "Light theme"
    system = open_page(theme="dark")
    assert (system.evaluate(body), system.evaluate(paper)) == (dark, dark_paper)
    system.locator("#theme").click()
    assert (system.evaluate(body), system.evaluate(paper)) == (light, light_paper)
    page.locator("#theme").click()


def test_copying_the_recipe(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("[data-copy='recipe-text']").click()
    page.locator("#copy-status", has_text="Copied").wait_for(state="attached")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("# The same tensors: mergekit-yaml") and "merge_method: ties" in copied


def test_a_phone_scrolls_vertically_only(open_page):
    page = open_page(width=360)
    page.locator("#ranking summary").click()
    page.locator("#all").click()
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_have_enough_contrast(page, theme):
    """WCAG 2: 4.5 for text, 3 for marks, against the panel behind them."""
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    names = [
        "text",
        "muted",
        "link",
        "merge",
        "duplicate",
        "collapsed",
        "base",
        "parent",
        "pick",
        "best",
        "focus",
        "line",
    ]
    colours = page.evaluate(
        "names => Object.fromEntries(names.map(n => [n, getComputedStyle(document.documentElement)"
        ".getPropertyValue('--' + n).trim()]))", [*names, "panel"],
    )  # fmt: skip

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    panel = luminance(colours["panel"])
    for name in names:
        high, low = sorted((luminance(colours[name]), panel), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= (4.5 if name in ("text", "muted", "link") else 3), name


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_work_of_sixteen_workers_fits_and_follows_the_theme(browser, tmp_path_factory, width, theme):
    run = plant(tmp_path_factory.mktemp("work") / "run", 2)
    plant_work(run, 16)
    write_report(run, run.path / "report.html", datetime.now(UTC), lambda note: None)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.goto((run.path / "report.html").as_uri())
    lanes = page.locator("#plot-work .yaxislayer-above text")
    assert lanes.count() == 16 and lanes.all_text_contents()[:3] == ["worker 1", "worker 2", "worker 3 +1"]
    tops = [lanes.nth(at).bounding_box()["y"] for at in range(16)]
    assert all(below - above > 15 for above, below in pairwise(tops)), "each lane has a line of its own"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Each worker is there in both sessions, one of them again; two of the tries are a single bar.
    assert page.locator("#plot-work .barlayer path").count() == 16 * 2 + 1 + 4 * 190 + 2
    idle = page.locator("#plot-work .barlayer .trace").first.locator("path").first
    grid = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--grid').trim()")
    fill = [int(grid[at : at + 2], 16) for at in (1, 3, 5)]
    assert idle.evaluate("e => getComputedStyle(e).fill") == f"rgb({fill[0]}, {fill[1]}, {fill[2]})"
    assert page.evaluate("window.hacked") is None
    page.close()
