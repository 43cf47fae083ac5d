"""A report: a title, facts, sections; sections hold text, figures, tables and what is folded away. It becomes one HTML file.

Whatever comes from data goes through `safe`; only `Section.part` takes HTML as it is. The file fetches nothing: its policy forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from flatcoat.app.html.svg import free_name, safe, slug
from flatcoat.app.html.tables import Table, html_table
from flatcoat.files import write_text

WIDE, HALF, NARROW = 940, 452, 348
"""Pixels a chart is drawn at: across a screen or a sheet, beside another, and on a phone."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Figure:
    """A chart that can be drawn at any width, with its numbers as a table."""

    title: str
    draw: Callable[[str, str, int], str]
    table: Table
    note: str = ""
    called: str = ""

    @property
    def name(self) -> str:
        """The title as a file's name, or what the chart is called where another one has that."""
        return self.called or slug(self.title)

    def svg(self, width: int = WIDE) -> str:
        """The chart at a width."""
        return self.draw(self.name, self.title, width)


@dataclass
class Section:
    """A heading and what stands below it, in the order in which it was said."""

    title: str
    body: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    name: str = ""
    names: dict[str, str] = field(default_factory=dict)  # of the page's figures, with their titles

    def text(self, *lines: str) -> Section:
        """Paragraphs."""
        self.body += [f"<p>{safe(line)}</p>\n" for line in lines]
        return self

    def missing(self, line: str) -> Section:
        """What is not there, and why."""
        self.body.append(f'<p class="missing">{safe(line)}</p>\n')
        return self

    def items(self, lines: Sequence[str], *, kind: str = "") -> Section:
        """A list; `kind` is a class of the page's style."""
        if lines:
            said = "".join(f"<li>{safe(line)}</li>" for line in lines)
            self.body.append(f'<ul class="{safe(kind)}">{said}</ul>\n')
        return self

    def figure(self, figure: Figure, *, folded: bool = False, half: bool = False) -> Section:
        """A chart, its note, and its numbers folded below; `half` ones stand two in a row where there is room.

        Raises ValueError where one of this title is on the page.
        """
        figure = replace(figure, called=_name(figure.title, self.names))
        self.figures.append(figure)
        drawn = (
            f'<figure id="{figure.name}"{" class=half" if half else ""}><figcaption>{safe(figure.title)}</figcaption>'
            f'<div class="wide">{figure.svg(HALF if half else WIDE)}</div><div class="narrow">{figure.svg(NARROW)}</div>'
            + (f'<p class="note">{safe(figure.note)}</p>' if figure.note else "")
            + f'<div class="foot"><button type="button" data-svg="{figure.name}" '
            + f'aria-label="Download {safe(figure.title)} as SVG">SVG</button>'
            + f"<details><summary>Numbers</summary>{html_table(figure.table, figure.title)}</details></div></figure>\n"
        )
        self.body.append(_details(figure.title, drawn) if folded else drawn)
        return self

    def table(self, title: str, table: Table, *, note: str = "", folded: bool = False) -> Section:
        """A table that can be sorted and copied."""
        self.tables.append((title, table))
        drawn = html_table(table, title) + (f'<p class="note">{safe(note)}</p>\n' if note else "")
        self.body.append(_details(title, drawn) if folded else drawn)
        return self

    def folded(self, title: str, text: str) -> Section:
        """Text as it is, folded away."""
        self.body.append(_details(title, f'<pre tabindex="0">{safe(text)}</pre>'))
        return self

    def part(self, html: str) -> Section:
        """HTML as it is: whoever writes it has made data safe."""
        self.body.append(html)
        return self


def _name(title: str, taken: dict[str, str]) -> str:
    """A name for a title, and note that it is taken. Raises ValueError where the title is there already."""
    if title in taken.values():
        raise ValueError(f"two are called {title!r}")
    name = free_name(title, taken)
    taken[name] = title
    return name


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{safe(title)}</summary>{inside}</details>\n"


class Report:
    """One page: `facts` are the few numbers at its head, each (name, value, remark)."""

    def __init__(self, title: str, line: str = "", facts: Sequence[tuple[str, str, str]] = ()):
        self.title, self.line, self.facts = title, line, facts
        self.sections: list[Section] = []
        self._names: tuple[dict[str, str], dict[str, str]] = ({}, {})  # of sections, and of figures

    def section(self, title: str) -> Section:
        """A new section. Raises ValueError where one of this title is there."""
        own, figures = self._names
        self.sections.append(Section(title, name=_name(title, own), names=figures))
        return self.sections[-1]

    @property
    def figures(self) -> list[Figure]:
        """Every chart, in order."""
        return [figure for section in self.sections for figure in section.figures]

    @property
    def tables(self) -> list[tuple[str, Table]]:
        """Every table with its title, in order; the numbers behind charts are not among them."""
        return [table for section in self.sections for table in section.tables]

    def html(self) -> str:
        """The whole file."""
        shown = [section for section in self.sections if section.body]
        links = "".join(f'<li><a href="#{s.name}-section">{safe(s.title)}</a></li>' for s in shown)
        tiles = "".join(
            f'<div class="tile"><dt>{safe(name)}</dt><dd>{safe(value)}<small>{safe(remark)}</small></dd></div>'
            for name, value, remark in self.facts
        )
        body = "".join(
            f'<section id="{s.name}-section"><h2>{safe(s.title)}</h2>\n{"".join(s.body)}</section>\n' for s in shown
        )
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f'<meta name="color-scheme" content="light dark">\n<title>{safe(self.title)}</title>\n'
            f"<style>\n{_resource('report.css')}</style></head>\n<body>\n<header><h1>{safe(self.title)}</h1>"
            f'<p>{safe(self.line)}</p>{f"<dl>{tiles}</dl>" if tiles else ""}</header>\n'
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n'
            f'<p id="said" role="status"></p>\n<script>\n{_resource("report.js")}</script>\n</body></html>\n'
        )  # fmt: skip

    def write(self, path: Path) -> Path:
        """Write the file whole; give its path."""
        write_text(path, self.html())
        return path


def _resource(name: str) -> str:
    return files("flatcoat.app.html").joinpath(name).read_text(encoding="utf-8")
