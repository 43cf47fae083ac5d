"""The page for everybody: by keyboard alone, on a phone, in both themes, and as axe sees it."""

from __future__ import annotations

import pytest
from fake_service import LEGS
from looking import BADGER, QUERY, settled, shown


def test_the_keyboard_does_everything(open_page, service, shot):
    page = open_page()
    page.locator("#retrievers button").first.wait_for()
    press, focused = page.keyboard.press, lambda: page.evaluate("document.activeElement.closest('.hit')?.dataset.id")
    press("2")
    press("1")
    assert page.locator(".chip[aria-pressed=true]").all_inner_texts() == ["scan\n2"]
    press("3")
    press("/")
    page.keyboard.type(QUERY)
    assert page.locator("#box").input_value() == QUERY, "letters and digits are typed in the box"
    press("Enter")
    settled(page)
    press("ArrowDown")
    first, second = shown(page), shown(page, 1)
    assert focused() == first[0]
    press("j")
    press("ArrowDown")
    press("k")
    assert focused() == first[1]
    press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('.hit').dataset.column") == "sparse"
    assert focused() == (first[1] if first[1] in second else second[1])
    press("e")
    page.get_by_role("table", name="Terms that both have").wait_for()
    shot(page, "keyboard")
    press("Escape")
    assert focused() == (first[1] if first[1] in second else second[1]), "the focus comes back"
    press("Enter")
    page.get_by_role("dialog").wait_for()
    press("Escape")
    press("m")
    page.get_by_role("dialog", name="What scan missed").wait_for()
    press("Escape")
    press("?")
    page.get_by_role("dialog", name="Keys").get_by_label("single letters").uncheck()
    press("Escape")
    press("/")
    assert page.evaluate("document.activeElement.id") != "box", "single keys can be switched off"


def test_tab_reaches_everything_and_focus_is_seen(open_page):
    page = open_page(f"?{BADGER}&r=scan")
    settled(page)
    names = []
    for _ in range(25):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        assert (
            page.evaluate(
                "getComputedStyle(document.activeElement.closest('.box') ?? document.activeElement).outlineStyle"
            )
            != "none"
        )
    for name in (
        "Skip to results",
        "box",
        "exact\n1",
        "rerank",
        "Filter",
        "What was missed m",
        "The beaver",
        "kind page",
    ):
        assert any(name in found for found in names), (name, names)


def test_a_phone_has_one_column_at_a_time(open_page, service, shot):
    from playwright.sync_api import expect

    page = open_page(f"?{BADGER}&r=exact,sparse,late&fuse=rank", 360, 740)
    settled(page)
    expect(page.locator(".column:visible")).to_have_count(1)
    page.get_by_role("tab", name="sparse").click()
    assert page.get_by_role("tabpanel", name="sparse").is_visible() and page.locator(".column:visible").count() == 1
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text() == "late"
    shot(page, "phone")
    page.locator(".hit:visible .title").first.click()
    page.locator(".heat").wait_for()
    for selector in ("html", "#drawer"):
        wide, there = page.evaluate(
            "s => { const n = document.querySelector(s); return [n.scrollWidth, n.clientWidth]; }", selector
        )
        assert wide <= there, selector
    shot(page, "phone-why")
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 1200, "height": 800})
    expect(page.locator(".column:visible")).to_have_count(4)
    assert page.get_by_role("tab").count() == 0


def test_light_and_dark_follow_the_system_and_the_switch(open_page, shot):
    page = open_page(f"?{BADGER}&r=exact,sparse", theme="dark")
    settled(page)
    light = "(c => c[0] + c[1] + c[2])(getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number))"
    assert page.evaluate(light) < 150
    shot(page, "dark")
    page.get_by_role("button", name="light theme").click()
    assert page.evaluate(light) > 650
    page.reload()
    assert page.evaluate(light) > 650, "the choice is kept"


def test_motion_is_left_out_where_it_is_not_wanted(open_page):
    page = open_page(f"?{BADGER}")
    settled(page)
    page.keyboard.press("?")
    moves = "getComputedStyle(document.querySelector('#drawer')).animationName"
    assert page.evaluate(moves) == "arrive"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moves) == "none"


def violations(page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.wait_for_timeout(250)  # the drawer has arrived
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:120]} {node['failureSummary'][:200]}" for v in found for node in v["nodes"]]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(open_page, service, theme, width):
    page = open_page("", width, 900, theme)
    page.locator(".introduction").wait_for()
    found = {"empty": violations(page)}
    for name in LEGS:
        page.goto(f"{service.address}/?{BADGER}&r={name}&f=kind:page")
        settled(page)
        page.locator(".title").first.click()
        page.locator(".leg").first.wait_for()
        found[f"why {name}"] = violations(page)
    page.goto(f"{service.address}/?{BADGER}&r=exact,scan,sparse&fuse=rank&rerank=10")
    settled(page)
    page.locator(".hit:visible .title").first.focus()
    found["columns"] = violations(page)
    page.keyboard.press("m")
    page.locator(".missed").wait_for()
    found["missed"] = violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    found["keys"] = violations(page)
    page.keyboard.press("Escape")
    page.locator("#filter summary").click()
    found["filter"] = violations(page)
    service.status = 503
    page.goto(f"{service.address}/?{BADGER}")
    page.locator(".problem").wait_for()
    found["refused"] = violations(page)
    service.key = "k"
    page.reload()
    page.locator("#key").wait_for()
    found["locked"] = violations(page)
    assert not any(found.values()), {state: told for state, told in found.items() if told}
