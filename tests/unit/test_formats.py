"""Every format in: what is kept of each, and hostile files as problems that name them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flatcoat.data import formats_pdf
from flatcoat.data.documents import parse_folder, sources_of
from flatcoat.data.formats import Section
from flatcoat.data.formats_html import read_html
from flatcoat.data.formats_rst import read_rst
from flatcoat.data.problems import Problems

PROSE = "The otter swims in the river at night. It hunts for fish below the old mill. By day it sleeps in the bank."


def read(folder: Path, options: str = ""):
    problems = Problems()
    return list(sources_of(parse_folder(f"{folder}{options}"), problems)), problems


def one(folder: Path, name: str, data: str | bytes):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    [source], problems = read(folder)
    assert not problems.counts
    return source


def pdf(pages: list[str], title: str = "") -> bytes:
    """A PDF by hand, so that nothing is needed to make it."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
               "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]  # fmt: skip
    for n, page in enumerate(pages):
        lines = " ".join(f"({line}) Tj T*" for line in page.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 50 700 Td {lines} ET"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * n} 0 R "
                       "/Resources << /Font << /F1 3 0 R >> >> >>")  # fmt: skip
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) /Author (A. Person) >>")
    out, places = b"%PDF-1.4\n", []
    for n, text in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{n} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    return out + (f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\n"
                  f"startxref\n{len(out)}\n%%EOF").encode()  # fmt: skip


def test_text(tmp_path):
    source = one(tmp_path, "a note.txt", "First line\r\nof it.\r\n\r\nSecond\tparagraph.\n")
    assert source.sections == (Section((), "First line of it.\n\nSecond paragraph."),)
    assert source.title == "" and source.id == "a%20note.txt" and source.path == "a note.txt"


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbfcaf\xc3\xa9", "café".encode("utf-16"), "café".encode("utf-32"), b"\xfe\xff\x00c\x00a\x00f\x00\xe9"],
)
def test_byte_order_marks(tmp_path, data):
    assert one(tmp_path, "a.txt", data).sections[0].text == "café"


