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
    """A committed ablation table, its headings as bold lines."""
    text = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"^#+ (.*)$", r"**\1**", text.strip(), flags=re.M)


def fill(path: Path, name: str, text: str) -> None:
    """Replace what stands between a pair of marks."""
    page = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not pattern.search(page):
        raise SystemExit(f"{path}: no marks for {name}")
    path.write_text(pattern.sub(lambda m: f"{m.group(1)}\n{text}\n\n{m.group(2)}", page), encoding="utf-8")


def main() -> None:
    """Fill every pair of marks."""
    notes = ROOT / "docs" / "class-notes.md"
    for question in ("batch", "floor", "encoders"):
        fill(notes, question, table(f"class_notes_{question}"))
    fill(notes, "scan", table("scan"))
    readme = ROOT / "README.md"
    fill(readme, "train", table("train_dense"))
    fill(readme, "encode", table("encode_dense_scifact"))
    sparse = ROOT / "docs" / "sparse.md"
    for name in ("train_sparse", "encode_sparse", "sparse_terms", "sparse_scale"):
        fill(sparse, name, table(name))
    shown = ["documents", "engine", "setting", "recall@10", "cpu ms p50", "p99", "build cpu s", "bytes a posting"]
    fill(sparse, "sparse_search", table("sparse_search", shown, ("queries", "long")))
    late = ROOT / "docs" / "late.md"
    for name in ("multivector_search", "maxsim", "rerank"):
        fill(late, name, table(name))
    fill(ROOT / "docs" / "cascade.md", "ablation", ablation("cascade_study"))
    negatives = ROOT / "docs" / "negatives.md"
    fill(negatives, "study", ablation("negatives_study"))
    fill(negatives, "equal", ablation("negatives_equal"))
    for name in ("negatives_cost", "negatives_draws", "negatives_scale", "negatives_follow", "negatives_scale_128"):
        fill(negatives, name, table(name))
    for name in ("nystrom-landmarks", "nystrom-refresh"):
        fill(negatives, name, table(name))
    fill(ROOT / "docs" / "serving.md", "serve", table("serve"))
    for script in ("scripts/plot_scale.py", "scripts/bench_page.py", "benchmarks/plan_scale.py"):
        subprocess.run([sys.executable, str(ROOT / script)], check=True)
    if len(sys.argv) > 1:
        report = Path(sys.argv[1]).read_text(encoding="utf-8")
        fill(readme, "quickstart", re.sub(r"^#+ (.*)$", r"**\1**", report.strip(), flags=re.M))


if __name__ == "__main__":
    main()
