"""reStructuredText into sections, by its lines: headings are underlined, directives and comments give way to what they hold.

No interpreter of the whole language: what a reader would see of prose, lists, notes and code stays, targets and options go.
"""

from __future__ import annotations

import re

from flatcoat.data.formats import Section

LINE = re.compile(r"([=\-`:.'\"~^_*+#<>!$%&(),/;?@\[\]{|}\\])\1{2,}\s*$")
DIRECTIVE = re.compile(r"\s*\.\. (?:\|[^|]+\| )?([\w\-:+.]+)::\s*(.*)$")
NAMES = (
    "note warning tip hint important caution danger error attention seealso admonition versionadded versionchanged deprecated "
    "rubric topic sidebar epigraph method classmethod staticmethod function class attribute property decorator "
    "data module exception option describe glossary table list-table csv-table"
)
SHOWN = frozenset(NAMES.split())  # directives whose argument is text; of others only what they hold is read
NEVER = "image toctree include contents raw meta index unicode replace date role default-role highlight"
HIDDEN = frozenset(NEVER.split())  # directives of which nothing is
INLINE = (
    re.compile(r":[\w:+.\-]{1,60}:`~?([^`<]+)(?:<[^`>]*>)?`"),  # roles
    re.compile(r"`([^`<]+)<[^`>]*>`__?"),  # links
    re.compile(r"``([^`]+)``"),
    re.compile(r"`([^`]+)`__?"),
    re.compile(r"(?<!\*)\*{1,2}(?=\S)([^*\n]+?)(?<=\S)\*{1,2}(?!\*)"),
    re.compile(r"\|([\w \-]+)\|"),
)  # each gives way to its group; none may take more than its length's time, whatever the line


def _inline(text: str) -> str:
    for pattern in INLINE:
        text = pattern.sub(lambda found: found.group(1).rstrip(), text)
    return text


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


class _Reader:
    def __init__(self, text: str):
        self.lines = text.expandtabs(8).split("\n")
        self.styles: list[str] = []
        self.path: list[str] = []
        self.text: list[str] = []
        self.sections: list[Section] = []

    def read(self) -> list[Section]:
        at = 0
        while at < len(self.lines):
            at = self._heading(at) or self._explicit(at) or self._line(at)
        self._end()
        return self.sections

    def _heading(self, at: int) -> int | None:
        """A heading's two or three lines; gives the line behind them."""
        over = bool(LINE.match(self.lines[at])) and at + 2 < len(self.lines)
        title, under = at + over, at + over + 1
        if under >= len(self.lines) or not self.lines[title].strip() or not LINE.match(self.lines[under]):
            return None
        said, mark = self.lines[title].strip(), self.lines[under][0]
        if (over and mark != self.lines[at][0]) or LINE.match(said) or len(self.lines[under].rstrip()) < len(said):
            return None
        if not over and self.lines[title][0].isspace():
            return None
        self._end()
        style = mark * (1 + over)
        if style not in self.styles:
            self.styles.append(style)
        self.path = [*self.path[: self.styles.index(style)], _inline(said)]
        return under + 1

    def _explicit(self, at: int) -> int | None:
        """A directive, target or comment; gives the line behind what is not shown of it."""
        line = self.lines[at]
        if not re.match(r"\s*\.\.(\s|$)", line):
            return None
        found = DIRECTIVE.match(line)
        name = found.group(1).split(":")[-1] if found else ""
        if found and name not in HIDDEN:
            self.text += ["", found.group(2) if name in SHOWN else ""]
            at += 1
            while at < len(self.lines) and re.match(r"\s+:[\w\-]+:", self.lines[at]):
                at += 1
            return at
        at += 1
        while at < len(self.lines) and (not self.lines[at].strip() or _indent(self.lines[at]) > _indent(line)):
            at += 1
        self.text.append("")
        return at

    def _line(self, at: int) -> int:
        line = self.lines[at]
        shown = "" if LINE.match(line.strip()) or re.fullmatch(r"[=\-+|\s]{3,}", line) else line
        self.text.append(re.sub(r"::\s*$", ":", shown) if shown.strip() != "::" else "")
        return at + 1

    def _end(self) -> None:
        blocks = re.split(r"\n\s*\n", "\n".join(self.text))
        folded = [" ".join(_inline(block).split()) for block in blocks if block.strip()]
        if folded:
            self.sections.append(Section(tuple(self.path), "\n\n".join(folded)))
        self.text = []


def read_rst(text: str) -> tuple[str, list[Section]]:
    """A file's title, where one heading stands over all of it, and its sections."""
    sections = _Reader(text).read()
    mains = {section.headings[0] for section in sections if section.headings}
    if len(mains) != 1 or not sections[0].headings:
        return "", sections
    return mains.pop(), [section._replace(headings=section.headings[1:]) for section in sections]
