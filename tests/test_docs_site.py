"""The site builds without a warning, every link and anchor of it leads somewhere, and no page asks another host for anything."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}


class Seen(HTMLParser):
    """A page's ids, where its links lead, and what it loads by itself."""

    def __init__(self, html: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        said = {name: value or "" for name, value in attrs}
        self.ids |= {said[name] for name in ("id", "name") if name in said}
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        if tag in LOADED and LOADED[tag] in said:
            self.loads.append(said[LOADED[tag]])
        if tag == "link" and said.get("rel") not in ("prev", "next", "canonical"):
            self.loads.append(said["href"])


def broken(site: Path) -> tuple[list[str], set[str]]:
    """Links and anchors of a built site that lead nowhere; and the links that leave it, which are not fetched."""
    pages = {
        path: Seen(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "404.html"
    }
    wrong, outside = [], set()
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside |= {link} & set(page.links)
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{path.relative_to(site)}: {link}: no such anchor")
    return wrong, outside


def requested(site: Path) -> list[str]:
    """What pages and style sheets load from elsewhere."""
    found = []
    for path in site.rglob("*.html"):
        found += [f"{path.name}: {url}" for url in Seen(path.read_text(encoding="utf-8")).loads if urlsplit(url).netloc]
    for path in site.rglob("*.css"):
        css = path.read_text(encoding="utf-8")
        found += [f"{path.name}: {url}" for url in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]+)|@import", css)]
    return found


def load(name: str):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_site_is_whole(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material builds the site: pip install 'flatcoat[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=600)
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO")]
    assert done.returncode == 0, "\n".join(said[-20:])
    wrong, outside = broken(tmp_path / "site")
    assert not wrong, "\n".join(wrong)
    assert not requested(tmp_path / "site")
    assert any(link.startswith("https://arxiv.org/") for link in outside)
    made = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "api/index.html", "ideas/splade.html", "project/index.html"} <= made


def test_what_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there"></a><a href="#top"></a><a href="https://x.org/"></a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><a href="a.html#gone"></a><a href="c.html"></a><img src="d.svg">'
    )
    assert broken(tmp_path) == (
        ["b.html: a.html#gone: no such anchor", "b.html: c.html: no such file", "b.html: d.svg: no such file"],
        {"https://x.org/"},
    )
    assert not requested(tmp_path)
    (tmp_path / "b.html").write_text(
        '<script src="//cdn.x.org/a.js"></script><link rel="stylesheet" href="https://x.org/a.css">'
    )
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.x.org/a.woff2) }")
    assert len(requested(tmp_path)) == 3


def test_everything_public_says_what_it_is(monkeypatch, tmp_path):
    script = load("api_pages")
    assert set(script.pages()) == {f"{room}.md" for room in script.ROOMS}
    for room in ("objectives", "checks"):
        (tmp_path / room).mkdir()
    (tmp_path / "objectives" / "bare.py").write_text(
        '"""Said."""\n\n\ndef told() -> int:\n    """Give 1."""\n\n\ndef silent(): ...\n'
    )
    monkeypatch.setattr(script, "SOURCE", tmp_path)
    with pytest.raises(script.Undocumented, match="silent"):
        script.pages()


def test_what_the_api_shows_of_a_docstring():
    script = load("api_pages")
    doc = "Take a_b * 2 and <c>, as `a_b` does:\n\n    L = x_i * y_i\n\n* one [x]\n* two"
    doc += "\n\nRaises:\n    Misuse: where\n        it is not right."
    shown = script.markdown(doc)
    assert "Take a\\_b \\* 2 and \\<c>, as `a_b` does:" in shown
    assert "```text\nL = x_i * y_i\n```" in shown
    assert "* one \\[x\\]\n* two" in shown
    assert "**Raises:** Misuse: where it is not right." in shown


def test_the_page_of_keys_is_what_the_script_makes():
    script = load("recipe_docs")
    assert script.PAGE.read_text(encoding="utf-8") == script.recipes_markdown(), "run: make docs"


def test_a_key_without_a_meaning_is_an_error(monkeypatch, tmp_path):
    script = load("recipe_docs")
    text = script.MEANINGS.read_text(encoding="utf-8")
    for changed, named in ((re.sub(r"(?m)^temperature = .*\n", "", text, count=1), "training.temperature"),
                           (text.replace("[model]\n", '[model]\ncolour = "None."\n'), "model.colour")):  # fmt: skip
        (tmp_path / "recipe_keys.toml").write_text(changed, encoding="utf-8")
        monkeypatch.setattr(script, "MEANINGS", tmp_path / "recipe_keys.toml")
        with pytest.raises(KeyError, match=named):
            script.recipes_markdown()
