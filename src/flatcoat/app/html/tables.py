"""A table of text, and how it is written: as HTML, as Markdown, as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flatcoat.app.html.svg import plain, safe

NUMERIC = re.compile(r"^\s*(?:<\s*)?[+\-−]?\d")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "Δ": r"$\Delta$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$",
    "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "<": r"$<$", ">": r"$>$", "–": "--", "…": r"\dots{}", "λ": r"$\lambda$",
    "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells as text; each row has as many as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        """Raises ValueError on a row of another width."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns: {row}")

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, where it holds anything."""
        cells = [row[column] for row in self.rows if row[column]]
        return bool(cells) and sum(bool(NUMERIC.match(cell)) for cell in cells) * 2 > len(cells)


def markdown_table(table: Table) -> str:
    """The table as GitHub's Markdown."""
    lines = [table.header, ["---:" if table.numeric(i) else "---" for i in range(len(table.header))], *table.rows]
    return "".join("| " + " | ".join(map(_markdown, line)) + " |\n" for line in lines)


def _markdown(cell: str) -> str:
    return re.sub(r"\s+", " ", cell.replace("\\", "\\\\").replace("|", "\\|"))


def latex_table(table: Table) -> str:
    """The table as a LaTeX `tabular` in booktabs' style, with every character of a cell standing for itself."""
    columns = "".join("r" if table.numeric(i) else "l" for i in range(len(table.header)))
    line = lambda cells: " & ".join(map(_latex, cells)) + r" \\"  # noqa: E731
    body = [line(row) for row in table.rows]
    parts = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.header), r"\midrule", *body, r"\bottomrule",
             r"\end{tabular}"]  # fmt: skip
    return "\n".join(parts) + "\n"


def _latex(cell: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in plain(cell))


def html_table(table: Table, caption: str) -> str:
    """The table with its caption; a page's script makes headers sort it and copies the forms it carries."""
    kinds = [' class="n"' if table.numeric(i) else "" for i in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{kind}><button type="button" class="sort">{safe(name)}</button></th>'
        for name, kind in zip(table.header, kinds, strict=True)
    )
    body = "".join("<tr>" + _cells(row, kinds) + "</tr>\n" for row in table.rows)
    forms = "".join(
        f'<button type="button" data-copy="{kind}">Copy {name}</button><template class="{kind}">{safe(text)}</template>'
        for kind, name, text in (
            ("markdown", "Markdown", markdown_table(table)),
            ("latex", "LaTeX", latex_table(table)),
        )
    )
    return (
        f'<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="{safe(caption)}">'
        f"<table><caption>{safe(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
        f'<p class="tools">{forms}</p></div>\n'
    )


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    first = f'<th scope="row"{kinds[0]}>{safe(row[0])}</th>' if row else ""
    return first + "".join(f"<td{kind}>{safe(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
