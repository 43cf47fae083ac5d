"""Is a table of results still the table?  Rows are matched by their key columns, and numbers compared by kind of column.

* quality: |new − old| within the column's tolerance. These should come back wherever the same inputs are.
* speed: within a share of the old number. With a `base` row (the peer), what is compared is the ratio to it in the same run, so that a busy
  or another machine cancels out; without, the number itself.
* words: of two lists of words in a cell, how many are not in both.

A cell's number is the first in it: `0.2163 ± 0.0059` is 0.2163. Where both cells have none they are compared as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NUMBER = re.compile(r"[-+−]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
SIZES = re.compile(r"(\d+) ((?:[\w-]+ )?(?:documents|queries|vectors|targets|seeds?|steps))\b(?!/)")  # not a rate
Rows = dict[tuple[str, ...], dict[str, str]]


@dataclass(frozen=True)
class Columns:
    """What each column of a claim's tables is. Each heading stands in one of the five, which a test holds."""

    keys: tuple[str, ...]
    quality: Mapping[str, float] = field(default_factory=dict)
    speed: tuple[str, ...] = ()
    words: Mapping[str, float] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    base: Mapping[str, str] | None = None
    within: float = 0.15

    def named(self) -> set[str]:
        """Every heading that is spoken of."""
        return {*self.keys, *self.quality, *self.speed, *self.words, *self.beside}


@dataclass(frozen=True)
class Difference:
    """A number that moved, or a row that came or went."""

    kind: str  # quality, speed, words, gone, new
    row: str
    column: str = ""
    old: str = ""
    new: str = ""
    delta: str = ""

    def line(self) -> str:
        """The difference as people read it."""
        if self.kind in ("gone", "new"):
            return f"{self.kind} row: {self.row}"
        return f"{self.kind}: {self.row}, {self.column}: {self.old} -> {self.new} ({self.delta})"


@dataclass(frozen=True)
class Results:
    """A results file: the tables in it, and the sizes of its inputs that its other lines name."""

    tables: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...]  # headings, rows
    notes: tuple[str, ...]

    def sizes(self) -> dict[str, set[str]]:
        """What was counted, and the numbers: `{"documents": {"5000"}}`."""
        found: dict[str, set[str]] = {}
        for note in self.notes:
            for number, what in SIZES.findall(note):
                found.setdefault(what, set()).add(number)
        return found


def read_results(path: Path) -> Results:
    """A .tsv of the benchmarks, or a Markdown page with tables. Raises ValueError where there is no table."""
    text = path.read_text(encoding="utf-8")
    found = _of_markdown(text) if path.suffix == ".md" else _of_tsv(text)
    if not found.tables:
        raise ValueError(f"{path}: no table")
    return found


def _of_tsv(text: str) -> Results:
    lines = text.splitlines()
    rows = [tuple(line.split("\t")) for line in lines if not line.startswith("# ")]
    if not rows:
        return Results((), ())
    return Results(((_unlike(rows[0]), tuple(rows[1:])),), tuple(line[2:] for line in lines if line.startswith("# ")))


def _of_markdown(text: str) -> Results:
    tables, notes, block = [], [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
            continue
        if len(block) > 2:
            tables.append((_unlike(block[0]), tuple(block[2:])))
        block = []
        notes.append(line)
    return Results(tuple(tables), tuple(notes))


def _unlike(headings: tuple[str, ...]) -> tuple[str, ...]:
    """Headings, of which the second of a name is `NAME 2`."""
    return tuple(
        name if name not in headings[:i] else f"{name} {headings[: i + 1].count(name)}"
        for i, name in enumerate(headings)
    )


def number(cell: str) -> float:
    """A cell's first number; not a number where it has none."""
    found = NUMBER.search(cell.replace(",", ""))
    return float(found.group().replace("−", "-")) if found else math.nan


def keyed(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...], columns: Columns) -> Rows:
    """Rows by their keys; where a table has none of those columns, by its first. Raises ValueError where two rows have one key."""
    keys = [name for name in columns.keys if name in headings] or [headings[0]]
    found: Rows = {}
    for row in rows:
        cells = dict(zip(headings, row, strict=False))
        key = tuple(cells.get(name, "") for name in keys)
        if key in found:
            raise ValueError(f"two rows {', '.join(key)}: more key columns are wanted than {', '.join(keys)}")
        found[key] = cells
    return found


def differences(old: Results, new: Results, columns: Columns, left_out: tuple[str, ...] = ()) -> list[Difference]:
    """What moved, came or went. Rows of which a key begins with one of `left_out` are not missed."""
    found: list[Difference] = []
    for i, (headings, rows) in enumerate(old.tables):
        before = keyed(headings, rows, columns)
        other = new.tables[i] if i < len(new.tables) else (headings, ())
        found += list(_of_rows(before, keyed(*other, columns), columns, left_out, headings))
    return found


def _of_rows(
    before: Rows, after: Rows, columns: Columns, left_out: tuple[str, ...], headings: tuple[str, ...]
) -> Iterator[Difference]:
    keys = [name for name in columns.keys if name in headings] or [headings[0]]
    for key, cells in before.items():
        row = ", ".join(part for part in key if part)
        if key in after:
            bases = (_base(table, cells, keys, columns) for table in (before, after))
            yield from _of_cells(row, cells, after[key], columns, *bases)
        elif not any(part.startswith(left_out) for part in key if left_out):
            yield Difference("gone", row)
    yield from (Difference("new", ", ".join(part for part in key if part)) for key in after if key not in before)


def _base(rows: Rows, cells: Mapping[str, str], keys: list[str], columns: Columns) -> Mapping[str, str] | None:
    """The peer's row of the same group."""
    if columns.base is None:
        return None
    return rows.get(tuple({**cells, **columns.base}.get(name, "") for name in keys))


def _of_cells(
    row: str, old: Mapping[str, str], new: Mapping[str, str], columns: Columns,
    old_base: Mapping[str, str] | None, new_base: Mapping[str, str] | None,
) -> Iterator[Difference]:  # fmt: skip
    for name in old:
        a, b = old[name], new.get(name, "")
        if name in columns.quality:
            change = number(b) - number(a)
            if (math.isnan(number(a)) and a != b) or not (a == b or abs(change) <= columns.quality[name] + 1e-12):
                yield Difference("quality", row, name, a, b, f"{change:+.4g}, tolerance {columns.quality[name]:g}")
        elif name in columns.words:
            apart = len(set(a.split()) ^ set(b.split())) / 2
            if apart > columns.words[name]:
                yield Difference("words", row, name, a, b, f"{apart:g} of {len(a.split())} are others")
        elif name in columns.speed:
            first, second = _ratio(old, old_base, name), _ratio(new, new_base, name)
            share = second / first - 1 if first else 0.0 if second == first else math.inf
            if a != b and not abs(share) <= columns.within:
                yield Difference("speed", row, name, f"{first:.4g}", f"{second:.4g}", f"{share:+.0%}")


def _ratio(cells: Mapping[str, str], base: Mapping[str, str] | None, name: str) -> float:
    own = number(cells.get(name, ""))
    peer = number(base.get(name, "")) if base is not None else 1.0
    return own / peer if peer else math.nan


def other_sizes(old: Results, new: Results) -> list[str]:
    """Inputs that were counted otherwise: `documents: 54229 -> 54310`."""
    before, after = old.sizes(), new.sizes()
    return [
        f"{what}: {'/'.join(sorted(before[what]))} -> {'/'.join(sorted(after[what]))}"
        for what in sorted(before.keys() & after.keys()) if before[what] != after[what]
    ]  # fmt: skip
