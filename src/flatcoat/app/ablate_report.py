"""The table of an ablation: each variant's measures over its seeds, its difference to the whole recipe, and a sentence on each part.

A difference is tested over queries, each query's values averaged over the seeds before they are paired (Smucker et al. 2007), and p
values are corrected over the table (Holm 1979). How much of the way to a teacher the served model goes:

    gap closed = (full − nll alone) / (teacher − nll alone)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from flatcoat.evaluation.significance import compare, holm

Records = Sequence[Mapping[str, Any]]
LEVEL = 0.05
TEACHERS = {"late": "late interaction (best {} re-scored)", "cross": "cross-encoder (best {} re-ranked)"}


def averaged(records: Records, system: str, measure: str) -> dict[str, float]:
    """Each query's value of a measure, its mean over the seeds."""
    tables = [record["by_query"][system][measure] for record in records]
    return {query: float(np.mean([table[query] for table in tables])) for query in tables[0]}


def summarise(found: Sequence[tuple[str, str, Sequence[str], Records]], measures: Sequence[str]) -> dict[str, Any]:
    """From each variant's (name, kind, what is missing, records by seed), the whole recipe's first, to the table.

    Raises:
        Misuse: variants that were measured on different queries.
    """
    measure, whole = measures[0], found[0][3]
    shares = _shares(whole)
    rows = [_row(name, kind, takes, records, measures, shares) for name, kind, takes, records in found]
    for row, (_, _, _, records) in zip(rows[1:], found[1:], strict=True):
        row["against"] = _against(records, whole, "served", measure)
        row["seeds_disagree"] = _disagree(row["by_seed"], rows[0]["by_seed"])
    corrected = holm([row["against"]["randomisation_p"] for row in rows[1:]])
    for row, p in zip(rows[1:], corrected, strict=True):
        row["against"]["holm_p"] = p
        row["verdict"] = verdict(row["against"]["difference"], p)
    alone = next((row for row in rows if row["kind"] == "alone"), None)
    teachers = [_teacher(name, whole, rows[0], alone, measures) for name in whole[0]["systems"] if name != "served"]
    return {"measures": list(measures), "seeds": [record["seed"] for record in whole], "queries": _queries(whole),
            "reranked": whole[0]["depths"].get("served"), "rows": rows, "teachers": teachers}  # fmt: skip


def verdict(difference: float, p: float) -> str:
    """What the difference of leaving something out says of it."""
    if p >= LEVEL:
        return "makes no difference that shows"
    return "earns its place" if difference < 0 else "does harm"


def _queries(records: Records) -> int:
    return len(next(iter(records[0]["by_query"]["served"].values())))


def _row(
    name: str, kind: str, takes: Sequence[str], records: Records, measures: Sequence[str], shares: Mapping[str, float]
) -> dict[str, Any]:
    spent = [record["seconds"]["training"] + record["seconds"]["before"] for record in records]
    known = kind in ("term", "pair") and all(term in shares for term in takes)
    return {
        "name": name, "kind": kind, "takes": list(takes), **_means(records, "served", measures),
        "seconds": float(np.mean(spent)), "gradient_share": sum(shares[term] for term in takes) if known else None,
    }  # fmt: skip


def _means(records: Records, system: str, measures: Sequence[str]) -> dict[str, Any]:
    """Each measure's mean over the seeds; of the first, also its value by seed and their deviation (None of one seed)."""
    by_seed = [record["means"][system][measures[0]] for record in records]
    mean = {m: float(np.mean([record["means"][system][m] for record in records])) for m in measures}
    spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None
    return {"means": mean, "by_seed": by_seed, "deviation": spread}


def _shares(records: Records) -> dict[str, float]:
    """Each term's share of the sum of the terms' gradient norms, its mean over the seeds; empty where none was logged."""
    norms = [record["gradient"] for record in records]
    if not all(norms) or not all(sum(of.values()) for of in norms):
        return {}
    return {term: float(np.mean([of[term] / sum(of.values()) for of in norms])) for term in norms[0]}


def _against(records: Records, whole: Records, system: str, measure: str) -> dict[str, Any]:
    return asdict(compare(measure, averaged(records, system, measure), averaged(whole, "served", measure)))


def _disagree(values: Sequence[float], whole: Sequence[float]) -> bool:
    """Whether one seed says better and another worse."""
    signs = np.sign(np.subtract(values, whole))
    return bool((signs > 0).any() and (signs < 0).any())


def _teacher(
    name: str, whole: Records, full: Mapping[str, Any], alone: Mapping[str, Any] | None, measures: Sequence[str]
) -> dict[str, Any]:
    """A teacher's row; the share of the gap is None where there is no gap, or no variant of the likelihood alone."""
    called = TEACHERS[name].format(whole[0]["depths"][name])
    row: dict[str, Any] = {"name": called, "system": name, **_means(whole, name, measures), "gap_closed": None}
    row["against"] = _against(whole, whole, name, measures[0])
    if alone is not None:
        low, here, high = (r["means"][measures[0]] for r in (alone, full, row))
        row["gap_closed"] = (here - low) / (high - low) if high > low else None
    return row


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _seeds(results: Mapping[str, Any]) -> str:
    count = len(results["seeds"])
    return "1 seed" if count == 1 else f"{count} seeds"


