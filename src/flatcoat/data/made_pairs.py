"""Questions made from documents that nobody has judged: titles, headings and sentences, each with the passages that answer it.

Kinds, told by the first part of a query's id: `title` (of a document; all its passages answer), `heading` (the passages of its
section, those of the sections within it among them), `first` (a passage's first sentence; the rest of it answers) and `cloze` (any
other sentence of a passage: the inverse cloze task, Lee et al. 2019, arXiv 1906.00300). A passage gives one sentence, first or other as
chance has it. In training the question's own words are left out of what answers it nine times in ten, so that meaning is learnt and
matching words not unlearnt.

Held out are whole documents: a test document answers no question of training. Equal documents share a split; those that are only nearly
equal (two versions of one text) may not. Left out, and counted, are questions that are too short or long, no prose, said by several
documents (boilerplate) or splits, answered by too many passages, or by one that without the question's words has none left; and of the
kinds with the most questions, those that are more than twice the median kind's.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np

from flatcoat.columns import text_hash
from flatcoat.data.passages import Span, length
from flatcoat.records import full_text

KINDS = ("title", "heading", "first", "cloze")
SHORTEST = {"title": 2, "heading": 2, "first": 4, "cloze": 4}  # words
LONGEST = 60  # words
NOTHING_ELSE = "answered by a passage that says nothing else"
MOST_RELEVANT = 10  # passages
MOST_DOCUMENTS = 2  # that say the same, before it is boilerplate
LEFT_OUT = 0.9  # how often a question's words are left out of its answer in training
SHARES = {"test": 0.15, "dev": 0.1}  # of the passages
MOST_HELD_OUT = {"test": 500, "dev": 300}  # questions


class Piece(NamedTuple):
    """A passage as questions are made from it."""

    id: str
    document: int
    title: str  # the document's own; empty where it says none
    headings: tuple[str, ...]
    text: str
    sentences: tuple[Span, ...]


@dataclass
class Made:
    """A question, and the numbers of the passages that answer it."""

    kind: str
    text: str
    documents: set[int] = field(default_factory=set)
    relevant: list[int] = field(default_factory=list)
    split: str = "train"

    @property
    def id(self) -> str:
        """Its kind, and its text's hash."""
        return f"{self.kind}-{text_hash(folded(self.text)):016x}"


def folded(text: str) -> str:
    """A text with case, white space and the marks at its ends folded away."""
    return " ".join(text.lower().split()).strip(" .:;!?…。！？।॥؟۔\"'“”‘’")


def joined_title(title: str, headings: Iterable[str]) -> str:
    """A passage's title: the document's, and the headings above it."""
    return " › ".join(part for part in (title, *headings) if part)


def hold_out(pieces: Sequence[Piece], seed: int) -> list[str]:
    """The split of each document, by a draw that `seed` and the document's first passage decide.

    Splits hold about `SHARES` of the passages; where there are three different documents or more, each split has at least one.
    """
    texts: dict[int, list[Piece]] = {}
    for piece in pieces:
        texts.setdefault(piece.document, []).append(piece)
    same: dict[int, list[int]] = {}  # documents of equal text
    for document, own in texts.items():
        same.setdefault(text_hash("\0".join(piece.text for piece in own)), []).append(document)
    groups = sorted(same.values(), key=lambda group: text_hash(f"{seed} {texts[group[0]][0].id}"))
    sizes = [sum(len(texts[document]) for document in group) for group in groups]
    split = ["train"] * (max(texts, default=-1) + 1)
    left = list(range(len(groups)))
    for name, share in SHARES.items():
        if len(groups) < len(SHARES) + 1:
            break
        chosen = _filled(left, sizes, share * sum(sizes))
        left = [number for number in left if number not in chosen]
        for document in (document for number in chosen for document in groups[number]):
            split[document] = name
    return split


def _filled(left: list[int], sizes: list[int], room: float) -> set[int]:
    """Groups in their order while they fit; the smallest where none does."""
    chosen: set[int] = set()
    for number in left:
        if sizes[number] <= room:
            chosen.add(number)
            room -= sizes[number]
    return chosen or {min(left, key=lambda number: sizes[number])}


def make_questions(pieces: Sequence[Piece], splits: Sequence[str], seed: int) -> tuple[list[Made], Counter[str]]:
    """The questions of every split, in the order of the passages, and how many were left out and why."""
    found: dict[str, Made] = {}
    for number, piece in enumerate(pieces):
        for kind, text in _candidates(piece, seed):
            made = found.setdefault(folded(text), Made(kind, text))
            made.documents.add(piece.document)
            made.relevant.append(number)
    _find_elsewhere(found, pieces)
    dropped: Counter[str] = Counter()
    kept: dict[str, list[Made]] = {"train": [], **{name: [] for name in SHARES}}
    for made in found.values():
        own = {splits[document] for document in made.documents}
        why = _wrong(made) or ("said in several splits" if len(own) > 1 else None)
        if not why and not all(_has_more(pieces[number], {folded(made.text)}) for number in made.relevant):
            why = NOTHING_ELSE
        if why:
            dropped[why] += 1
        else:
            made.split = own.pop()
            kept[made.split].append(made)
    for name, group in kept.items():
        kept[name] = _balanced(group, MOST_HELD_OUT.get(name), seed, dropped)
        if name in SHARES:
            kept[name] = _taken_out_together(kept[name], pieces, dropped)
    return [made for group in kept.values() for made in group], dropped


