"""Every table in README and docs is a committed file, each file has a claim whose command exists, and a number that moved is found."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def loaded(name: str):
    if str(ROOT / "scripts") not in sys.path:
        sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables, reproduce, write_docs = loaded("claim_tables"), loaded("reproduce"), loaded("write_docs")


@pytest.fixture(scope="module")
def claims():
    return reproduce.Claims.read(ROOT / "benchmarks" / "claims.toml", ROOT / "benchmarks" / "results")


# what is claimed, and by which command


def test_every_table_between_marks_is_its_committed_file():
    said = write_docs.parts()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, inner in re.findall(r"<!-- ([\w-]+) -->\n(.*?)<!-- /\1 -->", text, re.S):
            where = page.relative_to(ROOT).as_posix(), name
            if where == ("docs/scale.md", "plan"):
                continue  # test_shards holds it to the script that computes it
            assert inner == f"\n{said[where]}\n\n", f"{where}; run: python scripts/write_docs.py"
            said.pop(where)
    assert not said, "marks that are gone"


def test_every_committed_file_has_a_claim_and_every_claim_a_file(claims):
    files = {path.stem for path in claims.results.iterdir()}
    assert files == set(claims.names())


def options_of(script: Path) -> set[str]:
    """The options that a script declares."""
    calls = [node for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    return {arg.value for call in named for arg in call.args if isinstance(arg, ast.Constant)}


def known_options(words: list[str]) -> set[str]:
    if words[0] == "python":
        assert (ROOT / words[1]).is_file(), words[1]
        return options_of(ROOT / words[1])
    from typer.main import get_command

    from flatcoat.app.cli import app

    assert words[0] == "flatcoat"
    return {name for parameter in get_command(app).commands[words[1]].params for name in parameter.opts}


def test_every_claims_command_exists_with_its_options(claims):
    made = [shlex.split(said["command"]) for said in claims.said["made"].values() if "command" in said]
    for words in [*map(claims.words, claims.names()), *made]:
        known = known_options(words)
        for word in words:
            assert not word.startswith("--") or word in known, f"{shlex.join(words)}: {word}"
            assert not word.startswith("recipes/") or (ROOT / word).is_file(), word


def test_every_claims_inputs_are_known(claims):
    values = {"collection", "--vectors", "--queries", "--stale", "--fresh", "--cache", "--work"}
    for name in claims.names():
        words = claims.words(name)
        for before, word in itertools.pairwise(words):
            if before in values and not word.isdigit():
                assert reproduce.reads(claims, [word]), f"{name}: {word}"
        assert "/" not in "".join(words).replace("benchmarks/", "").replace("negatives/", "").replace("recipes/", "")


def test_every_column_is_of_one_kind(claims):
    for name in claims.names():
        columns, headings = claims.columns(name), set()
        for found, rows in tables.read_results(claims.committed(name)).tables:
            headings |= set(found)
            assert tables.keyed(found, rows, columns)
        assert not headings - columns.named(), f"{name}: of what kind are {sorted(headings - columns.named())}?"
        assert not columns.named() - headings, f"{name} has no {sorted(columns.named() - headings)}"
        every = [*columns.keys, *columns.quality, *columns.speed, *columns.words, *columns.beside]
        assert len(every) == len(set(every)), name


def test_every_base_row_is_there(claims):
    for name in claims.names():
        columns = claims.columns(name)
        if columns.base is None:
            continue
        ((headings, rows),) = tables.read_results(claims.committed(name)).tables
        there = [dict(zip(headings, row, strict=False)) for row in rows]
        assert any(all(row[key] == value for key, value in columns.base.items()) for row in there), name


def test_a_table_is_the_same_as_itself(claims):
    for name in claims.names():
        own = tables.read_results(claims.committed(name))
        assert not tables.differences(own, own, claims.columns(name)), name


# what moved is found, and noise is not

OLD = """# a machine
# python benchmarks/x.py somewhere
# 5000 documents, 3 rounds
engine\tnDCG@10\trate\tleast\tthe heaviest
peer\t0.5000\t10.0\t9\ta b c d
ours\t0.5100\t20.0\t8\ta b c d
"""
COLUMNS = tables.Columns(
    ("engine",), {"nDCG@10": 0.002}, ("rate",), {"the heaviest": 1}, ("least",), {"engine": "peer"}
)


def found(new: str, tmp_path: Path, columns=COLUMNS, **options):
    (tmp_path / "old.tsv").write_text(OLD, encoding="utf-8")
    (tmp_path / "new.tsv").write_text(new, encoding="utf-8")
    old, other = (tables.read_results(tmp_path / f"{name}.tsv") for name in ("old", "new"))
    return tables.differences(old, other, columns, **options)


@pytest.mark.parametrize(
    ("was", "now", "kind", "column"),
    [
        ("0.5100", "0.5079", "quality", "nDCG@10"),
        ("0.5100", "0.5121", "quality", "nDCG@10"),
        ("0.5100", "nan", "quality", "nDCG@10"),
        ("0.5100", "", "quality", "nDCG@10"),
        ("20.0", "16.9", "speed", "rate"),
        ("20.0", "23.1", "speed", "rate"),
        ("8\ta b c d", "8\ta b x y", "words", "the heaviest"),
    ],
)
def test_a_number_that_moved_is_found(was, now, kind, column, tmp_path):
    (one,) = found(OLD.replace(was, now), tmp_path)
    assert (one.kind, one.column, one.row) == (kind, column, "ours")
    assert now.split("\t")[-1][:3] in one.line() or kind == "speed"


@pytest.mark.parametrize(
    ("was", "now"),
    [("0.5100", "0.5120"), ("0.5100", "0.5080"), ("20.0", "17.1"), ("20.0", "22.9"), ("8\ta b c d", "3\ta b c x")],
)
def test_noise_within_the_tolerance_is_not(was, now, tmp_path):
    assert not found(OLD.replace(was, now), tmp_path)


def test_a_slow_machine_cancels_out(tmp_path):
    slow = OLD.replace("20.0", "5.0").replace("10.0", "2.5")
    assert not found(slow, tmp_path)
    alone = tables.Columns(("engine",), {"nDCG@10": 0.002}, ("rate",), {}, ("least", "the heaviest"))
    assert [d.kind for d in found(slow, tmp_path, alone)] == ["speed", "speed"]


def test_rows_that_came_and_went_are_told(tmp_path):
    new = OLD.replace("ours", "theirs")
    assert [(d.kind, d.row) for d in found(new, tmp_path)] == [("gone", "ours"), ("new", "theirs")]
    assert [d.kind for d in found(OLD.rsplit("ours", 1)[0], tmp_path)] == ["gone"]
    assert not found(OLD.rsplit("ours", 1)[0], tmp_path, left_out=("our",))


def test_two_rows_of_one_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two rows peer"):
        found(OLD.replace("ours", "peer"), tmp_path)


def test_markdown_tables_are_read_one_by_one(tmp_path):
    page = (
        "# x: 10 documents, 376 documents/s, 28 of 10 documents\n\n| a | b |\n| --- | --- |\n| r | 0.5 ± 0.1 |\n\ntext\n\n"
        "| c | b | b |\n| --- | --- | --- |\n| s | 8% | −2 |\n"
    )
    (tmp_path / "x.md").write_text(page, encoding="utf-8")
    read = tables.read_results(tmp_path / "x.md")
    assert [table[0] for table in read.tables] == [("a", "b"), ("c", "b", "b 2")]
    assert read.sizes() == {"documents": {"10"}}
    (tmp_path / "y.md").write_text(page.replace("0.5 ±", "0.6 ±").replace("−2", "−3"), encoding="utf-8")
    columns = tables.Columns(("a", "c"), {"b": 0.01, "b 2": 0.5})
    moved = tables.differences(read, tables.read_results(tmp_path / "y.md"), columns)
    assert [(d.row, d.column) for d in moved] == [("r", "b"), ("s", "b 2")]
    with pytest.raises(ValueError, match="no table"):
        (tmp_path / "z.md").write_text("nothing", encoding="utf-8")
        tables.read_results(tmp_path / "z.md")


@pytest.mark.parametrize(
    ("cell", "value"), [("0.2163 ± 0.0059", 0.2163), ("+0.0745 [+0.06, +0.08]", 0.0745), ("-53.09%", -53.09), ("0.05× exact", 0.05),
                        ("3.5e+12", 3.5e12), ("54,229", 54229.0), ("< 0.001", 0.001)]
)  # fmt: skip
def test_the_number_of_a_cell(cell, value):
    assert tables.number(cell) == value


# the runner

LIST = """
[collections]
books = "from the library"

