"""The verbs of sparse vectors: update an index, exchange vectors with other engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flatcoat.app.progress import say
from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.files import read_json
from flatcoat.representations import Sparse

FORMATS = ("ciff", "anserini")


def update(index: Path, add: Sequence[str], delete: Path | None, collection: str | None, quiet: bool) -> None:
    """`flatcoat update`."""
    from flatcoat.index.remote.store import is_remote

    if is_remote(index):
        from flatcoat.app.verbs_engine import update as change

        change(index, add, delete, collection, quiet)
        return
    if len(add) > 1 or collection is not None:
        raise Misuse(f"{index} is not in an engine: it takes one --add, and no --collection")
    _here(index, Path(add[0]) if add else None, read_ids(delete) if delete else [], quiet)


def read_ids(file: Path) -> list[str]:
    """A file of document ids, one a line. Raises Misuse where there is none, or no text."""
    try:
        return [line for line in file.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError as error:
        raise Misuse(f"--delete {file}: no such file; want one id a line") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"--delete {file}: not UTF-8 text; want one id a line") from error


def _here(index: Path, add: Path | None, gone: list[str], quiet: bool) -> None:
    from flatcoat.index.store import open_index
    from flatcoat.index.update import update_inverted, update_multivector
    from flatcoat.multi_vectors import MultiFolder
    from flatcoat.sparse_vectors import SparseFolder

    if "tokens" in open_index(index).facts:
        made = update_multivector(index, MultiFolder.open(add) if add else None, gone)
    else:
        made = update_inverted(index, SparseFolder.open(add) if add else None, gone)
    left = made.facts["items"] - made.facts["deleted"]
    say(f"{left} documents, {made.facts['deleted']} deleted rows still numbered: {index}", quiet)


def export(vectors: Path, to: str, out: Path, scale: float, quiet: bool) -> None:
    """`flatcoat export`."""
    from flatcoat.index.ciff import write_ciff
    from flatcoat.index.sparse_jsonl import write_anserini
    from flatcoat.sparse_vectors import SparseFolder

    _known(to, scale)
    folder = SparseFolder.open(vectors)
    write = write_ciff if to == "ciff" else write_anserini
    write(out, folder.vectors, folder.ids, folder.vocabulary, scale)
    say(f"{len(folder)} documents, weights × {scale:g} as whole numbers: {out}", quiet)


def bring_in(file: Path, of: str, out: Path, like: Path | None, scale: float, quiet: bool) -> None:
    """`flatcoat import`."""
    from flatcoat.files import free_to_write
    from flatcoat.index.ciff import read_ciff
    from flatcoat.index.sparse_jsonl import read_anserini
    from flatcoat.sparse_vectors import write_sparse

    _known(of, scale)
    if not file.is_file():
        raise FlatcoatError(f"{file}: no such file")
    free_to_write(out, "flatcoat-sparse", str(file))
    vectors, ids, vocabulary = (read_ciff if of == "ciff" else read_anserini)(file, scale)
    double = next((item for item, count in Counter(ids).items() if count > 1), None)
    if double is not None:
        raise FlatcoatError(f"{file}: document {double!r} is there twice; ids are unique")
    if like is not None:
        vectors, vocabulary = renumbered(vectors, vocabulary, read_json(like / "vocabulary.json"), file)
    made = write_sparse(out, vectors, ids, vocabulary, {"side": "documents", "imported": of})
    say(f"{len(made)} sparse vectors over {len(vocabulary)} terms: {out}", quiet)


def renumbered(vectors: Sparse, own: list[str], like: list[str], file: Path) -> tuple[Sparse, list[str]]:
    """The same weights under another vocabulary's numbers. Raises FlatcoatError where a term is not of it."""
    numbers = {term: number for number, term in enumerate(like)}
    strange = next((term for term in own if term not in numbers), None)
    if strange is not None:
        raise FlatcoatError(f"{file}: term {strange!r} is not of the vocabulary that --like has")
    terms = np.array([numbers[term] for term in own], dtype=np.int32)[vectors.terms]
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.start))
    order = np.lexsort((terms, rows))
    return Sparse(vectors.start, terms[order], vectors.weights[order], len(like)), like


def _known(name: str, scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise Misuse(f"--scale {scale:g}: want a number above 0")
    if name not in FORMATS:
        raise Misuse(f"format {name}: want {' or '.join(FORMATS)}{nearest(name, list(FORMATS))}")
