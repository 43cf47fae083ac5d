"""Serving what comes and goes: every search answers as an index built anew over the documents that are there."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from retrieving import LEGS, Served, agree, answers, change, check_all, documents, fresh, store, text_of

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.bm25 import Bm25Index, Bm25Settings
from flatcoat.search import journal as journal_module
from flatcoat.search import legs as legs_module
from flatcoat.search import retriever as retriever_module
from flatcoat.search.journal import Document
from flatcoat.search.legs import LateView, Leg
from flatcoat.search.lexical import Base, LexicalView
from flatcoat.search.retriever import Asked, Conflict, Retriever


@pytest.mark.parametrize("few", [legs_module.FEW, 0], ids=["rows one by one", "asking for more"])
def test_answers_are_those_of_an_index_built_anew(served, monkeypatch, few):
    monkeypatch.setattr(legs_module, "FEW", few)
    monkeypatch.setattr(legs_module, "FEWER", legs_module.FEWER if few else 10**9)
    check_all(served, served.retriever, 0)
    change(served)
    assert len(served.retriever) == len(served.there)
    for seed in range(3):
        check_all(served, served.retriever, seed)
        check_all(served, served.another(), seed)  # another process reads it all from the journal
    check_all(served, served.retriever, 9, k=1000)


def test_replaying_gives_the_same_bits_and_encodes_nothing(served):
    change(served)
    counts = {leg.encoding.key: leg.encoding.model.asked for leg in served.legs if leg.encoding}
    again = served.another()
    assert {leg.encoding.key: leg.encoding.model.asked for leg in served.legs if leg.encoding} == counts
    for name in LEGS:
        assert answers(again, name, "word1 word2 word3", 20) == answers(served.retriever, name, "word1 word2 word3", 20)


def test_many_deletions_take_no_places(served):
    query = "word1 word2 word3 word4"
    for name in LEGS:
        best = list(answers(served.retriever, name, query, 30))
        gone = [id for id in best if id in served.there][:10]
        served.delete(*gone)
        found = answers(served.retriever, name, query, 8)
        assert not set(found) & set(gone)
        if name != "bm25":
            agree(found, fresh(name, list(served.there.values()), query, 8))
            served.add([doc for doc in served.base if doc.id in gone])


def test_everything_deleted_gives_nothing_and_nothing_breaks(tmp_path):
    served = Served(tmp_path, 12)
    served.add(documents(2, "n", 1))
    served.delete(*served.there)
    assert len(served.retriever) == 0
    for name in LEGS:
        assert answers(served.retriever, name, "word1 word2", 5) == {}
    served.add(documents(3, "m", 2))
    for name in LEGS:
        found = answers(served.retriever, name, text_of(served.there["m0"]), 5)
        assert found and set(found) <= {"m0", "m1", "m2"}


@pytest.mark.parametrize(
    "given", [{"parity": "odd"}, {"n": {"lt": 3}}, {"not": {"n": {"exists": True}}}, {"n": {"gte": 0}}]
)
def test_filters_search_among_those_that_pass(served, monkeypatch, given):
    change(served)
    for few in (4096, 0):
        monkeypatch.setattr(legs_module, "FEW", few)
        monkeypatch.setattr(legs_module, "FEWER", 10**9 if not few else 32)
        tests = {
            '{"parity": "odd"}': lambda m: m["parity"] == "odd",
            '{"n": {"lt": 3}}': lambda m: m["n"] < 3,
            '{"not": {"n": {"exists": true}}}': lambda m: "n" not in m,
            '{"n": {"gte": 0}}': lambda m: True,
        }
        passing = [doc for doc in served.there.values() if tests[json.dumps(given)](doc.metadata)]
        for name in LEGS:
            found = answers(served.retriever, name, "word5 word6 word7", 6, filter=given)
            assert set(found) <= {doc.id for doc in passing}
            if name != "bm25" and passing:
                agree(found, fresh(name, passing, "word5 word6 word7", 6))


def test_bm25_scores_what_was_added_by_the_base(served):
    base = served.base
    served.add([Document("new", "", "word1 word1 word2 unheard"), Document("other", "", "unheard of things word1")])
    served.delete("b0")
    view = served.legs[-1].view
    lengths = [len(text_of(doc).split()) for doc in base]
    assert isinstance(view, LexicalView)
    assert view.base.mean_length == pytest.approx(np.mean(lengths), rel=1e-5)
    found = answers(served.retriever, "bm25", "word1 word2 word2 unheard missing", 100)

    def score(doc: Document) -> float:
        words, total = text_of(doc).split(), 0.0
        for term, times in {"word1": 1, "word2": 2, "unheard": 1}.items():
            df = sum(term in text_of(each).split() for each in base) or 2
            idf = math.log(1 + (len(base) - df + 0.5) / (df + 0.5))
            tf = words.count(term)
            total += times * idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(words) / np.mean(lengths)))
        return total

    wanted = {doc.id: score(doc) for doc in served.there.values() if score(doc) > 0} | {
        doc.id: score(doc)
        for doc in (Document("new", "", "word1 word1 word2 unheard"), Document("other", "", "unheard of things word1"))
    }
    assert found.keys() == wanted.keys()
    for id, value in wanted.items():
        assert found[id] == pytest.approx(value, rel=1e-4)


def test_conflicts_and_what_is_no_document_are_refused_and_nothing_is_added(served):
    before = served.retriever.sequence
    with pytest.raises(Conflict, match="'b1' is there already"):
        served.retriever.add([Document("fresh", "", "word1"), Document("b1", "", "word1")])
    for bad, said in [
        ([Document("", "", "x")], "empty or has control"),
        ([Document("a\nb", "", "x")], "empty or has control"),
        ([Document("a", "", "x"), Document("a", "", "y")], "given twice"),
        ([Document("a", "", "x", {"n": float("nan")})], "not JSON"),
        ([Document("a", "", "x", {"n": object()})], "not JSON"),
    ]:
        with pytest.raises(Misuse, match=said):
            served.retriever.add(bad)
    assert served.retriever.document("fresh") is None and served.retriever.sequence == before
    assert served.retriever.add([]) == before and served.retriever.delete(["nowhere"]) == (0, before)


def test_documents_come_back_as_given(served):
    served.retriever.add([Document("ü€", "Title", "bro\ud800ken", {"a": [1, {"b": None}], "é": "x"})])
    found = served.another().document("ü€")
    assert found == Document("ü€", "Title", "bro?ken", {"a": [1, {"b": None}], "é": "x"})
    assert served.retriever.document("b1") == served.base[1]
    assert served.retriever.document("b999") is None
    assert served.retriever.fields() == ["a", "n", "parity", "é"]


def test_processes_see_one_another(served):
    other = served.another()
    one = served.retriever.add(documents(2, "p", 5))
    assert other.catch_up() == one and other.document("p1") is not None
    assert other.delete(["p1", "b1", "b1"]) == (2, one + 1)
    assert served.retriever.document("p1") is not None  # until it looks
    served.retriever.catch_up()
    assert served.retriever.document("p1") is None and served.retriever.sequence == one + 1
    with pytest.raises(Conflict):
        other.add([documents(1, "p", 5)[0]])
    third = served.another()
    third.add(documents(1, "q", 6))
    with pytest.raises(Conflict):  # a writer reads what others wrote before it checks
        other.add(documents(1, "q", 7))


def test_compacting_keeps_every_answer_and_others_notice(served):
    change(served)
    other = served.another()
    held = [answers(served.retriever, name, "word1 word5 word9", 20) for name in LEGS[:-1]]
    before, after = served.retriever.compact()
    assert after < before
    assert served.retriever.sequence == other.sequence
    other.catch_up()
    for retriever in (served.retriever, other, served.another()):
        assert [answers(retriever, name, "word1 word5 word9", 20) for name in LEGS[:-1]] == held
        assert len(retriever) == len(served.there)
    assert other.add(documents(1, "z", 8)) == served.retriever.sequence + 1


def test_sequence_numbers_rise_for_ever(served):
    served.add(documents(2, "n", 1))
    served.add(documents(1, "m", 2))
    served.delete("m0")
    before = served.retriever.sequence
    served.retriever.compact()  # the last record goes, those before it stay
    assert served.retriever.sequence == served.another().sequence == before
    assert served.retriever.add(documents(1, "z", 8)) == before + 1


def test_what_is_mostly_undone_is_tidied_once(served, monkeypatch):
    monkeypatch.setattr(retriever_module, "UNDONE", 6)
    other, new = served.another(), documents(2, "n", 1)
    for _ in range(3):
        served.add(new, replace=True)
        assert not served.retriever.tidy()
    served.add(new, replace=True)
    other.catch_up()
    size = (served.folder / "live" / "journal").stat().st_size
    assert served.retriever.tidy() and not served.retriever.tidy()
    assert not other.tidy()  # it looks first
    assert (served.folder / "live" / "journal").stat().st_size < size
    assert other.sequence == served.retriever.sequence == 4 and len(other) == len(served.there)
    check_all(served, served.retriever, 1)


def test_a_write_that_cannot_be_taken_in_is_not_on_disk(served, monkeypatch):
    served.add(documents(1, "n", 1))
    with monkeypatch.context() as patch:
        patch.setattr(LateView, "extended", lambda self, added: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            served.retriever.add([Document("bad", "", "word1")])
    for retriever in (served.retriever, served.another()):
        assert retriever.catch_up() == 1 and retriever.document("bad") is None
        check_all(served, retriever, 1)
    assert served.add(documents(1, "m", 2)) == 2
    check_all(served, served.retriever, 2)


def test_a_write_that_the_disk_refuses_leaves_every_search_as_it_was(served, monkeypatch):
    change(served)
    before = served.retriever.sequence
    with monkeypatch.context() as patch:
        patch.setattr(
            journal_module, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(FlatcoatError, match="No space left"):
            served.retriever.add([Document("bad", "", "word1 word2")])
    assert served.retriever.document("bad") is None
    check_all(served, served.retriever, 1)  # also before it has looked again
    assert served.add(documents(1, "m", 2)) == before + 1
    check_all(served, served.retriever, 2)


@pytest.mark.parametrize(("k1", "b"), [(0.0, 0.4), (1.2, 0.0), (1.2, 1.0)])
def test_bm25_of_any_settings_takes_documents(tmp_path, k1, b):
    base = documents(20, "b", 0)
    collection = store(tmp_path / "store", base)
    settings = Bm25Settings(k1=k1, b=b, stem=False, stopwords=False)
    index = Bm25Index.build([text_of(doc) for doc in base], settings)
    leg = Leg("bm25", "lexical", "bm25", LexicalView(Base(index, collection.documents.texts())))
    retriever = Retriever(collection.documents, [leg], tmp_path / "live")
    query = base[3].text
    before = answers(retriever, "bm25", query, 20)["b3"]
    retriever.add([replace(base[3], id="again")])
    assert answers(retriever, "bm25", query, 21)["again"] == pytest.approx(before, rel=1e-4)


def test_a_leg_that_a_writer_had_not_is_encoded_by_the_reader(served):
    alone = Retriever(served.collection.documents, served.legs[:1], served.folder / "live")
    new = documents(3, "n", 1)
    alone.add(new)
    served.retriever.catch_up()
    served.there |= {doc.id: doc for doc in new}
    check_all(served, served.retriever, 1)


def test_legs_are_fused_as_runs_are(served):
    change(served)
    from flatcoat.records import Ranking
    from flatcoat.search.fuse import normalised_score, reciprocal_rank

    query, names = "word1 word2 word3", ("exact", "sparse", "bm25")
    said = [answers(served.retriever, name, query, 100) for name in names]
    runs = [
        {"q": Ranking(tuple(each), np.array(list(each.values())))} for each in said
    ]  # equal scores as the leg has them
    for way, fuse in (("rank", reciprocal_rank), ("score", normalised_score)):
        wanted = fuse(runs, (1.0, 0.5, 2.0))["q"]
        asked = Asked(names, k=5, offset=2, fuse=way, weights=(1.0, 0.5, 2.0))
        hits = served.retriever.search([query], asked).rankings[0]
        assert [hit.id for hit in hits] == list(wanted.doc_ids[2:7])
        np.testing.assert_allclose([hit.score for hit in hits], wanted.scores[2:7])
        for hit in hits:
            for name, (rank, score) in hit.found_by.items():
                run = runs[names.index(name)]["q"]
                assert run.doc_ids[rank - 1] == hit.id and run.scores[rank - 1] == score