def test_latin_1_is_read_and_reported(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    [source], problems = read(tmp_path)
    assert source.sections[0].text == "café" and problems.counts == {"not UTF-8": 1}
    assert (
        one(tmp_path / "b", "a.html", '<meta charset="windows-1251"><p>мир'.encode("cp1251")).sections[0].text == "мир"
    )


def test_a_page_that_names_a_codec_of_no_text(tmp_path):
    (tmp_path / "a.html").write_bytes(b'<meta charset="undefined"><p>caf\xe9')
    [source], problems = read(tmp_path)
    assert source.sections[0].text == "café" and problems.counts == {"not UTF-8": 1}


def test_endings_of_the_same_formats(tmp_path):
    for name, text in (
        ("a.markdown", "# T\n\none"),
        ("b.tsv", "id\ttext\nk, 1\ttwo"),
        ("c.xhtml", "<p>three"),
        ("d.mdx", "x"),
    ):
        (tmp_path / name).write_text(text)
    sources, problems = read(tmp_path)
    assert [source.sections[0].text for source in sources] == ["one", "two", "three"]
    assert sources[0].title == "T" and problems.counts == {"format not read": 1}


def test_markdown(tmp_path):
    text = """---
title: The River
tags: [water, wild]
date: 2024-02-29
---
Before any heading.

# Otters

Otters **swim** in [the river](http://x/). <b>Well</b>.

```python
# no heading
x = 1
```

## Food

* fish
* frogs

Setext
------
| a | b |
|---|---|
| 1 | 2 |
"""
    source = one(tmp_path, "a.md", text)
    assert source.title == "The River" and source.metadata["tags"] == ["water", "wild"]
    assert [section.headings for section in source.sections] == [
        (),
        ("Otters",),
        ("Otters", "Food"),
        ("Otters", "Setext"),
    ]
    assert source.sections[1].text == "Otters swim in the river. Well.\n\n# no heading\nx = 1"
    assert source.sections[2].text == "fish\n\nfrogs" and source.sections[3].text == "a b\n\n1 2"
    assert one(tmp_path / "b", "a.md", "# Only\n\ntext\n\n## Sub\n\nmore").sections == (
        Section((), "text"),
        Section(("Sub",), "more"),
    )


@pytest.mark.parametrize(
    "matter", ["a: &a [x, x]\nb: [*a, *a]", "a: [", "a: !!python/object/apply:os.system [ls]", "x: " + "[" * 3000,
               "a: !!bool foo", "a: !!timestamp foo", "a: !!float x", "Note: this prose: is here."]
)  # fmt: skip
def test_hostile_front_matter_is_named_and_kept_as_text(tmp_path, matter):
    (tmp_path / "a.md").write_text(f"---\n{matter}\n---\n# Otters\n\n{PROSE}\n")
    [source], problems = read(tmp_path)
    assert [section.text for section in source.sections] == [" ".join(matter.split()), PROSE]
    assert source.title == "Otters" and source.metadata == {} and problems.counts == {"bad front matter": 1}


def test_front_matter_that_is_no_text(tmp_path):
    (tmp_path / "a.md").write_text(f"+++\nx = {'[' * 5000}\n+++\n{PROSE}\n")
    [source], problems = read(tmp_path)
    assert source.sections[-1].text == PROSE and problems.counts == {"bad front matter": 1}
    assert one(tmp_path / "b", "a.md", f"---\ntitle: 1984\n---\n{PROSE}\n").title == "1984"
    kept = one(tmp_path / "c", "a.md", f"---\ntitle: [a, b]\n---\n{PROSE}\n")
    assert kept.title == "" and kept.metadata == {"title": ["a", "b"]}


def test_html():
    page = """<html><head><title>Site - Page</title><style>p{}</style></head><body><nav><a>Home</a></nav>
    <h1>Beasts</h1><p>They &amp; we<br>live.</p><script>alert("x")</script><div hidden>gone</div>
    <h2 id=x>Otters<a href=#>¶</a></h2><ul><li>fish<li>frogs</ul><pre>a\n  b</pre><table><tr><td>1<td>2</tr></table>
    <footer>All rights</footer></body></html>"""
    title, sections = read_html(page)
    assert title == "Beasts"
    assert sections == [Section((), "They & we live."), Section(("Otters",), "fish\n\nfrogs\n\na\n  b\n\n1 2")]


def test_html_that_browsers_mend():
    assert read_html("<nav>menu<p>the text is in here")[1] == [Section((), "menu\n\nthe text is in here")]
    assert read_html("<p>a<main><h1>T</h1><p>b</main><p>c") == ("T", [Section((), "b")])
    assert read_html("<p>text <b>bold</p></b></div></div><h2>H") == ("", [Section((), "text bold\n\nH")])
    assert read_html("<p>a<form id=all><h1>T</h1><p>b<button>go</button><input></form>") == (
        "",
        [Section((), "a"), Section(("T",), "b")],
    )
    assert read_html("<div>" * 20_000 + "deep")[1] == [Section((), "deep")]
    assert read_html("<!-- <p>no --><![CDATA[x]]>&#0;&bogus; <p>yes")[1][-1].text.endswith("yes")


def test_html_takes_no_more_than_its_lengths_time():
    began = time.process_time()
    assert read_html("<svg>" + "<a>" * 40_000 + "</b>" * 40_000 + "</svg><p>yes")[1] == [Section((), "yes")]
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "unended", ["<a ", "<!--", "<!-- >", "<![", "<![CDATA[ >", "</a b", "<a b='", '<a b="x>', "<? ", "<!x "]
)
def test_html_that_never_ends_takes_no_more_than_its_lengths_time(unended):
    began = time.process_time()
    sections = read_html("<p>yes</p>" + unended * 20_000)[1]
    assert sections[0].text.startswith("yes") and time.process_time() - began < 5


