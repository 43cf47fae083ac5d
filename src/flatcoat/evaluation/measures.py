"""Measures by their ir-measures names (MacAvaney et al. 2022, arXiv 2111.13466): `nDCG@10`, `RR@10`, `R@100`, …"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flatcoat.errors import Misuse, need
from flatcoat.records import Qrels, Run

#: measure -> query id -> value
Table = Mapping[str, Mapping[str, float]]
DEFAULT = ("nDCG@10", "RR@10", "R@100")


def parse(names: Sequence[str]) -> list[Any]:
    """Measures by name. Raises Misuse on one that is not known."""
    library: Any = need("ir_measures", "evaluate")
    measures: list[Any] = []
    for name in names:
        try:
            measures.append(_measure(library, name))
            library.evaluator([measures[-1]], {"q": {"d": 1}}).calc_aggregate({"q": {"d": 1.0}})
        except (NameError, ValueError, SyntaxError, TypeError, AssertionError, KeyError) as error:
            raise Misuse(f"measure {name!r} is not known; examples: nDCG@10 RR@10 R@100 AP P@10 Success@5") from error
    return measures


def _measure(library: Any, name: str) -> Any:
    """What `ir_measures.parse_measure` gives: its code asks for names of `ast` that Python 3.14 no longer has."""
    node, said = ast.parse(name, mode="eval").body, dict[str, Any]()
    cutoff = None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        node, cutoff = node.left, ast.literal_eval(node.right)
    if isinstance(node, ast.Call) and not node.args:
        node, said = node.func, {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
    if not isinstance(node, ast.Name):
        raise ValueError(f"{name}: no measure's name")
    kind = library.measures.registry[node.id]
    return kind(**said, **({} if cutoff is None else {kind.AT_PARAM: cutoff}))


def evaluate(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT) -> dict[str, dict[str, float]]:
    """Each measure of each judged query; a query that the run missed has 0, one that nobody judged does not count.

    Raises:
        Misuse: an unknown measure, or a run of which no query is judged.
    """
    library: Any = need("ir_measures", "evaluate")
    parsed = parse(measures)
    if not any(query in qrels for query in run):
        raise Misuse(f"none of the run's {len(run)} queries is among the {len(qrels)} judged: another split?")
    table = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    names: dict[str, list[str]] = {}
    for measure, name in zip(parsed, measures, strict=True):
        names.setdefault(str(measure), []).append(name)  # RR@10 and MRR@10 are one measure
    # places in place of scores: of equal scores, RR@k's code takes the lowest id first where trec_eval's takes the highest
    scored = {
        query: {id: float(-place) for place, id in enumerate(ranking.doc_ids)}
        for query, ranking in run.items()
        if query in qrels and len(ranking)
    }
    for value in library.iter_calc(parsed, {q: _safe(judged) for q, judged in qrels.items()}, scored):
        if value.query_id in qrels:
            for name in names[str(value.measure)]:
                table[name][value.query_id] = float(value.value)
    return table


def _safe(judged: Mapping[str, int]) -> dict[str, int]:
    """A query's grades; zeros where all are negative, of which trec_eval's code makes an array of no levels and leaves its memory."""
    return dict(judged) if max(judged.values(), default=0) >= 0 else dict.fromkeys(judged, 0)


def deepest(measures: Sequence[str]) -> int:
    """The greatest cutoff among measures, as 100 of `nDCG@10 R@100`; 0 where none has one."""
    return max((int(m.group(1)) for name in measures if (m := re.search(r"@(\d+)$", name))), default=0)


def means(table: Table) -> dict[str, float]:
    """The mean of each measure over its queries."""
    return {name: float(np.mean(list(values.values()))) if values else 0.0 for name, values in table.items()}
