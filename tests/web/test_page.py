"""The page in a real browser, against the toy service: what is shown is what was answered, and what went wrong is told."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

import pytest
from fake_service import Toy, toy_documents
from looking import BADGER, QUERY, SHOTS, ids, settled, shown, until


def test_the_page_is_small_and_names_no_other_host():
    page = files("flatcoat.app.serve.page")
    contents = {
        f.name: f.read_bytes() for f in page.iterdir() if f.name.rsplit(".")[-1] in ("html", "js", "css", "svg")
    }
    assert {"index.html", "app.js", "style.css"} <= contents.keys()
    assert sum(map(len, contents.values())) < 60 * 1024
    for name, content in contents.items():
        assert content.decode().count("\n") <= 400, name
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(", content), name
    assert not re.search(rb"<style|<script>|\sstyle=|\son\w+=", contents["index.html"]), "the policy forbids it"


def test_typing_a_question_shows_what_was_answered(open_page, service, shot):
    page = open_page()
    page.get_by_role("heading", name="Ask, and see why").wait_for()
    page.get_by_label("Your question").fill(QUERY)
    begin = time.perf_counter()
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()
    seconds = time.perf_counter() - begin
    (SHOTS / "first-result.txt").write_text(f"{1000 * seconds:.0f} ms from Enter to the first result\n")
    shot(page, "one")
    settled(page)
    assert shown(page) == ids(service, "exact")
    assert page.get_by_role("status").first.inner_text() == "exact 10 results."
    assert page.title().startswith(QUERY)
    hit = page.locator(".hit[data-id=badger]")
    assert hit.get_by_role("heading", name="The badger").is_visible()
    marked = hit.locator("mark").all_inner_texts()
    assert set(marked) == {"badger", "lives", "live"}
    score = service.toy.dense(QUERY, service.toy.documents["badger"]["text"])
    assert f"{score:.4g}" in hit.locator(".score").inner_text()
    assert hit.locator(".fact").all_inner_texts()[:2] == ["kind page", "place woods"]


def test_columns_stand_side_by_side_and_say_how_a_document_moved(open_page, service):
    page = open_page(f"?{BADGER}")
    settled(page)
    page.get_by_role("button", name="sparse").click()
    settled(page)
    page.get_by_role("button", name="bm25").click()
    settled(page)
    assert page.locator(".column h2").all_inner_texts() == ["exact", "sparse", "bm25"]
    boxes = [page.locator(".column").nth(n).bounding_box() for n in range(3)]
    assert boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"] and boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    first, second = ids(service, "exact"), ids(service, "sparse")
    assert shown(page) == first and shown(page, 1) == second
    moves = page.locator(".column").nth(1).locator(".move").all_inner_texts()
    for rank, (id, move) in enumerate(zip(second, moves, strict=True)):
        by = first.index(id) - rank if id in first else None
        wanted = "new" if by is None else "=" if by == 0 else f"↑{by}" if by > 0 else f"↓{-by}"
        assert move.startswith(wanted), (id, move)
    page.get_by_role("button", name="late").click()
    assert "3 retrievers at most" in page.locator("#status").inner_text()
    assert page.locator(".column").count() == 3
    both = next(id for id in first if id in second)
    page.locator(f".hit[data-id='{both}']").first.hover()
    assert page.locator(".hit.same").evaluate_all("hits => hits.map(hit => hit.dataset.id)") == [both] * 3
    until(page, "document.querySelectorAll('svg.lines path').length === 2")


def test_filters_are_fields_and_values(open_page, service):
    page = open_page(f"?{BADGER}")
    settled(page)
    page.locator("#filter summary").click()
    page.get_by_label("Field").select_option("year")
    page.get_by_label("Value").fill("1990")
    page.get_by_role("button", name="Add", exact=True).click()
    settled(page)
    until(page, "document.querySelectorAll('.hit').length < 10")
    wanted = {id for id, d in toy_documents().items() if d["metadata"]["year"] == 1990}
    assert set(shown(page)) == wanted
    page.get_by_role("button", name="kind page").first.click()
    until(page, "document.querySelectorAll('.hit').length === 1")
    assert shown(page) == ["badger"]
    assert parse_qs(urlsplit(page.url).query)["f"] == ["year:1990", "kind:page"]
    page.get_by_role("button", name="Remove filter year = 1990").click()
    until(page, "document.querySelectorAll('.hit').length === 10")
    assert service.asked[-1][1]["filter"] == {"kind": {"in": ["page"]}}


def test_more_results_follow_and_the_address_keeps_how_many(open_page, service):
    page = open_page(f"?{BADGER}&r=exact,sparse")
    settled(page)
    page.get_by_role("button", name="More results").click()
    until(page, "document.querySelectorAll('.column:first-child .hit').length === 20")
    assert shown(page) == ids(service, "exact", 20) and shown(page, 1) == ids(service, "sparse", 20)
    ranks = page.locator(".column").first.locator(".hit .rank").all_inner_texts()
    assert ranks == [str(n) for n in range(1, 21)]
    assert page.evaluate("document.activeElement.closest('.hit').dataset.id") == ids(service, "exact", 11)[-1]
    again = open_page(urlsplit(page.url).query and "?" + urlsplit(page.url).query)
    settled(again)
    assert shown(again) == ids(service, "exact", 20)


def test_the_address_holds_the_view_and_back_works(open_page, service):
    page = open_page(f"?{BADGER}&r=sparse,bm25&fuse=score&f=kind:page")
    settled(page)
    assert page.locator(".column h2").all_inner_texts() == ["sparse", "bm25", "hybrid"]
    assert shown(page, 2) == ids(service, "sparse+bm25", fuse="score", filter={"kind": "page"})
    page.get_by_label("Your question").fill("what does the otter eat")
    page.keyboard.press("Enter")
    page.wait_for_url("**otter**")
    page.go_back()
    until(page, f"document.querySelector('#box').value === '{QUERY}'")
    settled(page)
    assert shown(page, 2) == ids(service, "sparse+bm25", fuse="score", filter={"kind": "page"})


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_told_once_and_can_be_tried_again(open_page, service, status):
    service.status = status
    page = open_page(f"?{BADGER}&r=exact,sparse")
    alert = page.locator(".problem")
    alert.wait_for()
    assert f"refused with {status}" in alert.inner_text() and page.locator(".column").count() == 0
    assert ("Try again in 2 s." in alert.inner_text()) == (status == 429)
    service.status = None
    page.get_by_role("button", name="Try again").click()
    settled(page)
    assert shown(page) == ids(service, "exact") and alert.count() == 0


def test_one_column_may_fail_alone(open_page, service, monkeypatch):
    real = service.ranking
    monkeypatch.setattr(
        service, "ranking", lambda name, *rest, **more: real("none" if name == "scan" else name, *rest, **more)
    )
    page = open_page(f"?{BADGER}&r=exact,scan")
    settled(page)
    assert shown(page) == ids(service, "exact")
    assert "no retriever 'none'" in page.locator(".column").nth(1).get_by_role("alert").inner_text()
    assert page.locator("#status").inner_text() == "exact 10 results, scan failed."


def test_a_server_that_is_away_is_said_to_be(open_page, service):
    page = open_page(f"?{BADGER}")
    settled(page)
    page.context.set_offline(True)
    page.get_by_label("Your question").press("Enter")
    page.get_by_text("The service does not answer.").wait_for()
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    settled(page)
    assert shown(page) == ids(service, "exact")


def test_a_key_is_asked_for_and_kept_for_the_tab(open_page, service):
    service.key = "s3cret"
    page = open_page(f"?{BADGER}")
    page.get_by_label("Key (kept").fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    until(page, "document.querySelector('#key')?.value === ''")
    page.get_by_label("Key (kept").fill("s3cret")
    page.keyboard.press("Enter")
    settled(page)
    assert shown(page) == ids(service, "exact")
    page.reload()
    settled(page)
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]
    assert "s3cret" not in page.url


def test_nothing_found_and_nothing_asked(open_page, service):
    page = open_page("?r=sparse")
    page.get_by_label("Your question").press("Enter")
    until(page, "document.querySelector('#status').textContent === 'Type a question first.'")
    assert not [path for path, _ in service.asked if path == "/v1/search"]
    page.keyboard.type("zzzzz")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing found.").wait_for()


def test_a_late_answer_does_not_take_the_place_of_a_newer(open_page, service):
    page = open_page()
    box = page.get_by_label("Your question")
    service.delay = 3.0  # so that the wait is seen on a busy machine too
    box.fill("what does the otter eat")
    page.keyboard.press("Enter")
    page.get_by_text("Searching …").first.wait_for()
    service.delay = 0.0
    box.fill(QUERY)
    page.keyboard.press("Enter")
    settled(page)
    page.wait_for_timeout(3500)
    assert shown(page) == ids(service, "exact")


def test_long_texts_are_cut_where_the_words_are(open_page, service):
    text = "Filler words go on. " * 200 + "Here the badger does live." + " And on they go." * 200
    service.toy.documents["long"] = {"id": "long", "title": "Long", "text": text, "metadata": {}}
    page = open_page(f"?{BADGER}&r=sparse")
    settled(page)
    seen = page.locator(".hit[data-id=long] .text").inner_text()
    assert "badger does live" in seen and len(seen) < 300 and seen.startswith("…") and seen.endswith("…")


def test_a_title_without_spaces_stays_in_its_column(open_page, service):
    service.toy.documents["badger"]["title"] = "where/badgers/live/" + "in_the_woods_" * 12
    page = open_page(f"?{BADGER}&r=exact,sparse,bm25")
    settled(page)
    beyond = """() => [...document.querySelectorAll(".hit .title")].map((title) =>
        title.getBoundingClientRect().right - title.closest(".column").getBoundingClientRect().right)"""
    assert max(page.evaluate(beyond)) <= 0


@pytest.mark.parametrize("query, text", [("東京の天気", "明日の東京は晴れ、天気は良い。"), ("badger's homes", "The home of a badger."),
                                         ("кошки", "Две кошки спят.")])  # fmt: skip
def test_words_are_marked_in_other_scripts(open_page, service, query, text):
    page = open_page()
    script = """async ([query, text]) => {
        const { matcher, marked } = await import(new URL("page/text.js", location));
        return marked(text, matcher(query)).filter((n) => n.tagName).map((n) => n.textContent); }"""
    found = page.evaluate(script, [query, text])
    assert found == {"東京の天気": ["東京", "天気"], "badger's homes": ["home", "badger"], "кошки": ["кошки"]}[
        query
    ] or (query == "東京の天気" and set(found) >= {"東京", "天気"})


def test_the_toy_service_scores_by_formula():
    toy = Toy()
    text = "The badger lives here."
    assert toy.late("badger lives", text) == pytest.approx(2.0)
    assert toy.dense(text, text) == pytest.approx(1.0)
    shared = toy.shared("badger", text)
    assert sum(term["share"] for term in shared) == pytest.approx(1.0)
    assert toy.sparse("badger", text) == pytest.approx(sum(term["query"] * term["document"] for term in shared))
