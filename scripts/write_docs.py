"""Put the committed benchmark tables and the quickstart's report into README.md and the docs.

    python scripts/write_docs.py [runs/quickstart/report.md]

Each stands between marks, `<!-- NAME -->` and `<!-- /NAME -->`, so that a number in the docs is a number that a command printed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def table(name: str, columns: list[str] | None = None, where: tuple[str, str] | None = None) -> str:
    """A results file as Markdown, its machine and command below; `where` keeps rows of one value of a column."""
    lines = (ROOT / "benchmarks" / "results" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    notes = [line[2:] for line in lines if line.startswith("# ")]
    rows = [line.split("\t") for line in lines if not line.startswith("# ")]
    if where is not None:
        at = rows[0].index(where[0])
        rows = [rows[0], *(row for row in rows[1:] if row[at] == where[1])]
    wanted = [rows[0].index(c) for c in columns] if columns else range(len(rows[0]))
    cells = [[row[i] for i in wanted] for row in rows]
    body = ["| " + " | ".join(row) + " |" for row in [cells[0], ["---"] * len(wanted), *cells[1:]]]
    return "\n".join([*body, "", f"`{notes[1]}`; {'; '.join(notes[2:])}. {notes[0]}."])


def ablation(name: str) -> str:
    """A committed report of tables, its headings as bold lines."""
    text = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"^#+ (.*)$", r"**\1**", text.strip(), flags=re.M)


SHORT = ("BM25", "before, exact", "after, exact", "after, scan", "after, ivf-1-of-10", "sparse: after, inverted",
         "hybrid (BM25 + exact + sparse)")  # fmt: skip


def short(
    name: str, columns: tuple[str, ...] = ("system", "nDCG@10", "R@100", "Δ nDCG@10 (95 %)", "ms/query", "MB")
) -> str:
    """Some rows and columns of a committed report's first table, its collection above and its machine below."""
    lines = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8").strip().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2 : lines.index("", 2)]]
    shown = [table[0], table[1], *(row for system in SHORT for row in table if row[0] == system)]
    wanted = [table[0].index(column) for column in columns]
    body = ["| " + " | ".join(row[i] for i in wanted) + " |" for row in shown]
    return "\n".join([*body, "", f"{lines[0].lstrip('# ').replace('python::', '`python:`:')}. {lines[-1]}."])


def fill(path: Path, name: str, text: str) -> None:
    """Replace what stands between a pair of marks."""
    page = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not pattern.search(page):
        raise SystemExit(f"{path}: no marks for {name}")
    path.write_text(pattern.sub(lambda m: f"{m.group(1)}\n{text}\n\n{m.group(2)}", page), encoding="utf-8")


def parts() -> dict[tuple[str, str], str]:
    """What stands between each pair of marks, by page and name."""
    found: dict[tuple[str, str], str] = {}
    for name in ("batch", "floor", "encoders"):
        found["docs/class-notes.md", name] = table(f"class_notes_{name}")
    found["docs/class-notes.md", "scan"] = table("scan")
    found["README.md", "short"] = short("quickstart")
    found["README.md", "quickstart"] = ablation("quickstart")
    found["README.md", "train"] = table("train_dense")
    found["README.md", "encode"] = table("encode_dense_scifact")
    for name in ("train_sparse", "encode_sparse", "sparse_terms", "sparse_scale"):
        found["docs/sparse.md", name] = table(name)
    shown = ["documents", "engine", "setting", "recall@10", "cpu ms p50", "p99", "build cpu s", "bytes a posting"]
    found["docs/sparse.md", "sparse_search"] = table("sparse_search", shown, ("queries", "long"))
    for name in ("multivector_search", "maxsim", "rerank"):
        found["docs/late.md", name] = table(name)
    found["docs/cascade.md", "ablation"] = ablation("cascade_study")
    for name in ("study", "equal"):
        found["docs/negatives.md", name] = ablation(f"negatives_{name}")
    for name in ("negatives_cost", "negatives_draws", "negatives_scale", "negatives_follow", "negatives_scale_128"):
        found["docs/negatives.md", name] = table(name)
    for name in ("nystrom-landmarks", "nystrom-refresh"):
        found["docs/negatives.md", name] = table(name)
    found["docs/serving.md", "serve"] = table("serve")
    return found


def main() -> None:
    """Fill every pair of marks; a quickstart's report that is given is kept as the committed one first."""
    if len(sys.argv) > 1:
        (ROOT / "benchmarks" / "results" / "quickstart.md").write_bytes(Path(sys.argv[1]).read_bytes())
    for (page, name), text in parts().items():
        fill(ROOT / page, name, text)
    for script in ("scripts/plot_scale.py", "scripts/bench_page.py", "benchmarks/plan_scale.py"):
        subprocess.run([sys.executable, str(ROOT / script)], check=True)


if __name__ == "__main__":
    main()
