"""The table a run ends with, as Markdown (`report.md`) and on the terminal."""

from __future__ import annotations

from shutil import which
from typing import Any


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def system_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the systems' table."""
    measures = list(results["systems"][0]["means"])
    header = ["system", *measures, f"Δ {measures[0]} (95 %)", "p (Holm)", "ms/query", "MB"]
    rows = []
    for system in results["systems"]:
        against = system.get("against")
        delta = (
            f"{against['difference']:+.4f} [{against['low']:+.4f}, {against['high']:+.4f}]" if against else "baseline"
        )
        rows.append([
            system["name"], *(f"{system['means'][m]:.4f}" for m in measures), delta,
            _p(against["holm_p"]) if against else "", "" if system["ms"] is None else f"{system['ms']:.2f}",
            f"{system['megabytes']:.1f}" if system["megabytes"] else "",
        ])  # fmt: skip
    return header, rows


def fidelity_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each approximation costs."""
    if not results["fidelity"]:
        return [], []
    first = results["fidelity"][0]
    measures, ks = list(first["change"]), list(first["recall"])
    header = ["index", *(f"recall@{k}" for k in ks), *(f"Δ {m} (95 %)" for m in measures), "processor time"]
    rows = []
    for row in results["fidelity"]:
        changes = [f"{v[0]:+.2%} [{v[1]:+.2%}, {v[2]:+.2%}]" for v in (row["change"][m] for m in measures)]
        rows.append([row["setting"], *(f"{row['recall'][k]:.4f}" for k in ks), *changes, f"{row['cost']:.2f}× exact"])
    return header, rows


def fix_lines(results: dict[str, Any]) -> list[str]:
    """For each index that lost too much, the setting that does not."""
    lines = []
    for fix in results["fixes"]:
        if fix["setting"] is None:
            lines.append(f"{fix['index']}: no setting loses less than {fix['loss']:.1%} of {fix['measure']}")
            continue
        found = fix["setting"]
        change = found["change"][fix["measure"]][0]
        lines.append(f"{fix['index']}: {found['setting']} brings {fix['measure']} to {change:+.2%} of exact, "
                     f"at {found['cost']:.2f}× exact's processor time (chosen on these queries)")  # fmt: skip
    return lines


def cost_lines(results: dict[str, Any]) -> list[str]:
    """What the run cost, in words."""
    training, seconds = results["training"], results["seconds"]
    lines = []
    documents = results["collection"]["documents"]
    encoded = seconds.get("encode-after") or seconds.get("encode-before")
    if training and training["steps"]:
        rate = training["steps"] * results["pairs_per_step"] / training["seconds"]
        lines.append(f"training: {training['steps']} steps, {rate:.0f} pairs/s, {training['negatives']:.0f} negatives a "
                     f"query, last loss {training['loss']:.3f}")  # fmt: skip
    if encoded:
        lines.append(f"encoding: {documents / encoded:.0f} documents/s; a query {results['query_ms']:.1f} ms")
    lines.append("seconds by stage: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    return lines


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    machine, collection = results["machine"], results["collection"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        f"# {collection['source']}: {collection['documents']} documents, {collection['test_queries']} test queries\n",
        _table(*system_rows(results)),
        "p: paired randomisation test, Holm-corrected over the table. ms/query: median wall time of the search alone.\n",
        *([results["made"]["statement"] + "\n"] if results.get("made") else []),
    ]
    header, rows = fidelity_rows(results)
    if rows:
        parts += [
            "## What each approximation costs\n",
            _table(header, rows),
            *(f"* {line}\n" for line in fix_lines(results)),
        ]
    parts += ["## Cost\n", *(f"* {line}\n" for line in cost_lines(results))]
    parts += ["## Checks\n", *(f"* {line}\n" for line in results["checks"])]
    parts.append(
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}, {machine['date']}\n"
    )
    return "\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def show(results: dict[str, Any], where: str) -> None:
    """The report on the terminal."""
    from rich.console import Console
    from rich.table import Table

    # a file or a pipe has no width of its own: give it enough that no column is cut
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for title, (header, rows) in (
        (f"{results['collection']['test_queries']} held-out queries", system_rows(results)),
        ("What each approximation costs", fidelity_rows(results)),
    ):
        if rows:
            table = Table(*header, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    made = [results["made"]["statement"]] if results.get("made") else []
    for line in (*made, *fix_lines(results), *cost_lines(results)):
        console.print(line, highlight=False, markup=False)
    if not results["query_ms"]:
        return  # a cross-encoder re-ranks; there is nothing to ask
    command = "flatcoat" if which("flatcoat") else ".venv/bin/flatcoat"
    console.print(f"\nAsk it something:\n  {command} search {where} --query \"your question\"",
                  highlight=False, markup=False, soft_wrap=True)  # fmt: skip