def _candidates(piece: Piece, seed: int) -> Iterable[tuple[str, str]]:
    if piece.title:
        yield "title", piece.title
    for heading in dict.fromkeys(piece.headings):
        yield "heading", heading
    if len(piece.sentences) > 1:
        rng = np.random.default_rng([seed, text_hash(piece.id)])
        chosen = int(rng.integers(1, len(piece.sentences))) if rng.random() < 0.5 else 0
        start, end = piece.sentences[chosen]
        yield "cloze" if chosen else "first", piece.text[start:end]


def _find_elsewhere(found: dict[str, Made], pieces: Sequence[Piece]) -> None:
    """A sentence's question is answered by every passage that holds it, as those that overlap do."""
    for number, piece in enumerate(pieces):
        for start, end in piece.sentences:
            made = found.get(folded(piece.text[start:end]))
            if made is not None and made.kind in ("first", "cloze"):
                made.documents.add(piece.document)
                made.relevant.append(number)
    for made in found.values():
        made.relevant = sorted(set(made.relevant))


def _wrong(made: Made) -> str | None:
    words = length(made.text)
    letters = len(re.findall(r"[^\W\d_]|[\u0300-\u036f\u0900-\u0dff\u0e31-\u0e4e]", made.text))
    said = {
        "too short": words < SHORTEST[made.kind] and len(made.text) < 8 * SHORTEST[made.kind],
        "too long": words > LONGEST,
        "no prose": letters < 0.6 * len(re.sub(r"\s", "", made.text)),
        "boilerplate": len(made.documents) > MOST_DOCUMENTS,
        "answered by too many passages": len(made.relevant) > MOST_RELEVANT,
    }
    return next((why for why, so in said.items() if so), None)


def _has_more(piece: Piece, gone: set[str]) -> bool:
    """Whether a passage has a sentence that is none of those, folded."""
    return any(folded(piece.text[start:end]) not in gone for start, end in piece.sentences)


def _taken_out_together(group: list[Made], pieces: Sequence[Piece], dropped: Counter[str]) -> list[Made]:
    """Those whose words can all be taken out of a passage at once, with some text left of it; the earlier ones stay."""
    gone: defaultdict[int, set[str]] = defaultdict(set)
    kept = []
    for made in group:
        words = folded(made.text)
        if all(_has_more(pieces[number], gone[number] | {words}) for number in made.relevant):
            kept.append(made)
            for number in made.relevant:
                gone[number].add(words)
        else:
            dropped[NOTHING_ELSE] += 1
    return kept


def _balanced(group: list[Made], most: int | None, seed: int, dropped: Counter[str]) -> list[Made]:
    """No kind more than twice the median kind, nor more than its share of `most`; which stay is drawn by `seed`."""
    by_kind = {kind: [made for made in group if made.kind == kind] for kind in KINDS}
    counts = [len(own) for own in by_kind.values() if own]
    if not counts:
        return []
    room = 2 * median_low(counts)
    if most is not None:
        room = min(room, -(-most // len(counts)))
    kept: set[str] = set()
    for own in by_kind.values():
        drawn = sorted(own, key=lambda made: text_hash(f"{seed} {made.id}"))
        kept.update(made.id for made in drawn[:room])
        dropped["more than its kind's share"] += max(0, len(own) - room)
    return [made for made in group if made.id in kept]


def without(piece: Piece, title: str, asked: Iterable[Made]) -> tuple[str, str]:
    """Title and text of a passage, `title` its document's, without the words of the questions that it answers.

    Whatever says such a question goes, be it the title, a heading or a sentence; a passage that is nothing else has no text then.
    """
    gone = {folded(made.text) for made in asked}
    headings = [heading for heading in piece.headings if folded(heading) not in gone]
    title = "" if folded(title) in gone else title
    kept, at = "", 0
    for start, end in piece.sentences:
        if folded(piece.text[start:end]) in gone:
            kept, at = _joined(kept, piece.text[at:start]), end
    text = re.sub(r"\n{3,}", "\n\n", _joined(kept, piece.text[at:])).strip()
    return joined_title(title, headings), text


def _joined(before: str, after: str) -> str:
    """Two stretches of text where what stood between them is gone: one space, or the line's end that is there."""
    before, after = before.rstrip(" "), after.lstrip(" ")
    return before + (" " if before and not before.endswith("\n") and not after.startswith("\n") else "") + after


def shown(made: Made, piece: Piece, title: str, seed: int) -> str | None:
    """What training sees of a passage for a question; None, one time in ten, where that is the passage as it is."""
    rng = np.random.default_rng([seed, 1, text_hash(made.id), text_hash(piece.id)])
    return full_text(*without(piece, title, [made])) if rng.random() < LEFT_OUT else None


def made_facts(
    questions: Sequence[Made], splits: Sequence[str], dropped: Counter[str], withheld: bool
) -> dict[str, Any]:
    """What a store says of its questions: their numbers by split and kind, what was left out, and what they are worth."""
    counts: dict[str, Counter[str]] = {}
    for made in questions:
        counts.setdefault(made.split, Counter())[made.kind] += 1
    held = splits.count("test")
    words = (
        "Each held-out question (a title, heading or sentence) was taken out of the passages that answer it, since whoever asks "
        "does not know its words."
        if withheld
        else "The passages still hold the words of the questions, which flatters every system, and BM25 the most."
    )
    return {
        "statement": "These questions were made from the documents themselves (titles, headings and sentences of "
        f"{held} documents that training saw no answer from, though perhaps one from a nearly equal document), not asked by "
        "anybody: they tell whether training helped on this text, not how well people's questions are answered. "
        f"{words}",
        "questions": {split: dict(counts[split]) for split in ("train", "dev", "test") if split in counts},
        "documents": {split: splits.count(split) for split in ("train", "dev", "test")},
        "left_out": {why: count for why, count in dropped.items() if count},
        "withheld": withheld,
    }
