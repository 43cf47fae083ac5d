"""A folder of a person's own documents as a collection: `files:FOLDER`, cut into passages, with questions made from it.

Text, Markdown, reStructuredText, HTML, PDF, CSV, TSV and Parquet files are read wherever they lie under the folder, in the order of
their paths; hidden files and folders are not, nor is any symbolic link, nor a folder that Flatcoat wrote. A passage's id is its file's
path and its number there (`guide/start.md#3`; a table's row is `faq.csv:KEY#1`, or its number where it has no key), white space and %
written as %20 and %25. Of documents with the same id the first is kept, and the others reported. Options follow a question
mark, as in `files:notes?words=120&text=body`: `text`, `title` and `id` name a table's columns; `words` and `overlap` cut; `seed` draws
questions; `withhold=true` takes the words of held-out questions out of the passages that answer them.

The folder's text is held in memory while it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from flatcoat.data import made_pairs
from flatcoat.data.formats import READERS, Source, document_id, read_file, stem
from flatcoat.data.formats_tables import TABLES, Columns, read_table
from flatcoat.data.made_pairs import Made, Piece, joined_title
from flatcoat.data.passages import MOST_WORDS, OVERLAP, cut
from flatcoat.data.problems import Problems
from flatcoat.data.store import StoreBuilder
from flatcoat.errors import Misuse, nearest
from flatcoat.files import MANIFEST, digest

ENDINGS = frozenset(READERS) | TABLES
NOT_READ = frozenset({".doc", ".docx", ".odt", ".rtf", ".epub", ".ppt", ".pptx", ".xls", ".xlsx", ".json", ".jsonl", ".xml",
                      ".tex", ".adoc", ".org", ".mdx"})  # fmt: skip


class Folder(NamedTuple):
    """What `files:` names: a folder, and how it is read."""

    root: Path
    columns: Columns = Columns()
    words: int = MOST_WORDS
    overlap: int = OVERLAP
    seed: int = 0
    withhold: bool = False


NUMBERS = (("words", MOST_WORDS), ("overlap", OVERLAP), ("seed", 0))
OPTIONS = ("text", "title", "id", "words", "overlap", "seed", "withhold")


def parse_folder(where: str) -> Folder:
    """What `files:WHERE` asks for. Raises Misuse: no such folder, an unknown option, or a value that is not right."""
    path, mark, options = where.rpartition("?") if not Path(where).exists() else (where, "", "")
    root = Path(path if mark else where)
    if not root.is_dir():
        raise Misuse(f"files:{where}: no such folder")
    said = dict(parse_qsl(options, keep_blank_values=True))
    for name in said:
        if name not in OPTIONS:
            raise Misuse(
                f"files:{where}: no option {name!r}{nearest(name, list(OPTIONS))}; known: {', '.join(OPTIONS)}"
            )
    if said.get("withhold", "false") not in ("true", "false"):
        raise Misuse(f"files:{where}: withhold={said['withhold']}: want true or false")
    words, overlap, seed = (_number(where, name, said.get(name), usual) for name, usual in NUMBERS)
    if not overlap < words:
        raise Misuse(f"files:{where}: overlap={overlap} is not below words={words}")
    columns = Columns(said.get("text"), said.get("title"), said.get("id"))
    return Folder(root, columns, words, overlap, seed, said.get("withhold") == "true")


def _number(where: str, name: str, value: str | None, usual: int) -> int:
    if value is None:
        return usual
    if not value.isdecimal() or (name == "words" and int(value) < 1):
        raise Misuse(f"files:{where}: {name}={value}: want a whole number")
    return int(value)


def folder_name(where: str) -> str:
    """`files:WHERE`, the same from every working directory."""
    root = parse_folder(where).root
    _, mark, options = where.rpartition("?") if not Path(where).exists() else ("", "", "")
    return f"files:{root.resolve()}{mark}{options}"


def is_documents(folder: Path) -> bool:
    """Whether a folder holds a file that is read."""
    return next(_walk(folder, None), None) is not None


def _walk(root: Path, problems: Problems | None) -> Iterator[Path]:
    """The files that are read, by falling into folders in order; what else looks like a document is reported."""

    def unreadable(error: OSError) -> None:
        _say(problems, "unreadable folder", Path(error.filename), root, f"cannot be read ({error.strerror})")

    for place, folders, files in os.walk(root, onerror=unreadable):
        if _written_by_us(Path(place), files):
            folders[:] = []
            _say(problems, "folder of Flatcoat", Path(place), root, "holds what Flatcoat wrote, no documents; left out")
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in (*files, *folders) if not name.startswith(".")):
            if _is_read(Path(place) / name, root, problems):
                yield Path(place) / name


def _is_read(path: Path, root: Path, problems: Problems | None) -> bool:
    ending = path.suffix.lower()
    if path.is_symlink():
        if not _read_elsewhere(path, root):
            said = "leads out of the folder, to what is hidden there, or nowhere"
            _say(problems, "link not followed", path, root, said)
        return False
    if ending in NOT_READ and not path.is_dir():
        _say(problems, "format not read", path, root, f"{ending} files are not read; save it as .txt or .pdf")
    return ending in ENDINGS and path.is_file()


def _say(problems: Problems | None, kind: str, path: Path, root: Path, message: str) -> None:
    if problems is not None:
        problems.add(kind, _name(path, root), message)


def _written_by_us(folder: Path, files: list[str]) -> bool:
    """Whether a folder is a run's, or has a manifest of ours."""
    if {"recipe.toml", "stages.json"} <= set(files):
        return True
    if MANIFEST not in files:
        return False
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and str(said.get("format")).startswith("flatcoat-")


