"""The page of benchmarks is what its script makes of the committed results, all of them, and its charts are whole."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bench_page", ROOT / "scripts" / "bench_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_page"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(script):
    text, charts = script.page()
    assert script.PAGE.read_text(encoding="utf-8") == text, "run: make docs"
    assert {path.name for path in script.CHARTS.glob("*.svg")} == set(charts)
    for name, drawing in charts.items():
        assert (script.CHARTS / name).read_text(encoding="utf-8") == drawing, f"{name}; run: make docs"
        assert f"](benchmarks/{name})" in text


def test_every_result_has_its_place(script):
    placed = {name for question in script.QUESTIONS for name in script.names_of(question)}
    assert {path.stem for path in script.RESULTS.glob("*.tsv")} == placed


def test_charts_are_whole_and_have_dark_colours(script):
    for name, drawing in script.page()[1].items():
        tree = ET.fromstring(drawing)
        text = "".join(tree.itertext())
        assert "prefers-color-scheme: dark" in text, name
        used = set(re.findall(r'class="([^"]+)"', drawing))
        for one in {part for names in used for part in names.split()}:
            assert f".{one}{{" in text, f"{name}: {one} has no dark colour"


def test_what_is_not_measured_is_said(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    text, charts = script.page()
    assert not charts
    assert text.count("Not measured yet") == len(script.QUESTIONS)


def test_dark_colours_are_the_reports(script):
    css = (ROOT / "src" / "flatcoat" / "app" / "html" / "report.css").read_text(encoding="utf-8")
    dark = css.split("prefers-color-scheme: dark", 1)[1].split("}", 1)[0]
    for tone, colour in script.draw.DARK.items():
        assert f"--{tone}: {colour}" in dark, tone
