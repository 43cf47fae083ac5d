"""A report's charts and tables as files: SVG and PNG, LaTeX and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatcoat.app.html.page import Report
from flatcoat.app.html.svg import free_name
from flatcoat.app.html.tables import latex_table, markdown_table
from flatcoat.errors import need
from flatcoat.files import atomic_file, write_text

SCALE = 2  # pixels of a PNG for each of the drawing's


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write each chart as NAME.svg and NAME.png, each table as NAME.tex and NAME.md; give the paths.

    Tables behind charts are written under the chart's name. What else lies in the folder is left alone.

    Raises:
        Misuse: what draws PNG is not installed (the extra `figures`).
    """
    cairosvg: Any = need("cairosvg", "figures")
    written = []
    for figure in report.figures:
        drawing, path = figure.svg(), folder / f"{figure.name}.svg"
        write_text(path, drawing)
        with atomic_file(path.with_suffix(".png")) as partial:
            cairosvg.svg2png(bytestring=drawing.encode(), write_to=str(partial), scale=SCALE)
        written += [path, path.with_suffix(".png")]
    tables = {figure.name: figure.table for figure in report.figures}
    for title, table in report.tables:
        tables[free_name(title, tables)] = table
    for name, table in tables.items():
        write_text(folder / f"{name}.tex", latex_table(table))
        write_text(folder / f"{name}.md", markdown_table(table))
        written += [folder / f"{name}.tex", folder / f"{name}.md"]
    return written
