"""Laws of cutting: every word is in some passage, in order, none too long, and each begins with the end of the one before."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.data.passages import cut, length, sentences
from flatcoat.errors import Misuse

WORDS = st.sampled_from(
    ["a", "word", "etc.", "J.", "3.14", "end.", "what?", "漢字", "終わり。", "次の", "ภาษาไทย", "हिन्दी", "वाक्य।", "نص", "سؤال؟",
     "x" * 95, "\n", "\n\n", "…", "”"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=200)
SIZES = st.tuples(st.integers(1, 20), st.integers(0, 19)).filter(lambda pair: pair[1] < pair[0])


def length_slowly(text: str) -> float:
    """Words by the rule as it is written: half a word a character without spaces, a word for each forty of other runs."""
    total = 0.0
    for run in re.findall(r"\S+", text):
        other = 0
        for c in [*run, None]:
            spaceless = c is not None and any(
                low <= ord(c) <= high
                for low, high in ((0xE00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
                                  (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
            )  # fmt: skip
            if c is None or spaceless:
                total += -(-other // 40) + (0.5 if spaceless else 0)
                other = 0
            else:
                other += 1
    return total


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_length_is_the_rule(text):
    assert length(text) == int(length_slowly(text) + 0.5)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_sentences_hold_every_word_once_and_in_order(text):
    at = 0
    for start, end in sentences(text):
        assert not text[at:start].strip() and text[start:end] == text[start:end].strip() != ""
        at = end
    assert not text[at:].strip()


@settings(max_examples=250, deadline=None)
@given(TEXTS, SIZES)
def test_the_laws_of_passages(text, sizes):
    most, overlap = sizes
    passages = cut(text, most, overlap)
    assert bool(passages) == bool(text.strip())
    reached = 0
    for before, passage in zip([None, *passages], passages, strict=False):
        assert length_slowly(text[passage.start : passage.end]) <= most
        assert passage.end > reached and not text[reached : passage.start].strip()
        if before is not None:
            assert before.start < passage.start
            shared = [span for span in passage.sentences if span in before.sentences]
            assert (
                shared
                == list(before.sentences[len(before.sentences) - len(shared) :])
                == list(passage.sentences[: len(shared)])
            )
            assert sum(length_slowly(text[slice(*span)]) for span in shared) <= overlap
        reached = passage.end
    assert not text[reached:].strip()


@settings(max_examples=80, deadline=None)
@given(TEXTS, SIZES)
def test_no_sentence_that_fits_is_cut(text, sizes):
    whole = {span for span in sentences(text) if length_slowly(text[slice(*span)]) <= sizes[0]}
    kept = {span for passage in cut(text, *sizes) for span in passage.sentences}
    assert whole <= kept


def test_overlap_is_as_much_as_fits():
    text = "One two three. Four five. Six. Seven eight nine ten."
    found = [text[p.start : p.end] for p in cut(text, 6, 3)]
    assert found == ["One two three. Four five. Six.", "Six. Seven eight nine ten."]
    assert [text[p.start : p.end] for p in cut(text, 6, 0)] == [
        "One two three. Four five. Six.",
        "Seven eight nine ten.",
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith came, e.g. by train. He left at 3.15 p.m. on foot.", 2),
        ("Is it? Yes! It is… And so on.", 4),
        ("J. R. R. Tolkien wrote it.", 1),
        ("He said “Go!” Then he went.", 2),
        ("これは文です。次の文です！最後ですか？", 3),
        ("他说：“好。”然后走了。", 2),
        ("यह एक वाक्य है। यह दूसरा है। क्या यह तीसरा है?", 3),
        ("هل هذا سؤال؟ نعم، هذا جواب. انتهى.", 3),
        ("یہ ایک جملہ ہے۔ یہ دوسرا ہے۔", 2),
        ("Это предложение. А это другое.", 2),
        ("a line\nanother line", 2),
        ("The value is 0.5 of it. See fig. 3 for more.", 2),
    ],
)  # fmt: skip
def test_sentence_ends_of_many_languages(text, count):
    assert len(sentences(text)) == count, [text[slice(*span)] for span in sentences(text)]


def test_a_row_of_dots_takes_no_more_than_its_lengths_time():
    row = "a" + "." * 60_000 + "x"
    began = time.process_time()
    assert sentences(row) == [(0, len(row))] and len(sentences(f"{row}. Next...  last?!” end")) == 4
    assert time.process_time() - began < 2


def test_text_without_spaces_is_cut_by_characters():
    text = "漢" * 1000
    found = cut(text, 100, 10)
    assert [p.end - p.start for p in found] == [200] * 5 and length(text) == 500
    run = "x" * 100_000
    assert all(length(run[p.start : p.end]) <= 180 for p in cut(run)) and length(run) == 2500


def test_lengths_that_leave_no_room():
    with pytest.raises(Misuse, match="overlap < words"):
        cut("a b c", 5, 5)
