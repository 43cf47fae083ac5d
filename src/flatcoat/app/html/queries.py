"""Queries one by one: where two systems differ, and what each of all systems answered, for a choice of queries.

The choice is of one pair of systems: a third are its largest gains, a third its largest losses, the rest lie evenly between. What is
put into a page is bounded in bytes: where the choice is too large, half as many are chosen.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flatcoat.app.html.page import Figure, Section
from flatcoat.app.html.plots import pressed_chart, sorted_chart
from flatcoat.app.html.svg import safe
from flatcoat.app.html.tables import Table
from flatcoat.data.trec import read_run
from flatcoat.errors import FlatcoatError
from flatcoat.records import Qrels

MOST = 200  # queries shown
BYTES = 1_600_000  # of what is shown of them
BEST, JUDGED = 5, 8  # answers of a system, judged documents of a query
SNIPPET = 170

Values = Mapping[str, Mapping[str, float]]
Texts = Callable[[str], tuple[str, str]]
"""A document's title and text, by its id."""


@dataclass(frozen=True)
class Answers:
    """What there is to show: values by system and query, the best documents by system and query (None: not known), judgements."""

    measure: str
    values: Values
    best: Mapping[str, Callable[[Sequence[str]], Mapping[str, Sequence[str]]] | None]
    qrels: Qrels
    query: Callable[[str], str] = str
    document: Texts = lambda id: ("", "")


