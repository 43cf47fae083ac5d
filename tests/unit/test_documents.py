"""A folder of documents as a collection: what is read and what is not, and no text of a held-out document in training's answers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flatcoat.columns import text_hash
from flatcoat.data.collection import build_store, is_own, open_collection
from flatcoat.data.documents import document_id, parse_folder, sources_of
from flatcoat.data.problems import Problems
from flatcoat.errors import FlatcoatError, Misuse

PROSE = "The otter swims in the river at night. It hunts for fish below the old mill. By day it sleeps in the bank."


def read(folder: Path, options: str = ""):
    problems = Problems()
    return list(sources_of(parse_folder(f"{folder}{options}"), problems)), problems


def test_hostile_files_are_named(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "huge.txt").write_text("x" * 2_000_000)
    (tmp_path / "letter.docx").write_bytes(b"PK")
    (tmp_path / ".hidden.txt").write_text(PROSE)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text(PROSE)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    sources, problems = read(tmp_path)
    assert [source.path for source in sources] == ["huge.txt"]
    assert problems.counts == {"empty file": 1, "binary file": 1, "format not read": 1}
    with pytest.raises(FlatcoatError, match="binary.txt"):
        build_store(f"files:{tmp_path}", tmp_path / "s", strict=True)


def test_links_are_not_followed(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.txt").write_text(PROSE)
    (folder / "sub" / "a.txt").write_text(PROSE)
    (folder / "cycle").symlink_to(folder)
    (folder / "sub" / "cycle").symlink_to(folder / "sub")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "away").symlink_to(outside)
    (folder / "away.txt").symlink_to(outside / "secret.txt")
    (folder / "twice.txt").symlink_to(folder / "sub" / "a.txt")
    sources, problems = read(folder)
    assert [source.path for source in sources] == ["sub/a.txt"]
    assert problems.counts == {"link not followed": 3}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "a.txt").chmod(0)
    assert read(tmp_path)[1].counts == {"unreadable file": 1}


def test_names_that_are_no_words(tmp_path):
    name = os.fsdecode(b"f\xff \t%.txt")
    (tmp_path / name).write_text(PROSE)
    c = build_store(f"files:{tmp_path}", tmp_path / "s")
    assert list(c.documents.ids) == ["f%FF%20%09%25.txt#1"] == [document_id(name) + "#1"]
    assert "f" in c.documents.metadata(0)["path"]


def test_a_link_to_what_is_hidden_is_named(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text(PROSE)
    (tmp_path / "doc.md").symlink_to(".git/x.md")
    (tmp_path / "e.txt").write_text(PROSE)
    sources, problems = read(tmp_path)
    assert [source.path for source in sources] == ["e.txt"] and problems.counts == {"link not followed": 1}


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text(PROSE)
    scan = os.scandir

    def denied(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    sources, problems = read(tmp_path)
    assert len(sources) == 1 and problems.examples["unreadable folder"] == ["sub: cannot be read (Permission denied)"]


def test_what_flatcoat_wrote_is_no_document(tmp_path):
    folder = write_folder(tmp_path / "notes", 3)
    build_store(f"files:{folder}", folder / "store")
    (folder / "store" / "more.txt").write_text(PROSE)
    (folder / "run" / "sub").mkdir(parents=True)
    for name in ("recipe.toml", "stages.json", "report.html", "sub/a.txt"):
        (folder / "run" / name).write_text(PROSE)
    (folder / "site").mkdir()
    (folder / "site" / "manifest.json").write_text('{"name": "an app"}')
    (folder / "site" / "page.txt").write_text(PROSE)
    sources, problems = read(folder)
    assert [source.path for source in sources] == ["00.md", "01.md", "02.md", "copy.md", "site/page.txt"]
    assert problems.counts == {"folder of Flatcoat": 2, "format not read": 1}


def test_a_key_that_comes_again_is_no_document_and_gives_no_question(tmp_path):
    lines = ["id,text"] + [
        f"{n % 20},The otter of row {n} swims along. It meets the heron number {n} there." for n in range(60)
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    c = build_store(f"files:{tmp_path}", tmp_path.with_name("s"))
    assert len(c.documents) == 20 and c.facts["problems"] == {
        "duplicate document id": {
            "count": 40,
            "examples": [f"a.csv: document id 'a.csv:{n}' came before; the first is kept" for n in range(5)],
        }
    }
    for split in c.splits:
        for query, document, _ in c.judgements(split).tolist():
            assert c.queries.text(query).strip(".") in c.documents.text(document)


def test_a_documents_own_fields_keep_their_names(tmp_path):
    (tmp_path / "a.csv").write_text("text,position,path\nhello there,Director,\n")
    documents = build_store(f"files:{tmp_path}", tmp_path.with_name("s")).documents
    assert documents.metadata(0) == {"position": "Director", "path": "a.csv"}


def test_no_answer_is_nothing_but_its_question(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for n in range(30):
        a, b = (f"The {beast} of mile {n} swims along the river at night." for beast in ("otter", "heron"))
        text = (
            f"# A tale of the mile {n}\n\n## One {n} way\n\n{a} {b}\n\n## Summary of {n}\n\n{a}\n\n## Two {n}\n\n{b}\n"
        )
        (folder / f"{n:02}.md").write_text(text)
    c = build_store(f"files:{folder}?withhold=true", tmp_path / "s")
    for split in ("dev", "test"):
        for query, document, _ in c.judgements(split).tolist():
            assert c.queries.text(query).strip(".") not in c.documents.text(document) and c.documents.bodies[document]


def write_folder(folder: Path, documents: int = 20) -> Path:
    """Invented Markdown files of two sections, no sentence said twice; the last is a copy of the first."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    nouns, verbs = ["otter", "heron", "badger", "lynx", "adder"], ["sees", "hears", "meets", "leaves"]
    for n in range(documents):
        parts = [f"# The tale of beast {n}"]
        for part in range(2):
            lines = [
                f"The {rng.choice(nouns)} {rng.choice(verbs)} the {rng.choice(nouns)} near mile {n}-{part}-{i}."
                for i in range(12)
            ]
            parts.append(f"## Chapter {part} of tale {n}\n\n" + " ".join(lines))
        (folder / f"{n:02d}.md").write_text("\n\n".join(parts))
    (folder / "copy.md").write_text((folder / "00.md").read_text())
    return folder


