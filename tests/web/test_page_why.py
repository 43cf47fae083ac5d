"""Why a hit was found, and what the approximate index missed: the page's numbers are the service's."""

from __future__ import annotations

import re

import pytest
from fake_service import Refused, lost
from looking import BADGER, QUERY, ids, settled, shown


def test_a_hybrid_says_which_retriever_had_what(open_page, service):
    page = open_page(f"?{BADGER}&r=exact,sparse")
    settled(page)
    page.get_by_label("Hybrid").select_option("rank")
    settled(page)
    assert shown(page, 2) == ids(service, "exact+sparse", fuse="rank")
    hit = service.search({"query": QUERY, "retrievers": ["exact", "sparse"]})["results"][0]["hits"][0]
    ranks = " · ".join(f"{name} {hit['found_by'][name]['rank']}" for name in ("exact", "sparse"))
    assert page.locator(".column").nth(2).locator(".legs").first.inner_text() == ranks
    page.get_by_label("Re-rank").select_option("20")
    settled(page)
    searches = [body for path, body in service.asked if path == "/v1/search"][-3:]
    assert [body["rerank"] for body in searches] == [20, 20, 20]
    assert "rerank" in page.locator(".latency").first.inner_text()
    page.locator(".column").nth(2).locator(".title").first.click()
    drawer = page.get_by_role("dialog")
    drawer.get_by_text("Where each retriever had it").wait_for()
    assert drawer.locator("h3").all_inner_texts()[:2] == [
        t for t in drawer.locator("h3").all_inner_texts() if t.startswith(("exact", "sparse"))
    ]


@pytest.mark.parametrize("name", ["sparse", "bm25"])
def test_terms_explain_a_sparse_or_lexical_hit(open_page, service, name):
    page = open_page(f"?{BADGER}&r={name}")
    settled(page)
    page.locator(".hit[data-id=badger] .text").click(position={"x": 2, "y": 2})
    drawer = page.get_by_role("dialog", name="The badger")
    table = drawer.get_by_role("table", name="Terms that both have")
    table.wait_for()
    terms = service.toy.shared(QUERY, service.toy.documents["badger"]["text"])
    assert table.locator("tbody th").all_inner_texts() == [term["term"] for term in terms]
    first = table.locator("tbody tr").first.locator(".number").all_inner_texts()
    assert float(first[0]) == pytest.approx(terms[0]["query"], rel=1e-3)
    assert first[2] == f"{100 * terms[0]['share']:.0f}%"
    widths = table.locator("tbody tr td:last-child .fill").evaluate_all(
        "bars => bars.map(b => parseFloat(b.style.width))"
    )
    assert widths == pytest.approx([100 * term["share"] for term in terms], rel=1e-3)
    assert drawer.get_by_role("table", name="What the question became").count() == (name == "sparse")


def test_a_heat_map_explains_a_late_hit(open_page, service, shot):
    page = open_page(f"?{BADGER}&r=late")
    settled(page)
    page.locator(".hit .title").first.click()
    heat = page.get_by_role("table", name="Similarity of each token")
    heat.wait_for()
    similarities = service.toy.similarities(QUERY, service.toy.documents[shown(page)[0]]["text"])
    cells = heat.locator(".cell").all_text_contents()
    assert cells == [f"{value:.2f}" for row in similarities for value in row]
    bests = heat.locator(".cell.best").evaluate_all("cells => cells.map(c => c.dataset.at)")
    assert bests == [f"{n},{row.index(max(row))}" for n, row in enumerate(similarities)]
    heat.locator("[data-at='0,0']").hover()
    assert page.locator(".pair").inner_text().startswith("where × the")
    heat.locator(".cell[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    row, place = page.evaluate("document.activeElement.dataset.at").split(",")
    assert row == "1" and int(place) == similarities[0].index(max(similarities[0]))
    assert f"{similarities[1][int(place)]:.3f}" in page.locator(".pair").inner_text()
    sums = page.get_by_role("table", name="best match").locator(".number").all_inner_texts()
    assert sum(map(float, sums)) == pytest.approx(
        service.toy.late(QUERY, service.toy.documents[shown(page)[0]]["text"]), abs=5e-3
    )
    shot(page, "late")


def test_sentences_explain_a_dense_hit(open_page, service):
    page = open_page(f"?{BADGER}&r=exact")
    settled(page)
    page.locator(".hit[data-id=badger] .title").click()
    page.locator(".passages li").first.wait_for()
    wanted = service.explain({"query": QUERY, "retriever": "exact", "id": "badger"})["passages"]
    assert page.locator(".passages li > p:first-child").all_inner_texts() == [passage["text"] for passage in wanted]
    assert page.locator(".whole").inner_text() == service.toy.documents["badger"]["text"]


def test_what_the_approximate_index_missed(open_page, service, shot):
    page = open_page(f"?{BADGER}&r=exact,scan")
    settled(page)
    assert page.get_by_role("button", name="What was missed").count() == 1, "the exact retriever misses nothing"
    page.keyboard.press("m")
    drawer = page.get_by_role("dialog", name="What scan missed")
    drawer.locator(".missed li").first.wait_for()
    exact = ids(service, "exact")
    gone = [id for id in exact if lost(id)]
    assert gone and drawer.locator(".big").inner_text() == f"{100 - 10 * len(gone)}% of the true best 10"
    ranks = [int(re.sub(r"\D", "", text)) for text in drawer.locator(".missed .rank").all_inner_texts()]
    assert ranks == [exact.index(id) + 1 for id in gone]
    shot(page, "missed")
    drawer.locator(".missed .title").first.click()
    page.locator(".passages li").first.wait_for()
    assert page.locator(".whole").inner_text() == service.toy.documents[gone[0]]["text"]


def test_a_text_is_never_markup(open_page, service):
    text = '<img src=x onerror="document.title=1"> <b>badger</b> live & where'
    service.toy.documents["<i>"] = {"id": "<i>", "title": "<b>title</b>", "text": text, "metadata": {"kind": "<u>"}}
    page = open_page(f"?{BADGER}&r=sparse")
    settled(page)
    hit = page.locator(".hit", has=page.get_by_role("button", name="<b>title</b>"))
    assert hit.locator(".text").inner_text() == text and hit.locator("img, b, u").count() == 0
    hit.locator(".title").click()
    assert page.locator(".whole").inner_text() == text


def test_one_retriever_that_explains_nothing_does_not_hide_the_others(open_page, service, monkeypatch):
    real = service.explain

    def explain(body):
        if body["retriever"] == "late":
            raise Refused(400, "nothing to match")
        return real(body)

    monkeypatch.setattr(service, "explain", explain)
    page = open_page(f"?{BADGER}&r=sparse,late&fuse=rank")
    settled(page)
    page.locator(".column").nth(2).locator(".title").first.click()
    page.get_by_role("table", name="Terms that both have").wait_for()
    assert page.get_by_role("dialog").get_by_role("alert").all_inner_texts() == ["nothing to match"]
