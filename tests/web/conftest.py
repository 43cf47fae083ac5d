"""A real browser, the toy service, and a page that watches for what must not happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_service import FakeService
from looking import SHOTS

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no chromium at {CHROMIUM}")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[FakeService]:
    """The toy service, without faults."""
    with FakeService() as service:
        yield service


@pytest.fixture
def open_page(browser: Any, service: FakeService) -> Iterator[Any]:
    """A function that opens the page at an address, in a size and a theme; at the end no request has left the origin."""
    contexts, seen, complaints = [], [], []

    def open_(address: str = "", width: int = 1440, height: int = 960, theme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: seen.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if "Content Security" in m.text else None)
        page.goto(f"{service.address}/{address}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert seen and all(url.startswith(service.address + "/") for url in seen), seen
    assert not complaints, complaints


@pytest.fixture
def shot() -> Any:
    """A function that keeps what a page looks like, for a person."""
    SHOTS.mkdir(exist_ok=True)
    return lambda page, name: page.screenshot(path=SHOTS / f"{name}.png", animations="disabled")
