"""What the tests of the page have in common: a question, and how to wait for the page and to read it."""

from __future__ import annotations

import time
from pathlib import Path

from fake_service import FakeService

QUERY = "where does the badger live"
BADGER = "q=where+does+the+badger+live"
SHOTS = Path(__file__).parent / "shots"


def shown(page, column: int = 0) -> list[str]:
    """Ids of the hits of a column, in order."""
    return page.locator(".column").nth(column).locator(".hit").evaluate_all("hits => hits.map(hit => hit.dataset.id)")


def until(page, condition: str, seconds: float = 30.0) -> None:
    """Wait until a condition holds; playwright's own way evaluates text in the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"{condition}; the page says: {page.locator('main').inner_text()[:300]}"
        page.wait_for_timeout(20)


def settled(page) -> None:
    """Wait until every column has its answer."""
    until(page, "document.querySelector('.column') && !document.querySelector('[aria-busy=true]')")
    until(page, "document.querySelector('#status').textContent.endsWith('.')")


def ids(service: FakeService, name: str, k: int = 10, **body) -> list[str]:
    found = service.search({"query": QUERY, "retrievers": name.split("+"), "k": k, **body})
    return [hit["id"] for hit in found["results"][0]["hits"]]
