"""Questions made from documents: deterministic, apart by document, without their own words, and counted where left out."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.data import made_pairs
from flatcoat.data.made_pairs import LEFT_OUT, MOST_RELEVANT, Piece, folded, hold_out, make_questions, shown, without
from flatcoat.data.passages import cut

NOUNS = (
    "otter",
    "heron",
    "badger",
    "lynx",
    "adder",
    "marten",
    "osprey",
    "weasel",
    "curlew",
    "beaver",
    "falcon",
    "vole",
)
VERBS = ("watches", "follows", "leaves", "finds", "forgets", "chases", "greets")


def piece(id: str, document: int, text: str, title: str = "", headings: tuple[str, ...] = ()) -> Piece:
    [passage] = cut(text)
    return Piece(id, document, title, headings, text, passage.sentences)


def folder(documents: int = 24, passages: int = 4) -> list[Piece]:
    """Passages of invented documents; no sentence is said twice."""
    rng, made = np.random.default_rng(0), []
    for document in range(documents):
        for number in range(passages):
            lines = [
                f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} near mile {document}-{number}-{line}."
                for line in range(4)
            ]
            headings = (f"Heading {document} number {number // 2}",)
            made.append(
                piece(f"f{document}#{number + 1}", document, " ".join(lines), f"Tale of beast {document}", headings)
            )
    return made


def test_kinds_and_splits():
    pieces = folder()
    splits = hold_out(pieces, 0)
    questions, _ = make_questions(pieces, splits, 0)
    assert {made.kind for made in questions} == set(made_pairs.KINDS)
    assert {made.split for made in questions} == {"train", "dev", "test"}
    for made in questions:
        assert made.relevant and all(splits[pieces[number].document] == made.split for number in made.relevant)
        assert made.id.startswith(f"{made.kind}-")
    assert len({made.id for made in questions}) == len(questions)


def test_the_same_seed_gives_the_same_and_another_gives_others():
    pieces = folder()

    def all_of(seed):
        return [(m.id, m.split, m.relevant) for m in make_questions(pieces, hold_out(pieces, seed), seed)[0]]

    assert all_of(0) == all_of(0) != all_of(1)


def test_every_question_is_answered_by_what_it_was_made_of():
    pieces = folder()
    for made in make_questions(pieces, hold_out(pieces, 0), 0)[0]:
        for number in made.relevant:
            own = pieces[number]
            if made.kind == "title":
                assert own.title == made.text
            elif made.kind == "heading":
                assert own.headings[-1] == made.text
            else:
                assert made.text in own.text
                assert own.text.startswith(made.text) == (made.kind == "first")


@pytest.mark.parametrize("count", [3, 4, 7, 24, 60])
def test_each_split_has_a_document_and_equal_documents_share_one(count):
    pieces = folder(count, 2)
    copies = [piece_._replace(id=f"copy/{piece_.id}", document=count + piece_.document) for piece_ in pieces]
    for seed in range(5):
        splits = hold_out(pieces + copies, seed)
        assert set(splits) == {"train", "dev", "test"} and splits[:count] == splits[count:]
        assert splits.count("train") >= len(splits) * 0.3


def test_shares_are_of_the_passages():
    pieces = folder(200, 2)
    splits = hold_out(pieces, 3)
    assert splits.count("test") == 30 and splits.count("dev") == 20


def test_too_few_documents_hold_none_out():
    assert hold_out(folder(2), 0) == ["train", "train"] and hold_out([], 0) == []


def test_boilerplate_and_what_says_too_little_is_left_out_and_counted():
    notice = "All rights of this text are reserved by us."
    pieces = [
        piece(
            f"f{n}#1",
            n,
            f"{notice} {'The unlike sentence is number ' + str(n)}. Ok then. === ### --- +++ :::",
            "Notes",
            ("See",),
        )
        for n in range(12)
    ]
    questions, dropped = make_questions(pieces, ["train"] * 12, 0)
    assert all(made.kind == "cloze" and made.text.startswith("The unlike") for made in questions)
    assert dropped["boilerplate"] == 1 and dropped["too short"] >= 2


def test_a_heading_over_many_passages_is_left_out():
    pieces = [
        piece(f"f#{n}", 0, f"Word {n} stands here alone.", "", ("The whole long chapter",))
        for n in range(MOST_RELEVANT + 1)
    ]
    questions, dropped = make_questions(pieces, ["train"], 0)
    assert not questions and dropped["answered by too many passages"] == 1
    assert len(make_questions(pieces[:-1], ["train"], 0)[0]) == 1


def test_a_question_of_two_splits_is_left_out():
    said = "This very sentence stands in both files."
    pieces = [piece(f"f{n}#1", n, f"{said} Number {n} goes on alone from here.") for n in range(2)]
    for seed in range(4):
        questions, dropped = make_questions(pieces, ["train", "test"], seed)
        assert said not in [made.text for made in questions]
    assert "said in several splits" in dropped or not dropped


def test_a_sentence_is_answered_by_all_passages_that_hold_it():
    sentence = "The overlap of both passages is this sentence here."
    first, second = f"Nothing at all came before it. {sentence}", f"{sentence} Something else came after it."
    pieces = [piece("f#1", 0, first), piece("f#2", 0, second)]
    for seed in range(6):
        for made in make_questions(pieces, ["train"], seed)[0]:
            assert made.relevant == [n for n, own in enumerate(pieces) if made.text in own.text]


def test_kinds_are_balanced(monkeypatch):
    pieces = folder(40, 6)
    splits = ["train"] * 40
    counts = {k: sum(m.kind == k for m in make_questions(pieces, splits, 0)[0]) for k in made_pairs.KINDS}
    assert max(counts.values()) <= 2 * sorted(counts.values())[1]
    monkeypatch.setattr(made_pairs, "MOST_HELD_OUT", {"test": 8})
    questions, dropped = make_questions(pieces, ["test"] * 40, 0)
    assert len(questions) == 8 and {made.kind for made in questions} == set(made_pairs.KINDS)
    assert dropped["more than its kind's share"] > 100


def test_words_of_the_question_are_left_out_nine_times_in_ten():
    pieces = folder(60)
    questions, _ = make_questions(pieces, ["train"] * 60, 0)
    seen = [(made, shown(made, pieces[n], pieces[n].title, 0)) for made in questions for n in made.relevant]
    share = sum(text is not None for _, text in seen) / len(seen)
    assert abs(share - LEFT_OUT) < 4 * (LEFT_OUT * (1 - LEFT_OUT) / len(seen)) ** 0.5
    assert all(folded(made.text) not in folded(text) for made, text in seen if text is not None)


def test_nothing_else_is_left_out():
    own = piece("f#1", 0, "One sentence here. Two sentences there.\n\nThree of them now.", "Title", ("Part", "Detail"))
    made = made_pairs.Made("cloze", "Two sentences there.")
    assert without(own, "Title", [made]) == ("Title › Part › Detail", "One sentence here.\n\nThree of them now.")
    assert without(own, "Title", [made_pairs.Made("title", "Title")])[0] == "Part › Detail"
    assert without(own, "Title", [made_pairs.Made("heading", "Detail")])[0] == "Title › Part"
    alone = piece("f#2", 0, "All that there is.")
    assert without(alone, "T", [made_pairs.Made("first", "All that there is.")]) == ("T", "")


@pytest.mark.parametrize("kind", made_pairs.KINDS)
def test_whatever_says_the_question_goes_whatever_its_kind(kind):
    own = piece(
        "f#1", 0, "Getting started here. More of it.", "Getting started here", ("getting started here", "Detail")
    )
    made = made_pairs.Made(kind, "Getting started here.")
    assert without(own, own.title, [made]) == ("Detail", "More of it.")
    inner = own._replace(title="T", headings=("Part", "Getting started here"))
    assert without(inner, "T", [made])[0] == "T › Part"


def test_a_question_that_leaves_an_answer_without_text_is_left_out():
    said = "The otter swims along the river at night."
    alone, other = piece("f#1", 0, said), piece("f#2", 0, f"{said} The heron sees it from the bank.")
    for seed in range(6):
        questions, dropped = make_questions([alone, other], ["train"], seed)
        assert said not in [made.text for made in questions]
        assert dropped[made_pairs.NOTHING_ELSE] == 1 - len(questions)
    # each of two questions leaves something of the passage that both are in, but not the two together
    second = "The heron sees it from the bank."
    both = [piece("f#1", 0, f"{said} {second}"), piece("f#2", 0, f"{second} Then it rains on everything here."),
            piece("f#3", 0, f"Nothing is heard in the dark. {said}")]  # fmt: skip
    for seed in range(12):
        questions, _ = make_questions(both, ["test"], seed)
        for number, own in enumerate(both):
            assert without(own, "", [made for made in questions if number in made.relevant])[1]


def test_a_heading_is_answered_by_the_sections_within_it():
    parts = [("The long chapter",), ("The long chapter", "Its small part"), ("Another chapter",)]
    pieces = [piece(f"f#{n}", 0, f"Word {n} stands here alone.", "", headings) for n, headings in enumerate(parts)]
    found = {made.text: made.relevant for made in make_questions(pieces, ["train"], 0)[0]}
    assert found == {"The long chapter": [0, 1], "Its small part": [1], "Another chapter": [2]}