def test_rst():
    text = """=====
Title
=====

Intro to :py:func:`~a.b` and ``code`` and `a link <http://x/>`_.

.. note::
   A *note* here.

.. image:: x.png
   :alt: not shown

.. comment, left
   out

Part
----

Text::

    literal

Sub
~~~

More.
"""
    assert read_rst(text) == (
        "Title",
        [
            Section((), "Intro to a.b and code and a link.\n\nA note here."),
            Section(("Part",), "Text:\n\nliteral"),
            Section(("Part", "Sub"), "More."),
        ],
    )


def test_rst_keeps_what_directives_hold():
    text = """.. classmethod:: A.b()

   Does things.

.. only:: html

   Prose in only.

.. list-table:: Beasts

   * - otter

.. figure:: x.png
   :alt: a picture

   A caption.

.. toctree::

   not/shown
"""
    [section] = read_rst(text)[1]
    assert section.text.split("\n\n") == [
        "A.b()",
        "Does things.",
        "Prose in only.",
        "Beasts",
        "* - otter",
        "A caption.",
    ]


@pytest.mark.parametrize("row", [":" * 60_000, "`" + " " * 20_000 + "x", ":a:`" + " " * 20_000 + "x"])
def test_rst_takes_no_more_than_its_lengths_time(row):
    began = time.process_time()
    assert read_rst(f"Some {row}")[1][0].text.startswith("Some")
    assert time.process_time() - began < 2  # it is milliseconds; by the square of the length, many seconds


def test_pdf_by_page(tmp_path):
    pytest.importorskip("pypdf")
    beasts = ("otter", "heron", "badger", "lynx", "adder")
    pages = [f"Beasts of the North\nThe {beast} swam\nin the ri-\nver.\nPage {n}" for n, beast in enumerate(beasts)]
    source = one(tmp_path, "a.pdf", pdf(pages, "Beasts"))
    assert source.title == "Beasts" and source.metadata == {"author": "A. Person"}
    assert [section.page for section in source.sections] == [1, 2, 3, 4, 5]
    assert [section.text for section in source.sections] == [f"The {beast} swam in the river." for beast in beasts]
    short = one(tmp_path / "b", "a.pdf", pdf(["Page 1\nThe otter num-\nber one.", "Page 2\nTwo."]))
    assert short.title == "" and short.sections[0].text == "Page 1 The otter number one."


def test_a_pdf_of_numbered_lines_is_not_emptied(tmp_path):
    pytest.importorskip("pypdf")
    pages = ["\n".join(f"Item {20 * page + line} costs {line}.50" for line in range(20)) for page in range(6)]
    source = one(tmp_path, "a.pdf", pdf(pages))
    assert [section.text for section in source.sections] == [" ".join(page.split("\n")) for page in pages]
    alike = one(tmp_path / "b", "a.pdf", pdf([f"Chapter {page}" for page in range(6)]))
    assert len(alike.sections) == 6


def test_a_pdf_is_cut_where_it_holds_too_much(tmp_path, monkeypatch):
    pytest.importorskip("pypdf")
    monkeypatch.setattr(formats_pdf, "MOST_TEXT", 150)
    (tmp_path / "a.pdf").write_bytes(pdf([PROSE] * 4))
    [source], problems = read(tmp_path)
    assert [section.page for section in source.sections] == [1, 2] and problems.counts == {"file too large": 1}
    assert sum(len(section.text) for section in source.sections) <= 150


