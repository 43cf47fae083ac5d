"""Alignments add up to the score and are the best matches, found again by loops; attention is that of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross
from flatcoat.search.align import align, attended

QUERY, DOCUMENT = "where does the otter live", "The otter makes its home. In the river."


@pytest.fixture(scope="module", params=["plain", "marked"])
def model(request, tiny):
    marked = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)
    return load_late(str(tiny), LateOverrides(8) if request.param == "plain" else marked)


def test_similarities_add_up_to_the_score(model):
    found = align(model, QUERY, DOCUMENT)
    assert sum(one.similarity for one in found) == pytest.approx(float(model.score([QUERY], [DOCUMENT])[0]), abs=1e-5)
    assert sum(one.share for one in found) == pytest.approx(1)


def test_each_token_has_its_best_match(model):
    asked, held = model.encode_queries([QUERY]).item(0), model.encode_documents([DOCUMENT]).item(0)
    found = align(model, QUERY, DOCUMENT)
    assert len(found) == len(asked)
    for vector, one in zip(asked, found, strict=True):
        products = [float(np.dot(vector, other)) for other in held]
        assert one.similarity == pytest.approx(max(products), abs=1e-5)
        assert products[one.place] == pytest.approx(max(products), abs=1e-5)


def test_tokens_are_named_in_order_and_skipped_ones_are_not_there(model):
    found = align(model, QUERY, DOCUMENT)
    words = ["where", "does", "the", "otter", "live"]
    marked = model.query.settings.marker is not None
    frame = ["[CLS]", "q"] if marked else ["[CLS]"]
    fill = ["[MASK]"] * (12 - len(frame) - 6) if marked else []
    assert [one.token for one in found] == [*frame, *words, "[SEP]", *fill]
    names = [
        "[CLS]",
        *(["d"] if marked else []),
        *["the", "otter", "makes", "its", "home", "in", "the", "river"],
        "[SEP]",
    ]
    if not marked:
        names.insert(6, ".")
        names.insert(-1, ".")
    assert all(names[one.place] == one.best for one in found)


def test_a_text_is_aligned_with_itself(tiny):
    model = load_late(str(tiny))
    found = align(model, DOCUMENT, DOCUMENT)
    assert all(one.token == one.best and one.similarity == pytest.approx(1, abs=1e-5) for one in found)
    assert [one.place for one in found] == list(range(len(found)))


def test_a_document_that_is_skipped_whole_is_refused(tiny):
    model = load_late(str(tiny), LateOverrides(8, skip_punctuation=True))
    names = [*model.document.tokenizer.get_vocab()]
    model.document.skip_ids = torch.arange(len(names))
    with pytest.raises(FlatcoatError, match="nothing to match"):
        align(model, QUERY, DOCUMENT)


def test_what_is_attended_to_most_comes_first(tiny):
    model = load_cross(str(tiny), CrossOverrides(seed=1))
    found = attended(model, QUERY, DOCUMENT, 4)
    paid = [one.attention for one in found]
    words = ["the", "otter", "makes", "its", "home", ".", "in", "the", "river", "."]
    assert paid == sorted(paid, reverse=True) and len(found) == 4
    assert all(words[one.place] == one.token for one in found)
    whole = attended(model, QUERY, DOCUMENT, 100)
    assert sorted(one.place for one in whole) == list(range(len(words))) and whole[:4] == found
    assert 0 < sum(one.attention for one in whole) < 1  # the rest is paid to the query and to special tokens


def test_attention_is_the_networks_own(tiny):
    model = load_cross(str(tiny), CrossOverrides(seed=1))
    given = model.tower.tokenizer(QUERY, DOCUMENT, return_tensors="pt")
    model.tower.backbone.eval()
    model.tower.backbone.set_attn_implementation("eager")
    with torch.no_grad():
        heads = model.tower.backbone(**given, output_attentions=True).attentions[-1][0].mean(0)
    # [CLS] five words [SEP] ten tokens [SEP]
    wanted = heads[1:6, 7:17].mean(0).numpy()
    found = {one.place: one.attention for one in attended(model, QUERY, DOCUMENT, 100)}
    np.testing.assert_allclose([found[place] for place in range(10)], wanted, atol=1e-6)


def test_an_empty_query_attends_to_nothing(tiny):
    model = load_cross(str(tiny), CrossOverrides(seed=1))
    assert {one.attention for one in attended(model, "", DOCUMENT)} == {0.0}