def test_a_folder_is_a_collection(tmp_path):
    folder = write_folder(tmp_path / "notes")
    c = build_store(f"files:{folder}?words=40&overlap=10", tmp_path / "s")
    assert c.splits == ["dev", "test", "train"] and c.documents.fields() == ["heading", "path", "position"]
    row = c.documents.lookup.row("00.md#2")
    assert row is not None and c.documents.titles[row] == "The tale of beast 0 › Chapter 0 of tale 0"
    assert c.documents.metadata(row) == {"path": "00.md", "position": 2, "heading": "Chapter 0 of tale 0"}
    assert (
        c.facts["made"]["documents"]["test"] >= 1
        and "made from the documents themselves" in c.facts["made"]["statement"]
    )
    again = build_store(f"files:{folder}?words=40&overlap=10", tmp_path / "again")
    assert again.facts["content"] == c.facts["content"] and again.qrels("test") == c.qrels("test")


@pytest.mark.parametrize("withhold", ["true", "false"])
def test_nothing_leaks_between_splits(tmp_path, withhold):
    c = build_store(f"files:{write_folder(tmp_path / 'notes')}?words=40&withhold={withhold}", tmp_path / "s")
    paths = {split: {c.documents.metadata(int(row))["path"] for row in c.judgements(split)[:, 1]} for split in c.splits}
    texts = {split: {text_hash(c.documents.text(int(row))) for row in c.judgements(split)[:, 1]} for split in c.splits}
    for one_ in c.splits:
        for other in c.splits:
            assert one_ == other or not (paths[one_] & paths[other] or texts[one_] & texts[other])
    assert len({split for split in c.splits if {"00.md", "copy.md"} & paths[split]}) <= 1


