"""The verbs of sparse vectors: update an index, exchange vectors with other engines."""

from __future__ import annotations

from pathlib import Path

from flatcoat.app.progress import say
from flatcoat.errors import FlatcoatError, Misuse, nearest

FORMATS = ("ciff", "anserini")


def update(index: Path, add: Path | None, delete: Path | None, quiet: bool) -> None:
    """`flatcoat update`."""
    from flatcoat.index.update import update_inverted
    from flatcoat.sparse_vectors import SparseFolder

    gone = []
    if delete is not None:
        try:
            gone = [line for line in delete.read_text(encoding="utf-8").split("\n") if line]
        except FileNotFoundError as error:
            raise Misuse(f"--delete {delete}: no such file; want one id a line") from error
    made = update_inverted(index, SparseFolder.open(add) if add else None, gone)
    left = made.facts["items"] - made.facts["deleted"]
    say(f"{left} documents, {made.facts['deleted']} deleted rows still numbered: {index}", quiet)


def export(vectors: Path, to: str, out: Path, scale: float, quiet: bool) -> None:
    """`flatcoat export`."""
    from flatcoat.index.ciff import write_ciff
    from flatcoat.index.sparse_jsonl import write_anserini
    from flatcoat.sparse_vectors import SparseFolder

    _known(to)
    folder = SparseFolder.open(vectors)
    write = write_ciff if to == "ciff" else write_anserini
    write(out, folder.vectors, folder.ids, folder.vocabulary, scale)
    say(f"{len(folder)} documents, weights × {scale:g} as whole numbers: {out}", quiet)


def bring_in(file: Path, of: str, out: Path, scale: float, quiet: bool) -> None:
    """`flatcoat import`."""
    from flatcoat.files import free_to_write
    from flatcoat.index.ciff import read_ciff
    from flatcoat.index.sparse_jsonl import read_anserini
    from flatcoat.sparse_vectors import write_sparse

    _known(of)
    if not file.is_file():
        raise FlatcoatError(f"{file}: no such file")
    free_to_write(out, "flatcoat-sparse", str(file))
    vectors, ids, vocabulary = (read_ciff if of == "ciff" else read_anserini)(file, scale)
    made = write_sparse(out, vectors, ids, vocabulary, {"side": "documents", "imported": of})
    say(f"{len(made)} sparse vectors over {len(vocabulary)} terms: {out}", quiet)


def _known(name: str) -> None:
    if name not in FORMATS:
        raise Misuse(f"format {name}: want {' or '.join(FORMATS)}{nearest(name, list(FORMATS))}")
