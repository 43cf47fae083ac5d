"""The page on file formats names every format with its version, every golden folder, its files and the facts of its manifest."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
GOLDEN = sorted(path for path in (ROOT / "tests" / "golden").iterdir() if re.search(r"-\d+$", path.name))
OUTER = {"format", "version", "files", "sha256"}  # said in the text


def test_every_format_has_its_version():
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        found |= set(re.findall(r'^\w+, VERSION = "(flatcoat-[\w-]+)", (\d+)$', path.read_text(encoding="utf-8"), re.M))
    assert len(found) >= 8
    for name, version in found:
        assert re.search(rf"^## .*`{name}` {version}$", PAGE, re.M), f"{name} {version}"
    assert len(re.findall(r"^## .*`flatcoat-[\w-]+` \d+$", PAGE, re.M)) == len(found)


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_golden_folders_are_described(folder):
    assert f"`{folder.name}`" in PAGE
    if not (folder / "manifest.json").is_file():  # of another tool's layout, or one file
        return
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for fact in set(manifest) - OUTER - {"documents", "splits"}:
        assert f"`{fact}`" in PAGE, f"{folder.name}: {fact}"
    for name in manifest["files"]:
        if folder.name.startswith("collection"):
            name = "documents/" if name.split("/")[0] in ("documents", "queries") else "judgements/SPLIT.npy"
        assert f"`{name}`" in PAGE, f"{folder.name}: {name}"