def test_withheld_words_are_not_in_the_answers_and_nowhere_lost_where_all_is_kept(tmp_path):
    folder = write_folder(tmp_path / "notes")
    held = build_store(f"files:{folder}?words=40&withhold=true", tmp_path / "a")
    whole = build_store(f"files:{folder}?words=40", tmp_path / "b")
    assert list(held.documents.ids) == list(whole.documents.ids) and held.qrels("test") == whole.qrels("test")
    for split in ("dev", "test"):
        for query, document, _ in held.judgements(split).tolist():
            asked = held.queries.text(query).strip(".").lower()
            assert asked not in held.documents.text(document).lower()
            assert asked in whole.documents.text(document).lower()
            assert held.queries.text(query) in held.documents.metadata(document)["withheld"]
    said = " ".join(whole.documents.bodies)
    for path in folder.iterdir():
        for line in path.read_text().split("\n\n"):
            assert line.startswith("#") or all(sentence in said for sentence in line.split(". "))


def test_training_is_shown_answers_without_the_question(tmp_path):
    c = build_store(f"files:{write_folder(tmp_path / 'notes')}?words=40", tmp_path / "s")
    texts = c.shown("train")
    assert texts is not None and len(texts) == len(c.judgements("train")) and c.shown("test") is None
    hidden = 0
    for text, (query, document, _) in zip(texts, c.judgements("train").tolist(), strict=True):
        asked = c.queries.text(query).strip(".").lower()
        assert asked in c.documents.text(document).lower() and asked not in text.lower()
        hidden += bool(text)
    assert 0.8 < hidden / len(texts) < 0.97


def test_a_plain_folder_is_known_and_followed(tmp_path):
    folder = write_folder(tmp_path / "notes", 3)
    assert is_own(str(folder)) and is_own(f"files:{folder}") and not is_own(str(tmp_path / "none"))
    first = len(open_collection(str(folder)).documents)
    (folder / "more.txt").write_text(PROSE)
    assert len(open_collection(str(folder)).documents) == first + 1


def test_two_documents_hold_none_out(tmp_path):
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "b.txt").write_text(PROSE.replace("otter", "heron"))
    c = build_store(f"files:{tmp_path}", tmp_path / "s")
    assert c.facts["problems"]["too few documents"]["count"] == 1 and "test" not in c.splits


@pytest.mark.parametrize(
    ("options", "said"),
    [("?word=5", "no option 'word'; did you mean 'words'"), ("?words=0", "words=0"), ("?words=5&overlap=5", "not below"),
     ("?withhold=yes", "want true or false"), ("?seed=x", "whole number")],
)  # fmt: skip
def test_options_that_are_not_right(tmp_path, options, said):
    with pytest.raises(Misuse, match=said):
        parse_folder(f"{tmp_path}{options}")


def test_no_documents_at_all(tmp_path):
    with pytest.raises(Misuse, match="no such folder"):
        build_store(f"files:{tmp_path / 'none'}", tmp_path / "s")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a.txt").write_text("")
    with pytest.raises(FlatcoatError, match=r"no documents were found.*empty file.*a.txt"):
        build_store(f"files:{tmp_path / 'e'}", tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "text", "sentences"),
    [
        ("日本語.md", "# 川の獣\n\n## 夜の川\n\n" + "".join(f"カワウソは夜に{n}番目の川を泳いで魚を探している。" for n in range(12)), 12),
        ("عربي.txt", " ".join(f"يسبح ثعلب الماء في النهر رقم {n} طوال الليل." for n in range(12)), 12),
        ("हिन्दी.rst", "नदी\n====\n\n" + " ".join(f"ऊदबिलाव रात में नदी संख्या {n} में तैरता है।" for n in range(12)), 12),
        ("ไทย.html", "<h1>แม่น้ำ</h1><p>" + " ".join(f"นากว่ายน้ำในแม่น้ำสายที่{n}" for n in range(12)), 1),
    ],
)  # fmt: skip
def test_languages_of_the_world(tmp_path, name, text, sentences):
    (tmp_path / name).write_text(text)
    c = build_store(f"files:{tmp_path}?words=30&overlap=12", tmp_path.with_name(f"{tmp_path.name}-s"))
    bodies = list(c.documents.bodies)
    assert len(bodies) > 2 and c.documents.ids[0] == f"{name}#1" and c.documents.metadata(0)["path"] == name
    missing = [n for n in range(12) if not any(str(n) in body for body in bodies)]
    assert not missing
    if sentences > 1:  # Thai has no mark at a sentence's end
        assert all(body[-1] in "。.।" for body in bodies)
