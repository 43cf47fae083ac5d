"""Write docs/benchmarks.md and the charts in docs/benchmarks/ from benchmarks/results/*.tsv.

    python scripts/bench_page.py

Every number on the page is one that a benchmark printed. What has not been measured is left out, with a line that says so.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_charts as draw  # noqa: E402
from write_docs import table  # noqa: E402

PAGE, CHARTS, RESULTS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks", ROOT / "benchmarks" / "results"
INTRO = """# Benchmarks

Each table is a file of `benchmarks/results/`, as the script named below it wrote it, with its command, settings and machine. Where it
says alternating rounds, each engine ran in processes of its own, in turns (A B A B), and a number is the median of the rounds, beside the
least and the most. This page is written by `scripts/bench_page.py`, and a test holds it to the files.

    make bench            # the short ones; plan for an hour on two cores
    make bench-long FOLDER=my-beir-folder
    make reproduce        # every table again by its own command, and which numbers moved; ARGS=--list says how long each takes
"""


@dataclass(frozen=True)
class Bars:
    """A bar a row: the labels' columns, and that of the value; `where` keeps rows of one value of a column."""

    labels: tuple[str, ...]
    value: str
    unit: str = ""
    where: tuple[str, str] | None = None


@dataclass(frozen=True)
class Costs:
    """Cost against size: columns of sizes and costs, a line each; or one column of costs, a line for each value of `by`."""

    sizes: str
    costs: tuple[str, ...]
    unit: str
    by: str | None = None
    x_label: str = "documents"


@dataclass(frozen=True)
class Question:
    """A part of the page."""

    name: str
    title: str
    said: str
    charts: tuple[Bars | Costs, ...] = ()
    columns: tuple[str, ...] | None = None
    where: tuple[str, str] | None = None


DRAWS = ("draw ms, descend", "draw ms, uniform members", "draw ms, best", "exhaustive ms")
UPDATES = ("build s", "insert one by one s", "repair s at .999")
SCALES = (Costs("targets", DRAWS, "ms", x_label="targets"), Costs("targets", UPDATES, "s", x_label="targets"))
QUALITY = (Bars(("run",), "nDCG@10"),)
QUESTIONS = (
    Question("published", "Do known systems give their published numbers?", "SciFact whole, through the command line alone."),
    Question("quickstart_peer", "How long does the whole quickstart take?",
             "Read, encode, mine, train, encode again, search and measure, beside the same recipe on other libraries.",
             (Bars(("engine",), "whole s", "s"), Bars(("engine",), "peak MB", "MB"))),
    Question("startup", "How long until a command answers?", "Next to nothing is searched: what is left is imports, and loading the model.",
             (Bars(("command",), "ms", "ms"),)),
    Question("limits", "What could this machine do at most?",
             "Matrix products and reads of memory alone; other tables give shares of them.", (Bars(("threads",), "bf16", "GFLOP/s"),)),
    Question("exact", "What does exact search cost, by size and by queries at once?", "Every vector against every query, on all cores."),
    Question("encode_dense_*", "How fast are documents encoded into vectors?",
             "The same model in every runtime; nDCG@10 is of the vectors that were made so.",
             (Bars(("engine",), "documents/s", "documents/s"),)),
    Question("encode_sparse", "How fast are documents encoded into term weights?", "The same SPLADE checkpoints on both sides.",
             (Bars(("model", "engine"), "documents/s", "documents/s"),)),
    Question("rerank", "How fast are candidates re-ranked?", "One cross-encoder, the same pairs.",
             (Bars(("engine",), "pairs/s", "pairs/s"),)),
    Question("train_dense", "How fast is a training step of a dense model?", "The same pairs in the same batches.",
             (Bars(("engine",), "pairs/s", "pairs/s"),)),
    Question("train_sparse", "How fast is a training step of a learned-sparse model?",
             "With the checkpoint's dropout and with none; MB held is what a step needs above the loaded model.",
             (Bars(("model", "dropout", "engine"), "pairs/s", "pairs/s"), Bars(("model", "dropout", "engine"), "MB held", "MB"))),
    Question("maxsim", "What does late interaction's score cost a training step?",
             "Forward and backward, from token vectors to their gradients.",
             (Bars(("documents", "fill", "engine"), "ms a step", "ms"), Bars(("documents", "fill", "engine"), "MB held", "MB"))),
    Question("scan", "Which approximate index?", "Every kind against exact search on the same vectors, one thread.",
             (Bars(("index",), "cpu ms", "ms a query"), Bars(("index",), "recall@10"))),
    Question("sparse_search", "Which engine for learned sparse vectors?", "The same term weights in each; long queries, one thread.",
             (Bars(("documents", "engine", "setting"), "cpu ms p50", "ms", ("queries", "long")),),
             ("documents", "engine", "setting", "recall@10", "cpu ms p50", "p99", "build cpu s", "bytes a posting", "MB"),
             ("queries", "long")),
    Question("sparse_scale", "What does a sparse query cost as documents grow?", "Processor time of a long query, one thread.",
             (Costs("documents", ("cpu ms p50",), "ms, median", "kind"),
              Costs("documents", ("build s, all cores",), "s to build", "kind"))),
    Question("multivector_search", "Which engine for late interaction?", "The same token vectors in each, one thread.",
             (Bars(("engine", "setting"), "cpu ms p50", "ms"), Bars(("engine", "setting"), "recall@10"))),
    Question("serve", "How many questions a second does a server answer?", "Servers and clients share the machine.",
             (Bars(("clients", "server"), "queries/s", "queries/s"),)),
    Question("workers", "What do worker processes cost and gain?", "The same corpus encoded with and without them.",
             (Bars(("workers",), "documents/s", "documents/s"),)),
    Question("negatives_cost", "What does a training step cost by source of negatives?", "Samplers included.",
             (Bars(("negatives",), "ms a step", "ms"),)),
    Question("negatives_scale", "What does a draw of negatives cost as documents grow?",
             "Sixty-four draws for each of 128 queries from a tree over all targets; building and repairing that tree.", SCALES),
    Question("negatives_scale_128", "The same in 128 dimensions", "As above.", SCALES),
    Question("negatives_follow", "What does following the model cost?",
             "The tree is kept, repaired or built anew after the encodings moved.",
             (SCALES[0], Costs("targets", ("keep s at .999", "repair s at .999", "build anew s"), "s", x_label="targets"))),
    Question("negatives_draws", "How good are the draws?", "Mean score of what is drawn; the exact softmax is what they approximate.",
             (Bars(("method", "members", "clusters"), "mean score of draws"),)),
    Question("nystrom-landmarks", "Which landmarks make the best codes?", "Error of scores from codes, by how landmarks are chosen.",
             (Bars(("landmarks", "m"), "rms error"),)),
    Question("nystrom-refresh", "How well do codes follow a model without its encoder?", "Share of the best 20 kept, and what it took.",
             (Bars(("codes by", "sample"), "best 20 kept"),)),
    Question("class_notes_batch", "How many negatives in a batch?", "At equal steps and at equal pairs seen.", QUALITY),
    Question("class_notes_floor", "How low should the rate fall?", "Schedules and floors of the same run.", QUALITY),
    Question("class_notes_encoders", "One encoder or two?", "Shared or separate weights for queries and documents.", QUALITY),
    Question("sparse_terms", "Which terms head a query?", "Before and after training, with hygiene and without."),
)  # fmt: skip