def test_hostile_pdfs_are_named(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    good = pdf([PROSE])
    (tmp_path / "broken.pdf").write_bytes(good[: len(good) // 3])
    (tmp_path / "none.pdf").write_bytes(b"")
    (tmp_path / "text.pdf").write_text("no PDF at all")
    (tmp_path / "empty.pdf").write_bytes(pdf([""]))
    (tmp_path / "loop.pdf").write_bytes(good.replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"))
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    (tmp_path / "ok.pdf").write_bytes(good)
    sources, problems = read(tmp_path)
    assert [source.path for source in sources] == ["ok.pdf"]
    said = str(problems.lines()) + str(dict(problems.examples))
    assert all(name in said for name in ("broken.pdf", "none.pdf", "text.pdf", "empty.pdf", "loop.pdf", "locked.pdf"))
    assert problems.counts["encrypted file"] == 1


def test_csv_by_names_and_by_options(tmp_path):
    (tmp_path / "a.csv").write_text('id;Title;body;year\nx 1;Otter;"Swims;\nand ""hunts""";1999\n;Empty;;\n')
    sources, problems = read(tmp_path)
    assert sources[0][:3] == ("a.csv:x%201", "a.csv", "Otter") and sources[0].metadata == {"year": "1999"}
    assert sources[0].sections[0].text == 'Swims; and "hunts"' and problems.counts == {"empty row": 1}
    [chosen], _ = read(tmp_path, "?text=year&title=id")
    assert chosen.sections[0].text == "1999" and chosen.title == "x 1"


def test_a_column_has_one_role(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nhow to swim,by moving\n")
    [source], problems = read(tmp_path, "?text=question")
    assert source.title == "" and source.metadata == {"answer": "by moving"} and not problems.counts
    [source], problems = read(tmp_path, "?title=nam")
    assert source.title == "" and problems.examples["no such column"] == [
        "a.csv: title=nam: the columns are question, answer"
    ]


def test_csv_ends_a_record_at_a_lines_end_only(tmp_path):
    for number, mark in enumerate(["\u2028", "\x0b", "\x0c", "\x85"]):
        (tmp_path / f"{number}.csv").write_text(f"\n \nid,text\n1,one{mark}half\n2,two\n", encoding="utf-8")
    sources, problems = read(tmp_path)
    assert [source.sections[0].text for source in sources] == ["one half", "two"] * 4 and not problems.counts


def test_an_open_quote_is_named_and_nothing_lost(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,fine\n2,"no end\n3,and more\n')
    sources, problems = read(tmp_path)
    assert [source.sections[0].text for source in sources] == ["fine", "no end 3,and more"]
    assert problems.counts == {"open quote": 1} and "a.csv: record 3" in problems.examples["open quote"][0]


def test_hostile_tables_are_named(tmp_path):
    (tmp_path / "cells.csv").write_text("text\n" + "x" * 300_000 + "\n")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "none.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("id,text\n1,one\n2\n3,three,more\n")
    (tmp_path / "zero.csv").write_bytes(b"text\n\x00\x01\n")
    sources, problems = read(tmp_path)
    assert [source.path for source in sources] == ["cells.csv", "ragged.csv"]
    assert problems.counts == {"no text column": 1, "empty file": 1, "bad line": 2, "binary file": 1}


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"name": ["n"], "text": [PROSE], "x": [[1, 2]]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    [source], problems = read(tmp_path)
    assert source.title == "n" and source.metadata == {"x": [1, 2]} and problems.counts == {"damaged file": 1}


def test_parquet_values_that_python_cannot_hold(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    days = arrow.array([10**7, 0], arrow.int32()).cast(arrow.date32())
    parquet.write_table(arrow.table({"text": ["one", "two"], "day": days}), tmp_path / "a.parquet")
    text = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.py_buffer(b"\0\0\0\0\2\0\0\0"), arrow.py_buffer(b"\xff\xfe")]
    )
    parquet.write_table(arrow.table({"text": text}), tmp_path / "b.parquet")
    sources, problems = read(tmp_path)
    assert [source.sections[0].text for source in sources] == ["one", "two"]
    assert [str(source.metadata["day"]) for source in sources] == ["None", "1970-01-01"]
    assert problems.counts == {"bad value": 2, "empty row": 1}
