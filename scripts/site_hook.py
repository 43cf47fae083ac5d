"""What the site has beside the pages of docs/: the API from docstrings, the pages at the repository's root, and each file that a page
links to, shown whole. Links are those that GitHub reads; here they are turned to where the site has what they name.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import api_pages  # noqa: E402

LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
IN_HTML = re.compile(r"""((?:src|srcset|href)=")([^"\s#]+)((?:#[^"]*)?")""")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".md": "markdown"}


def place_of(path: str) -> str | None:
    """Where the site has a file or folder of the repository, None where there is none."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if not (ROOT / path).exists():
        return None
    return f"project/{path}" if "/" not in path and path.endswith(".md") else f"source/{path}.md"


def turned(text: str, origin: str, here: str, found: set[str]) -> str:
    """The text with its links as the site has them; `found` takes in the files that they lead to."""

    def one(match: re.Match[str]) -> str:
        target = match.group(2)
        if ":" in target or target.startswith("/"):
            return match.group(0)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        place = place_of(path)
        if place is None:
            return match.group(0)
        found.add(path)
        return match.group(1) + posixpath.relpath(place, posixpath.dirname(here) or ".") + match.group(3)

    return IN_HTML.sub(one, LINK.sub(one, text))


def shown(path: str) -> str:
    """A file of the repository as a page, a folder as a list of the files in it."""
    if (ROOT / path).is_dir():
        names = sorted(file.name for file in (ROOT / path).iterdir() if file.suffix in LANGUAGES)
        return f"# {path}\n\n" + "".join(f"* [{name}]({path}/{name})\n" for name in names)
    fence = "`````"
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n{fence}{language}\n{(ROOT / path).read_text(encoding='utf-8')}\n{fence}\n"


def on_files(files: Any, config: Any) -> Any:
    """Add what is made: the API, the root's pages, and what pages link to."""
    for name, text in api_pages.pages().items():
        files.append(File.generated(config, f"api/{name}", content=text))
    waiting = {path.name for path in ROOT.glob("*.md")}
    for file in list(files.documentation_pages()):
        if file.abs_src_path:
            origin = Path(os.path.relpath(file.abs_src_path, ROOT)).as_posix()
            turned(Path(file.abs_src_path).read_text(encoding="utf-8"), origin, file.src_uri, waiting)
    done: set[str] = set()
    while waiting - done:
        path = sorted(waiting - done)[0]
        done.add(path)
        place = place_of(path)
        if place is None or path.startswith("docs/"):
            continue
        if place.startswith("project/"):
            text = turned((ROOT / path).read_text(encoding="utf-8"), path, place, waiting)
        else:
            text = shown(path)
            text = turned(text, path, place, waiting) if (ROOT / path).is_dir() else text
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn a page's links to where the site has what they name."""
    if page.file.abs_src_path is None or not page.file.src_uri.endswith(".md") or page.file.generated_by:
        return markdown
    origin = Path(os.path.relpath(page.file.abs_src_path, ROOT)).as_posix()
    return turned(markdown, origin, page.file.src_uri, set())