def chosen(differences: Mapping[str, float], most: int = MOST) -> list[str]:
    """Queries by falling difference: all, or a third of `most` from each end and the rest spread between."""
    ordered = sorted(differences, key=lambda query: (-differences[query], query))
    if len(ordered) <= most:
        return ordered
    ends = most // 3
    middle, left = ordered[ends : len(ordered) - ends], most - 2 * ends
    spread = [middle[i * len(middle) // left + len(middle) // (2 * left)] for i in range(left)]
    return [*ordered[:ends], *spread, *ordered[len(ordered) - ends :]]


def best_of_run(path: Path, queries: Sequence[str], k: int = BEST) -> dict[str, list[str]]:
    """The best documents of some queries from a run that we wrote: queries' lines together, by rank.

    It reads no other line. Its slow twin is `best_of_read_run`. Queries in the file's order are found in one pass.
    """
    found: dict[str, list[str]] = {query: [] for query in queries}
    if not path.stat().st_size:
        return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        for query in found:
            at = _begins(data, query.encode(), at)
            for _ in range(k if at >= 0 else 0):
                end = data.find(b"\n", at)
                parts = data[at : end if end >= 0 else len(data)].decode().split(" ")
                if len(parts) != 6 or parts[0] != query:
                    break
                found[query].append(parts[2])
                at = end + 1 if end >= 0 else len(data)
            at = max(at, 0)
    return found


def _begins(data: mmap.mmap, query: bytes, after: int) -> int:
    """Where a query's lines begin, looked for from `after` on and then from the start; -1 where it has none."""
    mark = query + b" Q0 "
    if data[after : after + len(mark)] == mark:
        return after
    for start in (max(0, after - 1), 0):
        at = data.find(b"\n" + mark, start)
        if at >= 0:
            return at + 1
    return 0 if data[: len(mark)] == mark else -1


def best_of_read_run(path: Path, queries: Sequence[str], k: int = BEST) -> dict[str, list[str]]:
    """The best documents of some queries of any run, by score."""
    run = read_run(path)
    return {query: list(run[query].doc_ids[:k]) if query in run else [] for query in queries}


def queries_section(section: Section, answers: Answers, plus: str, minus: str) -> Section:
    """Put the differences of two systems, and the chosen queries' answers of all, into a section."""
    measure = answers.measure
    differences = {q: v - answers.values[minus][q] for q, v in answers.values[plus].items()}
    label = f"{measure}: {plus} minus {minus}"
    better, worse = (sum(sign * v > 0 for v in differences.values()) for sign in (1, -1))
    section.text(f"{plus} against {minus}, {measure}: better on {better} queries, worse on {worse}, the same on "
                 f"{len(differences) - better - worse}.")  # fmt: skip
    if len(differences) > MOST:
        values = list(differences.values())
        section.figure(Figure(
            f"All {len(values)} queries, by difference", lambda n, t, w: sorted_chart(n, t, values, w, y_label=label),
            _deciles(values, measure),
        ))  # fmt: skip
    if len(answers.values) > 1:
        section.table(f"Queries won and lost against {minus}", _won(answers, minus), folded=True)
    data, shown = _data(answers, differences, plus, minus)
    bars = [(answers.query(q), differences[q]) for q in shown]
    figure = Figure(
        "Query by query", lambda n, t, w: pressed_chart(n, t, bars, w, y_label=label),
        Table(["query", "text", f"Δ {measure}"], [[q, answers.query(q)[:200], f"{differences[q]:+.4f}"] for q in shown]),
        _which(len(shown), len(differences), plus, minus),
    )  # fmt: skip
    section.part(f'<div class="queries">{_controls(list(answers.values), plus, minus)}')
    section.figure(figure)
    section.part(f'<div class="answer" role="region" aria-label="The query and its answers" aria-live="polite"></div>'
                 f'<script type="application/json">{data}</script></div>\n')  # fmt: skip
    return section


def _which(shown: int, all: int, plus: str, minus: str) -> str:
    said = f"Press a bar, or go along them with the arrow keys, to see the query, its judged documents and each system's best {BEST}."
    if shown == all:
        return said
    chosen = f"a third where {plus} gains most on {minus}, a third where it loses most, the rest spread between"
    return f"{said} {shown} of {all} queries: {chosen}."


def _deciles(values: list[float], measure: str) -> Table:
    ordered = sorted(values, reverse=True)
    places = [round(i * (len(ordered) - 1) / 20) for i in range(21)]
    return Table(["rank", f"Δ {measure}"], [[str(i + 1), f"{ordered[i]:+.4f}"] for i in places])


def _won(answers: Answers, minus: str) -> Table:
    rows = []
    for name, values in answers.values.items():
        if name != minus:
            deltas = [v - answers.values[minus][q] for q, v in values.items()]
            better, worse = sum(d > 0 for d in deltas), sum(d < 0 for d in deltas)
            rows.append([name, str(better), str(len(deltas) - better - worse), str(worse)])
    return Table(["system", "better", "the same", "worse"], rows)


def _controls(systems: Sequence[str], plus: str, minus: str) -> str:
    def menu(side: str, now: str) -> str:
        chosen = ("", " selected")
        options = (f'<option value="{i}"{chosen[name == now]}>{safe(name)}</option>' for i, name in enumerate(systems))
        said = "System" if side == "plus" else "Compared with"
        return f'<select data-side="{side}" aria-label="{said}" autocomplete="off">{"".join(options)}</select>'

    return f'<div class="controls">{menu("plus", plus)} minus {menu("minus", minus)}</div>'


class _Documents:
    """Documents that are shown, each once."""

    def __init__(self, text: Texts):
        self.text, self.places, self.rows = text, {}, []

    def place(self, id: str) -> int:
        if id not in self.places:
            self.places[id] = len(self.rows)
            title, body = self.text(id)
            self.rows.append([id, _short(title, 120), _short(body, SNIPPET)])
        return self.places[id]


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _data(
    answers: Answers, differences: Mapping[str, float], plus: str, minus: str
) -> tuple[str, list[str]]:  # fmt: skip
    """What the page's script reads, and which queries it is of, no more than BYTES."""
    most = MOST
    while True:
        shown = chosen(differences, most)
        data = _of(answers, shown)
        if len(data.encode()) <= BYTES or most <= 10:
            return data, shown
        most //= 2


def _of(answers: Answers, shown: Sequence[str]) -> str:
    place = {query: i for i, query in enumerate(answers.values[next(iter(answers.values))])}
    ordered = sorted(shown, key=place.__getitem__)  # as the runs have them
    best = {system: of(ordered) if of else None for system, of in answers.best.items()}
    documents, queries = _Documents(answers.document), []
    for query in shown:
        judged = sorted(answers.qrels.get(query, {}).items(), key=lambda item: (-item[1], item[0]))
        queries.append({
            "id": query, "text": _short(answers.query(query), 600),
            "values": [round(values[query], 4) for values in answers.values.values()],
            "judged": [[documents.place(id), grade] for id, grade in judged[:JUDGED]], "more": max(0, len(judged) - JUDGED),
            "top": [None if (known := best[system]) is None else [documents.place(id) for id in known[query]] for system in answers.values],
        })  # fmt: skip
    said = {
        "measure": answers.measure,
        "systems": list(answers.values),
        "queries": queries,
        "documents": documents.rows,
    }
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def store_texts(folder: Path) -> tuple[Callable[[str], str], Texts] | None:
    """Queries and documents of a collection's store; None where it is not there."""
    from flatcoat.data.store import Collection

    try:
        collection = Collection.open(folder)
    except FlatcoatError:
        return None
    asked, documents = collection.queries, collection.documents

    def query(id: str) -> str:
        row = asked.lookup.row(id)
        return id if row is None else asked.text(row)

    def document(id: str) -> tuple[str, str]:
        row = documents.lookup.row(id)
        return ("", "") if row is None else (documents.titles[row], documents.bodies[row][: 4 * SNIPPET])

    return query, document
