"""A report in a browser: bars that answer, tables that sort and are copied, both themes, a phone, paper; nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from flatcoat.app.html.charts import Dot, bars_chart
from flatcoat.app.html.page import Figure, Report
from flatcoat.app.html.queries import Answers, queries_section
from flatcoat.app.html.systems import dots_figure
from flatcoat.app.html.tables import Table

SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).map(t => {
    const svg = t.closest('svg');
    return parseFloat(t.getAttribute('font-size')) * svg.getBoundingClientRect().width / svg.getAttribute('width');
}))"""  # pixels of the smallest letters of a chart, as it is shown
MARKUP = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A report of three systems over 260 queries, markup in every text."""
    rng = np.random.default_rng(0)
    ids = [f"q{i}" for i in range(260)]
    values = {
        name: dict(zip(ids, rng.random(260).round(3).tolist(), strict=True)) for name in ("before", "after", "other")
    }
    best = {
        name: (lambda queries, n=name: {q: [f"{n}-{q}-{j}" for j in range(5)] for q in queries})
        for name in ("before", "after")
    }
    answers = Answers("nDCG@10", values, {**best, "other": None}, {q: {f"after-{q}-0": 2, "never": 0} for q in ids},
                      lambda q: f"{MARKUP} {q}", lambda d: (f"{MARKUP} {d}", MARKUP))  # fmt: skip
    report = Report(MARKUP, MARKUP, [(MARKUP, "1.0", MARKUP)])
    section = report.section("Quality").figure(dots_figure("Dots", [Dot(MARKUP, 0.5, 0.4, 0.6), Dot("b", 0.2)], "m"))
    section.table("Systems", Table(["system", "m"], [["b", "10.5"], ["a", "9"], ["c", ""], [MARKUP, "< 0.5"]]))
    section.figure(Figure("Half", lambda n, t, w: bars_chart(n, t, [("a", 1)], w), Table(["a"], [["1"]])), half=True)
    queries_section(report.section("Queries"), answers, "after", "before")
    return report.write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser, page_file):
    """Open the page at a width and theme; what it said on its console, and what it asked for, are held to nothing at the end."""
    contexts, errors, asked = [], [], []

    def open_(width: int = 1100, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors
    assert {url for url in asked if not url.startswith("blob:")} == {page_file.as_uri()}


def bars(page):
    return page.locator(".wide svg.pressed .bar")


def test_a_bar_shows_its_query_and_what_each_system_found(opened):
    page = opened()
    assert bars(page).count() == 200
    bars(page).nth(3).click()
    answer = page.locator(".answer")
    heading = answer.locator("h3").inner_text()
    assert heading.startswith(MARKUP) and page.evaluate("window.hit") is None
    query = heading.split()[-1]
    found = answer.locator(".pair > div").nth(0).locator("li")
    assert found.count() == 5 and f"after-{query}-0" in found.nth(0).inner_text()
    assert "good" in found.nth(0).get_attribute("class") and "(grade 2)" in answer.locator("ul").first.inner_text()
    assert "its run is not in the folder" in answer.locator("details").text_content()
    said = float(answer.locator(".note").first.inner_text().split()[-1].replace("−", "-"))
    assert bars(page).nth(3).get_attribute("aria-label").endswith(f"{said:+.3f}".replace("-", "−"))


def test_bars_are_gone_along_by_keys_and_tab_passes_them_once(opened):
    page = opened()
    bars(page).first.focus()
    first = page.locator(".answer h3").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".answer h3").inner_text() != first
    page.keyboard.press("End")
    assert bars(page).last.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Home")
    assert page.locator(".answer h3").inner_text() == first
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.bar')") is None


def test_another_pair_of_systems_sorts_the_bars_anew(opened):
    page = opened()
    was = bars(page).first.get_attribute("aria-label")
    page.locator("select[data-side=plus]").select_option(label="other")
    labels = [bars(page).nth(i).get_attribute("aria-label") for i in range(0, 200, 20)]
    values = [float(label.rsplit(" ", 1)[1].replace("−", "-")) for label in labels]
    assert labels[0] != was and values == sorted(values, reverse=True)
    tall = [float(bars(page).nth(i).locator(".v").get_attribute("height")) for i in (0, 100)]
    assert tall[0] > tall[1]


def test_a_header_sorts_numbers_as_numbers_and_a_table_is_copied(opened):
    page = opened()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    table = page.locator(".table", has=page.get_by_role("button", name="system")).first
    first = lambda: [table.locator("tbody tr").nth(i).locator("th").inner_text() for i in range(4)]  # noqa: E731
    table.get_by_role("button", name="m", exact=True).click()
    assert first() == ["b", "a", MARKUP, "c"]
    table.get_by_role("button", name="m", exact=True).click()
    assert first() == [MARKUP, "a", "b", "c"] and table.locator("th[aria-sort=ascending]").count() == 1
    table.get_by_role("button", name="Copy LaTeX").click()
    page.wait_for_function("document.getElementById('said').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("\\begin{tabular}{lr}")


def test_a_chart_is_downloaded_as_it_is_drawn(opened):
    page = opened()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download Dots as SVG").click()
    text = Path(waiting.value.path()).read_text()
    assert waiting.value.suggested_filename == "dots.svg" and text.startswith("<svg") and 'width="940"' in text
    assert "var(" not in text and "#1f5fa8" not in text and "#5f6b7a" in text  # its own colours


@pytest.mark.parametrize("width", [1100, 400, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_or_theme_is_unreadable(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure .narrow svg").first.is_visible() == (width < 700)
    assert page.locator("figure .wide svg").first.is_visible() == (width >= 700)
    size = page.evaluate(SMALLEST)
    assert size > 9.5
    colour = lambda text: [int(c) for c in re.findall(r"\d+", text)[:3]]  # noqa: E731
    ink, soft, paper = (
        colour(page.evaluate(f"getComputedStyle(document.querySelector('{what}')).{how}"))
        for what, how in (("body", "color"), (".note", "color"), ("body", "backgroundColor"))
    )
    assert contrast(ink, paper) > 7 and contrast(soft, paper) > 4.5
    mark = colour(page.evaluate("getComputedStyle(document.querySelector('.f-c1')).fill"))
    assert contrast(mark, paper) > 4.5
    assert (sum(paper) < 384) == (scheme == "dark")


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG's ratio of two colours."""

    def light(colour: list[int]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_halves_stand_beside_one_another_only_where_there_is_room(browser, tmp_path):
    report = Report("t")
    section = report.section("s")
    for name in ("one", "two"):
        section.figure(Figure(name, lambda n, t, w: bars_chart(n, t, [("a", 1)], w), Table(["a"], [["1"]])), half=True)
    path = report.write(tmp_path / "r.html")
    for width, beside in ((1100, True), (400, False)):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        tops = [page.locator(f"#{name}").bounding_box()["y"] for name in ("one", "two")]
        assert (tops[0] == tops[1]) == beside
        page.close()


def test_paper_is_light_and_without_buttons(opened):
    page = opened(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and not page.get_by_role("button", name="Copy LaTeX").first.is_visible()
    assert page.locator("figure .wide svg").first.is_visible()
    assert len(page.pdf()) > 10_000


def test_nobody_finds_a_violation(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for scheme in ("light", "dark"):
        page = opened(scheme=scheme)
        bars(page).nth(1).focus()
        found = axe.Axe().run(page)
        assert not found.response["violations"], found.generate_report()
