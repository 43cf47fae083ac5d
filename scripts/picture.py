"""Make the README's pictures of the page, light and dark: a served run, a real question, retrievers side by side.

    python scripts/picture.py runs/quickstart [--query "remove duplicate rows"] [--retrievers scan,bm25,sparse]

Wants playwright and a Chromium at /usr/bin/chromium, and a machine that does nothing else: latencies are in the picture. The run is opened
read-only; docs/images/ is what is written.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1440, 900
MOST = 200_000  # bytes of a picture


@contextmanager
def served(folder: Path) -> Generator[str, None, None]:
    """The address of a service of its own, until it is not needed any more."""
    command = [sys.executable, "-m", "flatcoat", "serve", str(folder), "--port", "0", "--read-only"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr
        line = ""
        for line in running.stderr:
            found = re.search(r"documents by .* at (http://\S+?)/?$", line.strip())
            if found:
                yield found[1]
                return
        raise SystemExit(f"flatcoat serve {folder} ended before it was ready: {line.strip()}")
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def picture(browser: Any, address: str, theme: str) -> bytes:
    """The page with its answers, as PNG."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, device_scale_factor=1.25)
    page.goto(address)
    page.locator(".hit").first.wait_for()
    page.goto(address)  # the first answers pay for what is compiled and read once
    page.locator(".column").nth(1).wait_for()  # nothing evaluated: the page's policy forbids it
    page.locator(".hit").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # the last column, and what is drawn behind it
    return page.screenshot(animations="disabled")


def smaller(png: bytes) -> bytes:
    """The same picture in as many colours as it needs, of at most 256."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        out = io.BytesIO()
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Serve, ask, look, write."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--query", default="remove duplicate rows")
    parser.add_argument("--retrievers", default="scan,bm25,sparse")
    given = parser.parse_args()
    asked = urlencode({"q": given.query, "r": given.retrievers, "fuse": "rank"})
    IMAGES.mkdir(exist_ok=True)
    with served(given.folder) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            made = smaller(picture(browser, f"{address}/?{asked}", theme))
            if len(made) > MOST:
                raise SystemExit(f"the {theme} picture has {len(made)} bytes; want at most {MOST}")
            (IMAGES / f"page-{theme}.png").write_bytes(made)
            sys.stdout.write(f"docs/images/page-{theme}.png: {len(made):,} bytes\n")
        browser.close()


if __name__ == "__main__":
    main()