def rows_of(name: str) -> list[dict[str, str]]:
    """A results file's rows by heading; of a heading that comes twice, the first."""
    lines = (RESULTS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    header, *rows = [line.split("\t") for line in lines if not line.startswith("# ")]
    return [{head: row[i] for i, head in reversed(list(enumerate(header)))} for row in rows]


def value_of(cell: str) -> float:
    """A cell's number; not a number where it has none."""
    try:
        return float(cell.rstrip("%"))
    except ValueError:
        return math.nan


def chart(name: str, title: str, spec: Bars | Costs, rows: list[dict[str, str]]) -> str | None:
    """The drawing, or None where the rows have nothing for it."""
    if isinstance(spec, Bars):
        kept = [row for row in rows if spec.where is None or row.get(spec.where[0]) == spec.where[1]]
        found = [
            (", ".join(row.get(c, "") for c in spec.labels if row.get(c)), value_of(row.get(spec.value, "")))
            for row in kept
        ]
        values = [(label, value) for label, value in found if math.isfinite(value)]
        return draw.bars(name, f"{title} {spec.value}", values, spec.unit) if values else None
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for column in spec.costs:
            at, cost = value_of(row.get(spec.sizes, "")), value_of(row.get(column, ""))
            if at > 0 and cost > 0:
                label = (
                    row[spec.by] if spec.by else column.removesuffix(" ms").removeprefix("draw ms, ").removesuffix(" s")
                )
                lines.setdefault(label, []).append((at, cost))
    return draw.costs(name, title, lines, spec.x_label, spec.unit) if lines else None


def drawings(name: str, question: Question) -> dict[str, tuple[str, str]]:
    """The charts of a result and what stands for each where it is not seen, by file name."""
    rows, found = rows_of(name), {}
    for i, spec in enumerate(question.charts):
        id = f"{name}{'-' + str(i + 1) if i else ''}".replace("_", "-")
        drawing = chart(id, question.title, spec, rows)
        if drawing is not None:
            found[f"{id}.svg"] = drawing, f"{question.title} {titled(spec)}"
    return found


def ratios(name: str) -> str:
    """What the rounds' ratios say, in a sentence; nothing where a table has none or many peers."""
    rows = rows_of(name)
    if (
        not rows
        or not {"engine", "median of ratios"} <= set(rows[0])
        or len({row["engine"] for row in rows}) < len(rows)
    ):
        return ""
    others = ", ".join(f"{row['engine']} {row['median of ratios']}" for row in rows[1:])
    return f" Times the speed of {rows[0]['engine']}: {others}."


def names_of(question: Question) -> list[str]:
    """The result files of a question."""
    return sorted(path.stem for path in RESULTS.glob(f"{question.name}.tsv"))


def titled(spec: Bars | Costs) -> str:
    """What stands for a picture that is not seen."""
    return spec.value if isinstance(spec, Bars) else f"{spec.unit} against {spec.x_label}"


def page() -> tuple[str, dict[str, str]]:
    """The page, and its charts by file name."""
    parts, charts = [INTRO.rstrip()], {}
    for question in QUESTIONS:
        parts.append(f"## {question.title}")
        found = names_of(question)
        if not found:
            parts.append(f"{question.said} Not measured yet: no `{question.name}.tsv`.")
        for name in found:
            drawn = drawings(name, question)
            charts |= {file: drawing for file, (drawing, _) in drawn.items()}
            parts.append(question.said + ratios(name))
            pictures = [f"![{said}](benchmarks/{file})" for file, (_, said) in drawn.items()]
            parts += [*pictures, table(name, list(question.columns) if question.columns else None, question.where)]
    return "\n\n".join(parts) + "\n", charts


def main() -> None:
    """Write the page and its charts, and remove charts of results that are gone."""
    text, charts = page()
    PAGE.write_text(text, encoding="utf-8")
    for old in CHARTS.glob("*.svg"):
        if old.name not in charts:
            old.unlink()
    for name, drawing in charts.items():
        draw.write(CHARTS / name, drawing)


if __name__ == "__main__":
    main()