def _read_elsewhere(link: Path, root: Path) -> bool:
    """Whether a link names what lies in the folder itself, in the open, and is therefore read there."""
    try:
        target = link.resolve(strict=True).relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return False
    return not any(part.startswith(".") for part in target.parts)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def files_listing(where: str) -> str:
    """A digest of the names, sizes and times of the files that are read."""
    root = parse_folder(where).root
    stats = [(document_id(_name(path, root)), path.stat()) for path in _walk(root, None)]
    return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def sources_of(folder: Folder, problems: Problems) -> Iterator[Source]:
    """The documents of a folder, in the order of their paths; one whose id came before is left out, and reported."""
    known: set[str] = set()
    for source in _all_sources(folder, problems):
        if source.id in known:
            problems.add(
                "duplicate document id", source.path, f"document id {source.id!r} came before; the first is kept"
            )
            continue
        known.add(source.id)
        yield source


def _all_sources(folder: Folder, problems: Problems) -> Iterator[Source]:
    for path in _walk(folder.root, problems):
        name = _name(path, folder.root)
        id = document_id(name)
        if path.suffix.lower() in TABLES:
            yield from read_table(path, name, id, folder.columns, problems)
        elif (source := read_file(path, name, id, problems)) is not None:
            yield source


def passages_of(source: Source, document: int, words: int, overlap: int) -> Iterator[tuple[Piece, int | None]]:
    """A document's passages, numbered from 1, and the page of each."""
    number = 0
    for section in source.sections:
        for passage in cut(section.text, words, overlap):
            number += 1
            at = passage.start
            spans = tuple((start - at, end - at) for start, end in passage.sentences)
            text = section.text[at : passage.end]
            yield Piece(f"{source.id}#{number}", document, source.title, section.headings, text, spans), section.page


def read_files(where: str, builder: StoreBuilder, problems: Problems) -> list[Path]:
    """Feed a folder of documents to a builder, with questions made from them in the splits train, dev and test."""
    folder = parse_folder(where)
    sources = list(sources_of(folder, problems))
    found = [
        pair
        for document, source in enumerate(sources)
        for pair in passages_of(source, document, folder.words, folder.overlap)
    ]
    pieces = [piece for piece, _ in found]
    splits = made_pairs.hold_out(pieces, folder.seed)
    if sources and "test" not in splits:
        problems.add(
            "too few documents", f"files:{where}", "fewer than three different ones: none is held out to measure with"
        )
    questions, dropped = made_pairs.make_questions(pieces, splits, folder.seed)
    asked: dict[int, list[Made]] = {}
    for made in questions:
        if made.split != "train" and folder.withhold:
            for number in made.relevant:
                asked.setdefault(number, []).append(made)
    for number, (piece, page) in enumerate(found):
        _add(piece, page, sources[piece.document], asked.get(number, []), builder)
    _judge(questions, pieces, sources, folder, builder)
    if questions:
        builder.made = made_pairs.made_facts(questions, splits, dropped, folder.withhold)
    return []


def _shown_title(source: Source) -> str:
    """A document's title, or its file's name where it says none."""
    return source.title or stem(Path(source.path))


def _add(piece: Piece, page: int | None, source: Source, asked: list[Made], builder: StoreBuilder) -> None:
    shown = _shown_title(source)
    title, text = joined_title(shown, piece.headings), piece.text
    ours: dict[str, Any] = {"path": source.path, "position": int(piece.id.rpartition("#")[2])}
    if piece.headings:
        ours["heading"] = joined_title("", piece.headings)
    if page is not None:
        ours["page"] = page
    if asked:
        title, text = made_pairs.without(piece, shown, asked)
        ours["withheld"] = [made.text for made in asked]
    own = {name: value for name, value in source.metadata.items() if value is not None}
    free = {
        name: value for name, value in ours.items() if name not in own
    }  # the document's own fields keep their names
    builder.add_document(piece.id, title, text, piece.id, {**own, **free})


def _judge(
    questions: list[Made], pieces: list[Piece], sources: list[Source], folder: Folder, builder: StoreBuilder
) -> None:
    for made in questions:
        builder.add_query(made.id, made.text, made.id)
        for number in made.relevant:
            piece = pieces[number]
            shown = None
            if made.split == "train":
                shown = made_pairs.shown(made, piece, _shown_title(sources[piece.document]), folder.seed)
            builder.judge(made.split, made.id, piece.id, 1, made.id, shown)
