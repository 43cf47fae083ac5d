"""What the pages for users of other tools tell them to write is run, in order, on a toy collection with tiny models."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from flatcoat.app.cli import main
from flatcoat.app.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
LEFT_OUT = (
    "run",
    "push",
    "explain",
)  # trainings of their own kinds, which other tests run; and what leaves the machine
SHORT = [
    f"--set={said}"
    for said in (
        "training.steps=2",
        "training.batch=4",
        "training.warmup=0",
        "model.query_length=16",
        "model.document_length=32",
    )
]
RANDOM = ["--allow", "noise"]  # of a model whose weights are random
IN_SPANS, IN_BLOCKS = r"`flatcoat ([a-z]+ [^`]+)`", r"^    flatcoat ([a-z]+ .+)$"


def commands_of(page: Path) -> list[list[str]]:
    """The page's commands in order, without `flatcoat`."""
    found = re.finditer(f"{IN_SPANS}|{IN_BLOCKS}", page.read_text(encoding="utf-8"), re.M)
    return [shlex.split(match.group(1) or match.group(2)) for match in found]


def settings_of(page: Path) -> list[list[str]]:
    """The settings that a page's table has beside another tool's options."""
    spans = re.findall(r"`(--set [^`]+)`", page.read_text(encoding="utf-8"))
    return [words[1::2] for words in map(shlex.split, spans) if set(words[::2]) == {"--set"}]


def models(folder: Path, tiny: Path, tiny_mlm: Path) -> dict[str, Path]:
    """A tiny model of each kind by page and verb."""
    from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
    from flatcoat.models.cross_checkpoint import load_cross, save_cross

    save_late(load_late(str(tiny), LateOverrides(16)), folder / "late")
    save_cross(load_cross(str(tiny)), folder / "cross")
    return {"dense": tiny, "sparse": tiny_mlm, "late": folder / "late", "cross": folder / "cross"}


@pytest.fixture
def place(tmp_path, toy, monkeypatch):
    """A folder with what the pages take for given."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy, "my-collection")
    qrels = Path("my-collection/qrels/test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    Path("qrels.txt").write_text("".join(f"{q} 0 {d} {s}\n" for q, d, s in map(str.split, qrels)), encoding="utf-8")
    first = json.loads(Path("my-collection/corpus.jsonl").read_text(encoding="utf-8").splitlines()[0])
    Path("gone.txt").write_text(first["_id"] + "\n", encoding="utf-8")
    lines = [
        {
            "query_id": f"q{i}",
            "query": f"where does otter {i} live",
            "positive_passages": [{"docid": f"p{i}", "title": "", "text": f"otter {i} swims"}],
            "negative_passages": [{"docid": f"n{i}", "title": "", "text": f"heron {i} flies"}],
        }
        for i in range(8)
    ]
    Path("train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def kind_of(page: str, verb: str) -> str:
    """The kind of model that NAME is: what the page is of, a cross-encoder to re-rank with, term weights once there are vectors."""
    if page == "pylate":
        return "late"
    if verb == "rerank":
        return "cross"
    return "sparse" if page == "pyserini" and verb == "encode" and Path("vectors").exists() else "dense"


def called(words: list[str], monkeypatch) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["flatcoat", *words])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page, place, tiny, tiny_mlm, monkeypatch, capsys):
    kinds = models(place, tiny, tiny_mlm)
    done = 0
    for words in commands_of(page):
        if words[0] in LEFT_OUT or "my-recipe.toml" in words:
            continue
        if words[0] == "train":
            words = [str(ROOT / word) if word.startswith("recipes/") else word for word in words]
            words += [*SHORT, f"--set=model.start={tiny}"]
        kind = kind_of(page.stem, words[0])
        words = [str(kinds[kind]) if word == "NAME" else word for word in words]
        if words[0] == "index" and "inverted" in words:
            words += RANDOM
        if "--out" in words and (out := Path(words[words.index("--out") + 1])).is_dir():
            shutil.rmtree(out)
        assert called(words, monkeypatch) == 0, f"{page.name}: flatcoat {shlex.join(words)}: {capsys.readouterr().err}"
        done += 1
        if Path("run.trec").exists():
            for name in ("A", "B", "ours", "theirs"):
                shutil.copyfile("run.trec", f"{name}.trec")
    assert done >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_are_keys_of_a_recipe(page):
    for changes in settings_of(page):
        if all("." in change.split("=")[0] for change in changes):
            load_recipe(ROOT / "recipes" / "dpr.toml", changes)
