"""The verbs that judge: evaluate, fidelity, check."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flatcoat.data.trec import read_qrels, read_run
from flatcoat.errors import Misuse
from flatcoat.records import Qrels


def _print(header: list[str], rows: list[list[str]]) -> None:
    """Tab-separated, so that it reads by eye and by machine."""
    for row in [header, *rows]:
        sys.stdout.write("\t".join(row) + "\n")


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def evaluate(
    qrels: Path, runs: list[Path], measures: str, by_query: bool, compare: bool, as_json: bool, html: Path | None = None,
    allow: list[str] | None = None,
) -> None:  # fmt: skip
    """`flatcoat evaluate`."""
    from flatcoat.evaluation.measures import evaluate as judge
    from flatcoat.evaluation.measures import means

    names = measures.split()
    judged = read_qrels(qrels)
    read = {str(path): read_run(path) for path in runs}
    tables = {name: judge(judged, run, names) for name, run in read.items()}
    _check_runs(read, judged, names, allow)
    result: dict[str, Any] = {"means": {run: means(table) for run, table in tables.items()}}
    if by_query:
        result["by_query"] = tables
    if compare:
        if len(runs) < 2:
            raise Misuse("--compare wants a baseline and at least one other run")
        result["comparisons"] = _compare(tables, names, str(runs[0]))
    if html is not None:
        from flatcoat.app.html.judge_report import evaluation_report

        evaluation_report(judged, read, tables, result.get("comparisons", ())).write(html)
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
        return
    _print(["run", *names], [[run, *(_number(table[n]) for n in names)] for run, table in result["means"].items()])
    if by_query:
        sys.stdout.write("\n")
        rows = [[run, q, *(_number(table[n][q]) for n in names)] for run, table in tables.items() for q in judged]
        _print(["run", "query", *names], rows)
    if compare:
        sys.stdout.write("\n")
        header = list(result["comparisons"][0])
        _print(
            header,
            [
                [str(c[h]) if not isinstance(c[h], float) else f"{c[h]:.4f}" for h in header]
                for c in result["comparisons"]
            ],
        )


def _check_runs(runs: dict[str, Any], judged: Qrels, names: list[str], allow: list[str] | None) -> None:
    """The checks of runs that are measured, before their numbers are given; each line says which run."""
    from flatcoat.app.inspect_files import of_judged_run
    from flatcoat.checks.base import Finding, enforce
    from flatcoat.checks.run import shallow
    from flatcoat.evaluation.measures import deepest

    for name, run in runs.items():
        found = of_judged_run(Path(name), run, judged) + shallow(run, deepest(names))
        enforce([Finding(f.level, f.check, f"{name}: {f.message}", f.cure) for f in found], allow or ())


def _compare(tables: dict[str, Any], names: list[str], baseline: str) -> list[dict[str, Any]]:
    from flatcoat.evaluation.significance import compare, holm

    found = []
    for run, table in tables.items():
        if run != baseline:
            found += [(run, compare(name, table[name], tables[baseline][name])) for name in names]
    corrected = holm([c.randomisation_p for _, c in found])
    return [{"run": run, **asdict(c), "holm_p": p} for (run, c), p in zip(found, corrected, strict=True)]


def fidelity(
    index: Path, vectors: Path, queries: Path, qrels: Path | None, measures: str, target_recall: float | None,
    max_loss: float | None, as_json: bool, html: Path | None = None,
) -> None:  # fmt: skip
    """`flatcoat fidelity`."""
    from flatcoat.app.family import as_queries, exact_index, open_vectors
    from flatcoat.checks.base import enforce
    from flatcoat.checks.belongs import belongs, same_vocabulary
    from flatcoat.checks.towers import normalisation
    from flatcoat.evaluation.fidelity import Fidelity, Judge, setting_of
    from flatcoat.index.store import open_index
    from flatcoat.sparse_vectors import SparseFolder

    folder, documents, asked = open_index(index), open_vectors(vectors), open_vectors(queries)
    if type(documents) is not type(asked):
        raise Misuse(f"{vectors} and {queries}: they are of different kinds; encode both with one model")
    if folder.kind in ("exact", "bm25"):
        raise Misuse(f"{index} is of kind {folder.kind}: there is no approximation to measure")
    if max_loss is not None and qrels is None:
        raise Misuse("--max-loss wants --qrels: a loss of quality is measured on judged queries")
    enforce(
        belongs(index, folder.facts["of"], model=documents.facts.get("model"), corpus=documents.facts.get("corpus")),
        None,
    )
    enforce(belongs(queries, asked.facts, model=documents.facts.get("model")), None)
    if isinstance(documents.vectors, np.ndarray) and isinstance(asked.vectors, np.ndarray):
        enforce(normalisation(asked.vectors, documents.vectors), None)
    if list(folder.ids) != list(documents.ids):
        raise Misuse(
            f"{index} does not hold the documents of {vectors}, row by row (was it updated?); index them to measure it"
        )
    if isinstance(documents, SparseFolder) and isinstance(asked, SparseFolder):
        enforce(same_vocabulary(vectors, documents.vocabulary, asked.vocabulary), None)
    names = measures.split()
    judge = Judge(
        exact_index(documents.vectors, vectors), as_queries(asked.vectors), qrels=read_qrels(qrels) if qrels else None,
        query_ids=asked.ids, doc_ids=documents.ids, measures=names,
    )  # fmt: skip
    tried = [judge.measure(folder.index, setting_of(folder.index))]
    best: Fidelity | None = None
    if target_recall is not None or max_loss is not None:
        best, tried = judge.cheapest(folder.index, recall=target_recall, loss=max_loss, measure=names[0])
    _write_fidelity(html, str(index), tried, best, folder.bytes)
    _show_fidelity(tried, best, target_recall, max_loss, folder.bytes, as_json)


def _write_fidelity(html: Path | None, title: str, tried: list[Any], best: Any, size: int) -> None:
    if html is not None:
        from flatcoat.app.html.judge_report import fidelity_report

        fidelity_report(title, tried, best, size).write(html)


def _show_fidelity(
    tried: list[Any], best: Any, target_recall: float | None, max_loss: float | None, size: int, as_json: bool
) -> None:
    targeted = target_recall is not None or max_loss is not None
    if as_json:
        said: dict[str, Any] = {"bytes": size, "settings": [asdict(f) | {"cost": f.cost} for f in tried]}
        if targeted:
            said["cheapest"] = asdict(best) | {"cost": best.cost} if best else None
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        changes = list(tried[0].change)
        header = [
            "setting",
            *(f"recall@{k}" for k in tried[0].recall),
            *(f"Δ {m} [95 %]" for m in changes),
            "cpu ms",
            "exact cpu ms",
        ]
        rows = []
        for f in tried:
            spans = [f"{f.change[m][0]:+.2%} [{f.change[m][1]:+.2%}, {f.change[m][2]:+.2%}]" for m in changes]
            rows.append(
                [
                    f.setting,
                    *(f"{v:.4f}" for v in f.recall.values()),
                    *spans,
                    f"{f.cpu_ms:.3f}",
                    f"{f.exact_cpu_ms:.3f}",
                ]
            )
        _print(header, rows)
        sys.stdout.write(f"size {size / 1e6:.1f} MB with the vectors\n")
        if best:
            sys.stdout.write(f"cheapest setting that meets the target: {best.setting}\n")
    if targeted and best is None:
        from flatcoat.errors import FlatcoatError

        raise FlatcoatError(
            f"no setting meets the target (recall {target_recall}, loss {max_loss}); build another kind of index"
        )


def check(things: list[str], qrels: Path | None, on: str | None, as_json: bool) -> None:
    """`flatcoat check`."""
    from flatcoat.app.inspect import inspect

    found = [(thing, finding) for thing in things for finding in inspect(thing, qrels, on)]
    if as_json:
        sys.stdout.write(json.dumps([{"thing": thing, **asdict(f)} for thing, f in found], ensure_ascii=False) + "\n")
    else:
        for thing, finding in found:
            sys.stdout.write(f"{thing}: {finding.line()}\n")
    if any(finding.level == "error" for _, finding in found):
        raise SystemExit(1)
