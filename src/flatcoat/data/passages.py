"""Cutting text into passages: whole sentences, as many as fit, each passage beginning with the end of the one before.

A length is counted in words. What has no spaces between words counts by characters: two of them (Han, Kana, Hangul's neighbours
Thai, Lao, Khmer, Burmese, Tibetan) are one word, and a run of other characters one word for each forty begun. A sentence is cut only
where it alone is too long; then between words, and within a word only where that is too long too.

Sentences end as the world writes them: . ! ? … before white space (not behind an abbreviation or an initial), 。！？ of East
Asia, the danda of India, ؟ and ۔ of Arabic and Urdu, and their like; a line's end always ends one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from flatcoat.errors import Misuse

MOST_WORDS = 180
OVERLAP = 30
SPACELESS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
ATOM = re.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]{{1,40}}")
ALONE = re.compile(f"[{SPACELESS}]")
CLOSERS = "\"'”’»)\\]}）」』】〉》"
END = re.compile(rf"(?P<spaced>(?<![.!?…؟۔።։])[.!?…؟۔።։]+[{CLOSERS}]*)(?=\s)|[。！？｡．।॥။។៕།]+[{CLOSERS}]*|\n")
SHORT = (
    "al approx bzw ca cf ch co corp dept dr ed eds eg eq etc fig figs ie inc jr ltd mme mr mrs ms nr nos p pp prof ref refs resp "
    "sec sect sr st u.a usw viz vol vs z.b e.g i.e a.m p.m u.s"
)
ABBREVIATIONS = frozenset(SHORT.split())
Span = tuple[int, int]


class Passage(NamedTuple):
    """A stretch of a section: where it lies in the section's text, and its sentences."""

    start: int
    end: int
    sentences: tuple[Span, ...]


def length(text: str) -> int:
    """Words of a text, as this module counts them."""
    return (_halves(text) + 1) // 2


def _halves(text: str) -> int:
    return 2 * len(ATOM.findall(text)) - len(ALONE.findall(text))


def sentences(text: str) -> list[Span]:
    """The sentences of a text in order: together they hold every character that is not white space."""
    ends = [end.end() for end in END.finditer(text) if not (end.group("spaced") and _goes_on(text, end))]
    spans, start = [], 0
    for end in (*ends, len(text)):
        span = _trimmed(text, start, end)
        if span[0] < span[1]:
            spans.append(span)
        start = end
    return spans


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether a full stop ends no sentence: behind an abbreviation or an initial, or before a small letter."""
    following = text[end.end() : end.end() + 2].lstrip()[:1]
    if following.islower() and end.group()[-1] in ".…":
        return True
    if end.group() != ".":
        return False
    word = re.search(r"[^\s(\[\"'“]{0,12}$", text[max(0, end.start() - 12) : end.start()])
    before = word.group().lower() if word else ""
    return before in ABBREVIATIONS or (len(before) == 1 and before.isalpha())


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), max(start, end - (len(piece) - len(piece.rstrip())))


def _pieces(text: str, span: Span, most: int) -> list[Span]:
    """A sentence, cut where it is longer than `most` words."""
    starts, used = [span[0]], 0
    for atom in ATOM.finditer(text, *span):
        cost = 1 if ALONE.match(atom.group()) else 2
        if used + cost > 2 * most:
            starts.append(atom.start())
            used = 0
        used += cost
    return [_trimmed(text, *ends) for ends in zip(starts, [*starts[1:], span[1]], strict=True)]


def cut(text: str, most: int = MOST_WORDS, overlap: int = OVERLAP) -> list[Passage]:
    """The passages of a text, in order, none longer than `most` words.

    Each begins with the last sentences of the one before, as many as have no more than `overlap` words together and leave room
    for the next sentence.

    Raises:
        Misuse: lengths that leave no room for anything new.
    """
    if not 0 <= overlap < most:
        raise Misuse(f"words={most} and overlap={overlap}: want 0 <= overlap < words")
    units = [piece for span in sentences(text) for piece in _pieces(text, span, most)]
    costs = [_halves(text[start:end]) for start, end in units]
    passages: list[Passage] = []
    first = at = 0
    while at < len(units):
        used = sum(costs[first:at])
        while at < len(units) and used + costs[at] <= 2 * most:
            used += costs[at]
            at += 1
        passages.append(Passage(units[first][0], units[at - 1][1], tuple(units[first:at])))
        first = _begin(costs, first, at, most, overlap)
    return passages


def _begin(costs: list[int], first: int, at: int, most: int, overlap: int) -> int:
    """Where the next passage begins: behind its predecessor's first sentence, so that each is shorter than the two together."""
    if at == len(costs):
        return at
    room, begin = min(2 * overlap, 2 * most - costs[at]), at
    while begin - 1 > first and costs[begin - 1] <= room:
        begin -= 1
        room -= costs[begin]
    return begin