def _first(row: Mapping[str, Any], measure: str) -> str:
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.4f}"
    return f"{row['means'][measure]:.4f}{spread}"


def _delta(against: Mapping[str, Any]) -> str:
    return f"{against['difference']:+.4f} [{against['low']:+.4f}, {against['high']:+.4f}]"


def variant_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the variants' table."""
    first, *others = results["measures"]
    header = ["variant", f"{first} ± seeds", f"Δ {first} (95 %)", "p (Holm)", *others, "training s", "gradient share"]
    rows = []
    for row in results["rows"]:
        against, share = row.get("against"), row["gradient_share"]
        flag = ", seeds disagree in sign" if row.get("seeds_disagree") else ""
        rows.append([
            row["name"], _first(row, first), _delta(against) + flag if against else "the whole recipe",
            _p(against["holm_p"]) if against else "", *(f"{row['means'][m]:.4f}" for m in others),
            f"{row['seconds']:.0f}", "" if share is None else f"{share:.1%}",
        ])  # fmt: skip
    return header, rows


def teacher_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what taught: how far above the served model it is, and how much of the way was gone."""
    if not results["teachers"]:
        return [], []
    first, *others = results["measures"]
    header = ["teacher", f"{first} ± seeds", f"Δ {first} to full (95 %)", *others, "gap closed"]
    rows = [
        [row["name"], _first(row, first), _delta(row["against"]), *(f"{row['means'][m]:.4f}" for m in others),
         "" if row["gap_closed"] is None else f"{row['gap_closed']:.0%}"]
        for row in results["teachers"]
    ]  # fmt: skip
    return header, rows


def sentences(results: Mapping[str, Any]) -> list[str]:
    """One sentence on each part that was taken away, and on each teacher."""
    measure = results["measures"][0]
    lines = [_sentence(row, measure) for row in results["rows"][1:]]
    if not any(row["kind"] == "alone" for row in results["rows"]):
        return lines
    for row in results["teachers"]:
        closed = row["gap_closed"]
        if closed is None:
            lines.append(f"{row['name']}: not above nll alone, so there is no gap to close")
        else:
            lines.append(f"{row['name']}: the served model closes {closed:.0%} of the gap from nll alone to it")
    return lines


def _sentence(row: Mapping[str, Any], measure: str) -> str:
    against, many = row["against"], len(row["takes"]) > 1
    name = " and ".join(row["takes"]) or "what is added to nll alone"
    said = row["verdict"]
    if many:
        plural = {"earns its": "earn their", "makes no": "make no", "does harm": "do harm"}
        for one, several in plural.items():
            said = said.replace(one, several)
    told = f"{name} {said}: without {'them' if many else 'it'} {measure} moves by {_delta(against)}, p (Holm) {_p(against['holm_p'])}"
    return f"{told}; the seeds disagree in sign" if row["seeds_disagree"] else told


def notes(results: Mapping[str, Any]) -> list[str]:
    """What the columns are."""
    seeds = len(results["seeds"])
    values = "their values of one seed" if seeds == 1 else f"each one's values averaged over {seeds} seeds"
    lines = [
        (
            f"Δ and p: paired over {results['queries']} queries, {values}; bootstrap interval, randomisation test, "
            "Holm-corrected over the table. Neither knows how far another seed would move a row: that is what ± shows."
        ),
        "Training s: a variant's own training and its stages before, as if alone.",
    ]
    if results["reranked"]:
        lines.append(f"Measured as a re-ranker of BM25's best {results['reranked']}.")
    if any(row["gradient_share"] is not None for row in results["rows"]):
        lines.append("Gradient share: of the sum of the terms' gradient norms on the served encoder, in the whole recipe; "
                     "a term of the cross-encoder alone moves nothing there.")  # fmt: skip
    if results["teachers"]:
        lines.append("Teachers see only the served model's own best answers: they are measured as re-rankers of it.")
    return lines


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report."""
    host = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    tables = [_table(*found) for found in (variant_rows(results), teacher_rows(results)) if found[1]]
    parts = [
        f"# {results['collection']}: what each part is worth, {results['queries']} test queries, {_seeds(results)}\n",
        *tables, *(f"{line}\n" for line in notes(results)), "## In words\n",
        "".join(f"* {line}\n" for line in sentences(results)),
        f"{host['processor']}, {host['cores']} cores, Python {host['python']}, {versions}, {host['date']}\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def show(results: Mapping[str, Any]) -> None:
    """The report on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=180)
    titles = f"{results['queries']} held-out queries, {_seeds(results)}", "What teaches"
    for title, (header, rows) in zip(titles, (variant_rows(results), teacher_rows(results)), strict=True):
        if rows:
            table = Table(*header, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in (*sentences(results), "", *notes(results)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
