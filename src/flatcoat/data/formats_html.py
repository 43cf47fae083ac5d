"""HTML into sections: headings, paragraphs, lists, tables and code; no scripts, styles, form fields or navigation.

Pages that browsers mend are read as well: an element that is never closed ends with the page, and where leaving out navigation leaves
nothing, only what can be no text is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

from flatcoat.data.formats import Section

NEVER = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas"})
BESIDE = frozenset({"nav", "footer", "button", "select", "textarea", "dialog"})
NAMES = (
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure form header hr li main ol p pre "
    "section summary table tbody td tfoot th thead tr ul"
)
BLOCKS = frozenset(NAMES.split())
INLINE_ROWS = frozenset({"td", "th"})
EMPTY = "area base br col embed hr img input link meta param source track wbr"
VOID = frozenset(EMPTY.split())
HEADING = re.compile(r"h[1-6]")


class _Page(HTMLParser):
    def __init__(self, skipped: frozenset[str], main: bool):
        super().__init__(convert_charrefs=True)
        self.skipped, self.main = skipped, main  # main: whether only what stands in that element is read
        self.closed_by: list[str] = []  # what is open within what is left out, itself first
        self.within: Counter[str] = Counter()  # the same, counted
        self.titled, self.title = False, ""
        self.path: list[tuple[int, str]] = []
        self.level: int | None = None  # of the heading that is open
        self.exact = 0  # depth of pre
        self.words: list[str] = []
        self.blocks: list[str] = []
        self.sections: list[Section] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        if self.closed_by or self._left_out(tag, dict(attrs)):
            if tag not in VOID:
                self._leave_out(tag)
        elif tag == "title":
            self.titled = True
        elif tag == "br":
            self.words.append("\n" if self.exact else " ")
        else:
            self._open(tag)

    def _leave_out(self, tag: str) -> None:
        self.closed_by.append(tag)
        self.within[tag] += 1

    def _open(self, tag: str) -> None:
        if tag == "main" and self.main:
            self._begin_main()
        elif HEADING.fullmatch(tag):
            self._end_block()
            self.level = int(tag[1])
        elif tag in INLINE_ROWS:
            self.words.append(" ")
        elif tag in BLOCKS:
            self._end_block()
            self.exact += tag == "pre"

    def _begin_main(self) -> None:
        """Forget what stood before."""
        self.path, self.level, self.exact, self.words, self.blocks, self.sections = [], None, 0, [], [], []

    def _left_out(self, tag: str, attributes: dict[str, str | None]) -> bool:
        if tag in NEVER:
            return True
        aside = (
            attributes.get("role") == "navigation" or "hidden" in attributes or attributes.get("aria-hidden") == "true"
        )
        return tag not in VOID and bool(self.skipped) and (tag in self.skipped or aside)

    def handle_endtag(self, tag: str) -> None:
        """Close an element, and what is open within it."""
        if self.closed_by:
            while self.within[tag]:
                last = self.closed_by.pop()
                self.within[last] -= 1
                if last == tag:
                    break
        elif tag == "title":
            self.titled = False
        elif tag == "main" and self.main:
            self.end_section()
            self._leave_out("html")  # nothing behind it counts
        elif HEADING.fullmatch(tag) and self.level is not None:
            self._end_heading(self.level)
        elif tag in BLOCKS and tag not in INLINE_ROWS:
            self._end_block()
            self.exact = max(0, self.exact - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        """Take up text."""
        if self.closed_by:
            return
        if self.titled:
            self.title += data
        else:
            self.words.append(data)

    def _end_heading(self, level: int) -> None:
        said, self.words, self.level = " ".join("".join(self.words).replace("¶", "").split()), [], None
        if not said:
            return
        self.end_section()
        self.path = [(above, name) for above, name in self.path if above < level] + [(level, said)]

    def _end_block(self) -> None:
        text, self.words = "".join(self.words), []
        text = text.strip("\n").rstrip() if self.exact else " ".join(text.split())
        if text.strip():
            self.blocks.append(re.sub(r"\n{2,}", "\n", text))

    def end_section(self) -> None:
        """Take what was gathered as a section."""
        self._end_block()
        if self.blocks:
            self.sections.append(Section(tuple(name for _, name in self.path), "\n\n".join(self.blocks)))
        self.blocks = []


def _read(page: str, skipped: frozenset[str], main: bool) -> _Page:
    reader = _Page(skipped, main)
    reader.feed(page)
    reader.close()
    reader.end_section()
    return reader


ENDS = (("<!--", ("-->", "-- >", "--!>")), ("<![", ("]>",)), ("<", (">",)))


def _ended(page: str) -> str:
    """A page with what begins and never ends as text: the parser would look for its end once for each beginning, to the page's end."""
    for begin, ends in ENDS:
        behind = max(page.rfind(end) for end in ends) + 1
        page = page[:behind] + page[behind:].replace(begin, f"&lt;{begin[1:]}")
    return page


def read_html(page: str) -> tuple[str, list[Section]]:
    """A page's title and sections. The title is its first main heading, or what its head says."""
    page = _ended(page)
    read = _read(page, BESIDE, True)
    for skipped in (BESIDE, frozenset()):
        read = read if read.sections else _read(page, skipped, False)
    mains = {section.headings[0] for section in read.sections if section.headings}
    if len(mains) == 1 and read.sections[0].headings:  # one heading over everything is the title
        sections = [section._replace(headings=section.headings[1:]) for section in read.sections]
        return mains.pop(), sections
    return " ".join(read.title.split()), read.sections