[made.first]
command = "python {write} {count} first"
minutes = 1

[claims.a]
command = "python {write} {table} OUT"
product = "OUT"
minutes = 1
keys = ["engine"]
quality = {{ "nDCG@10" = 0.002 }}
speed = ["rate"]
base = {{ engine = "peer" }}
words = {{ "the heaviest" = 1 }}
beside = ["least"]

[claims.b]
command = "python {write} {table} OUT books"
product = "OUT"
minutes = 2
keys = ["engine"]

[claims.c]
command = "python {fail} first"
minutes = 30
keys = ["engine"]
"""


@pytest.fixture
def place(tmp_path):
    """A list of three claims: one that can be made again, one that lacks its collection, one that fails."""
    results = tmp_path / "results"
    results.mkdir()
    for name in "abc":
        (results / f"{name}.tsv").write_text(OLD, encoding="utf-8")
    (tmp_path / "table.tsv").write_text(OLD, encoding="utf-8")
    (tmp_path / "write.py").write_text(
        "import pathlib, sys\nsource, target = map(pathlib.Path, sys.argv[1:3])\n"
        "log = source.parent / 'log'\nlog.write_text(log.read_text() + 'x' if log.exists() else 'x')\n"
        "target.write_text(source.read_text())\n"
    )
    (tmp_path / "fail.py").write_text("raise SystemExit('no such engine')")
    said = LIST.format(
        write=tmp_path / "write.py",
        table=tmp_path / "table.tsv",
        fail=tmp_path / "fail.py",
        count=tmp_path / "table.tsv",
    )
    (tmp_path / "claims.toml").write_text(said, encoding="utf-8")
    return tmp_path


def run(place: Path, *more: str) -> int:
    where = ["--claims", str(place / "claims.toml"), "--results", str(place / "results"), "--out", str(place / "out")]
    return reproduce.main([*where, *more])


def outcomes(place: Path, capsys, *more: str) -> tuple[int, dict[str, dict]]:
    status = run(place, "--json", *more)
    return status, {one["name"]: one for one in json.loads(capsys.readouterr().out)}


def test_same_missing_and_failed_are_told(place, capsys):
    status, seen = outcomes(place, capsys)
    assert {name: one["status"] for name, one in seen.items()} == {"a": "same", "b": "missing input", "c": "failed"}
    assert "from the library" in seen["b"]["why"] and "no such engine" in seen["c"]["why"]
    assert status == 1
    assert outcomes(place, capsys, "--only", "a", "b")[0] == 0


def test_a_moved_quality_fails_and_a_moved_speed_does_not(place, capsys):
    (place / "table.tsv").write_text(OLD.replace("20.0", "40.0"), encoding="utf-8")
    status, seen = outcomes(place, capsys, "--only", "a")
    assert status == 0 and seen["a"]["status"] == "moved"
    assert "speed: ours, rate: 2 -> 4 (+100%)" in seen["a"]["lines"]
    (place / "table.tsv").write_text(OLD.replace("0.5100", "0.4100"), encoding="utf-8")
    status, seen = outcomes(place, capsys, "--only", "a", "--again")
    assert status == 1 and "quality: ours, nDCG@10: 0.5100 -> 0.4100 (-0.1, tolerance 0.002)" in seen["a"]["lines"]
    assert run(place, "--only", "a") == 1
    assert "quality moved, or failed: a" in capsys.readouterr().out


def test_other_inputs_are_not_held_against_a_claim(place, capsys):
    (place / "table.tsv").write_text(OLD.replace("0.5100", "0.4100").replace("5000", "5001"), encoding="utf-8")
    status, seen = outcomes(place, capsys, "--only", "a")
    assert (status, seen["a"]["status"], seen["a"]["why"]) == (0, "other inputs", "documents: 5000 -> 5001")


def test_what_is_done_is_not_done_again_until_the_claim_changes(place, capsys):
    for _ in range(3):
        assert outcomes(place, capsys, "--only", "a")[1]["a"]["status"] == "same"
    assert (place / "log").read_text() == "x"
    (place / "results" / "a.tsv").write_text(OLD.replace("0.5100", "0.6100"), encoding="utf-8")
    assert outcomes(place, capsys, "--only", "a")[1]["a"]["status"] == "moved"
    assert (place / "log").read_text() == "xx"


def test_what_is_made_first_is_made_once(place, capsys):
    outcomes(place, capsys, "--only", "c")
    outcomes(place, capsys, "--only", "c")
    assert (place / "log").read_text() == "x"


def test_quick_and_within_choose_by_minutes(place, capsys):
    assert set(outcomes(place, capsys, "--quick")[1]) == {"a", "b"}
    _, seen = outcomes(place, capsys, "--within", "2.5", "--again")
    assert seen["c"]["status"] == "no time" and seen["a"]["status"] == "same"


def test_the_list_says_what_is_there(place, capsys):
    (place / "books").mkdir()
    assert run(place, "--list", "--collections", str(place)) == 0
    text = capsys.readouterr().out
    assert "books            there" in text and "    31 min  c" in text
    with pytest.raises(SystemExit) as stop:
        run(place, "--only", "nothing")
    assert stop.value.code == 2 and "no claim nothing; there are a, b, c" in capsys.readouterr().err


# numbers in sentences that come from a table


def cell(name: str, column: str, **keys: str) -> float:
    """A committed number."""
    for headings, rows in tables.read_results(
        reproduce.Claims({}, ROOT / "benchmarks" / "results").committed(name)
    ).tables:
        for row in rows:
            cells = dict(zip(headings, row, strict=False))
            if all(cells.get(key) == value for key, value in keys.items()) and column in cells:
                return tables.number(cells[column])
    raise KeyError(f"{name}: {column} of {keys}")


def of_negatives(*names: str) -> list[float]:
    return [cell("negatives_study", "nDCG@10", negatives=name) for name in names]


def share_won_back(least: float, own: float, most: float) -> float:
    return (own - least) / (most - least)


CACHE, SOFT, ALL = of_negatives("cache 1 %", "dynnibal", "exhaustive")
BEST, TOP, TENTH = of_negatives("dynnibal, best", "exhaustive, top 20", "stochastic 10 %")
STEPS = [cell("negatives_equal", "steps", negatives=name) for name in ("in-batch", "dynnibal, best")]
IVF = [cell("scan", "change", index=f"ivf of 10 cells nprobe={n}") for n in (1, 5)]
PRECISE = {name: [cell("encode_dense_scifact", column, engine=f"flatcoat-{name}") for column in ("least cosine", "change, %")]
           for name in ("bf16", "int8")}  # fmt: skip
GAMMA = cell("negatives_draws", "γ guaranteed", method="mh", members="uniform", clusters="1000")
TERMS = "cascade_study", "training s"
SENTENCES = [
    ("negatives", f"({CACHE:.4f}, {SOFT:.4f}, {ALL:.4f})", round(share_won_back(CACHE, SOFT, ALL), 1) == 0.8),
    ("negatives", f"({CACHE:.4f}, {BEST:.4f}, {TOP:.4f})", round(3 * share_won_back(CACHE, BEST, TOP)) == 2),
    ("negatives", f"{share_won_back(TENTH, BEST, TOP):.0%}".replace("%", " %"), True),
    ("negatives", "with nearly four times the steps", 3.8 < STEPS[0] / STEPS[1] < 4),
    ("negatives", "have γ of 10¹⁰", 1e10 <= GAMMA < 1e11),
    ("class-notes", f"loses {-IVF[0]:.0f} % of", True),
    ("class-notes", f"still loses {-IVF[1]:.1f} %", True),
    ("class-notes", "(p .0003)", cell("class_notes_floor", "p", run="linear, floor 0.1") == 0.0003),
    ("class-notes", "(p .048 against", round(cell("class_notes_floor", "p", run="constant, floor 1.0"), 3) == 0.048),
    *[("fast", f"vectors {cosine:.6f}, nDCG@10 {change:+.2f} %", True) for cosine, change in PRECISE.values()],
    ("cascade", "counts 865 s; the others 234 and 278 s", cell(*TERMS, variant="full") == (865 + 234 + 278) / 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "sentence", "holds"), SENTENCES, ids=[f"{page}: {said}" for page, said, _ in SENTENCES]
)
def test_numbers_in_sentences_are_those_of_the_tables(page, sentence, holds):
    text = " ".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split())
    assert sentence in text and holds
