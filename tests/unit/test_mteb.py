"""mteb: every kind of model through `mteb.evaluate` on a tiny task made on the spot, against search by hand."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mteb")

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import CrossEncoderProtocol, EncoderProtocol, SearchProtocol
from mteb.types import PromptType

from flatcoat.app.integrations.mteb import corpus_texts, mteb_model, pair, query_texts
from flatcoat.data.toy import toy_sentences
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.models.checkpoint import Overrides, load_dense, save_dense
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross, save_cross
from flatcoat.models.load import load_model
from flatcoat.representations import Sparse

ROOT = Path(__file__).resolve().parents[2]
ROWS = toy_sentences()[:18]
HOW = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}


def metadata(kind):
    return TaskMetadata(
        type=kind, name=f"Toy{kind}", main_score="ndcg_at_10", description="Animals.", category="t2t", modalities=["text"],
        dataset={"path": "flatcoat/toy", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
        reference=None, date=None, domains=[], task_subtypes=[], license=None, annotations_creators="derived",
        dialect=[], sample_creation="created", bibtex_citation="",
    )  # fmt: skip


def split(candidates):
    ids = [id for id, _, _ in ROWS]
    return {
        "queries": Dataset.from_list([{"id": f"q-{id}", "text": query} for id, query, _ in ROWS]),
        "corpus": Dataset.from_list([{"id": id, "title": "", "text": text} for id, _, text in ROWS]),
        "relevant_docs": {f"q-{id}": {id: 1} for id in ids},
        "top_ranked": {f"q-{id}": ids[max(0, i - 4) : i + 4] for i, id in enumerate(ids)} if candidates else None,
    }


class Toy(AbsTaskRetrieval):
    """A retrieval task in memory."""

    metadata = metadata("Retrieval")

    def load_data(self, num_proc=None, **_):
        self.dataset = {"default": {"test": split(self.metadata.type == "Reranking")}}
        self.data_loaded = True


class ToyReranking(Toy):
    """The same queries, each with eight candidates."""

    metadata = metadata("Reranking")


@pytest.fixture(scope="module")
def folders(tiny, tiny_mlm, tmp_path_factory):
    """A model of each kind; the dense one with prompts and a query length of its own."""
    home = tmp_path_factory.mktemp("mteb")
    said = Overrides(query_prompt="where ", document_prompt="otter ", query_length=9)
    save_dense(load_dense(str(tiny), said), home / "dense")
    save_late(load_late(str(tiny), LateOverrides(16)), home / "late")
    save_cross(load_cross(str(tiny), CrossOverrides(seed=3)), home / "cross")
    return {"dense": home / "dense", "late": home / "late", "cross": home / "cross", "sparse": tiny_mlm}


def by_hand(folder, task):
    """nDCG@10 of a model's own scores of every pair that the task lets it see."""
    model, data = load_model(str(folder)), split(task is ToyReranking)
    queries, documents = [query for _, query, _ in ROWS], [text for _, _, text in ROWS]
    if hasattr(model, "score"):
        pairs = [(query, document) for query in queries for document in documents]
        scores = model.score(*zip(*pairs, strict=True)).reshape(len(queries), -1)
    else:
        left, right = model.encode_queries(queries), model.encode_documents(documents)
        left, right = (r.array() if isinstance(r, Sparse) else r.vectors for r in (left, right))
        scores = left @ right.T
    gains = []
    for i, (id, _, _) in enumerate(ROWS):
        seen = [
            j
            for j, (other, _, _) in enumerate(ROWS)
            if data["top_ranked"] is None or other in data["top_ranked"][f"q-{id}"]
        ]
        rank = sum(scores[i, j] > scores[i, i] for j in seen)
        gains.append(1 / np.log2(rank + 2) if rank < 10 else 0.0)
    return float(np.mean(gains))


@pytest.mark.parametrize(
    ("kind", "task"),
    [("dense", Toy), ("sparse", Toy), ("late", Toy), ("dense", ToyReranking), ("sparse", ToyReranking),
     ("late", ToyReranking), ("cross", ToyReranking)],
)  # fmt: skip
def test_mteb_measures_what_search_by_hand_measures(kind, task, folders):
    model = mteb_model(str(folders[kind]), name=f"flatcoat/{kind}", device="cpu")
    results = mteb.evaluate(model, task(), cache=None, co2_tracker=False, show_progress_bar=False)
    got = results.task_results[0].scores["test"][0]["ndcg_at_10"]
    assert got == pytest.approx(by_hand(folders[kind], task), abs=2e-5)


def test_each_kind_is_what_mteb_takes_it_for(folders):
    wanted = {"dense": EncoderProtocol, "sparse": SearchProtocol, "late": SearchProtocol, "cross": CrossEncoderProtocol}
    for kind, protocol in wanted.items():
        model = mteb_model(str(folders[kind]), device="cpu")
        assert isinstance(model, protocol)
        assert [
            other for other in (EncoderProtocol, SearchProtocol, CrossEncoderProtocol) if isinstance(model, other)
        ] == [protocol]
    meta = mteb_model(str(folders["dense"]), device="cpu").mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.use_instructions, meta.similarity_fn_name.value) == (
        "flatcoat/dense",
        32,
        True,
        "cosine",
    )
    assert mteb_model(str(folders["late"]), device="cpu").mteb_model_meta.similarity_fn_name.value == "MaxSim"


def test_prompts_go_to_their_side(folders):
    encoder, model = mteb_model(str(folders["dense"]), device="cpu"), load_dense(str(folders["dense"]))
    batches = [{"text": ["the otter", "a hare"]}, {"text": ["the heron eats"]}]
    texts = [text for batch in batches for text in batch["text"]]
    queries, documents = model.encode_queries(texts).vectors, model.encode_documents(texts).vectors
    assert not np.allclose(queries, documents, atol=1e-3)
    for prompt_type, wanted in ((PromptType.query, queries), (PromptType.document, documents), (None, documents)):
        assert np.allclose(encoder.encode(batches, prompt_type=prompt_type, **HOW), wanted, atol=1e-6)
    assert np.allclose(encoder.similarity(queries, documents), queries @ documents.T, atol=1e-6)
    assert np.allclose(encoder.similarity_pairwise(queries, documents), (queries * documents).sum(1), atol=1e-6)


def test_texts_are_joined_as_mteb_joins_them():
    from mteb._create_dataloaders import _retrieval_texts

    corpus = Dataset.from_list([{"id": "1", "title": "T", "text": "x"}, {"id": "2", "title": "", "text": "y"}])
    queries = Dataset.from_list(
        [{"id": "1", "text": "q", "instruction": "do this"}, {"id": "2", "text": "r", "instruction": "and that"}]
    )
    assert corpus_texts(corpus) == list(_retrieval_texts(corpus, PromptType.document)) == ["T x", "y"]
    assert query_texts(queries) == list(_retrieval_texts(queries, PromptType.query)) == ["q do this", "r and that"]


def test_the_score_of_a_pair_is_the_dot_product():
    rng = np.random.default_rng(0)
    one, other = (np.where(rng.random((4, 30)) < 0.4, rng.random((4, 30)), 0).astype(np.float32) for _ in range(2))
    got = [[pair(Sparse.of(one), i, Sparse.of(other), j) for j in range(4)] for i in range(4)]
    assert np.allclose(got, one @ other.T, atol=1e-6)


def test_what_is_wrong_is_said(folders):
    with pytest.raises(Misuse, match="OWNER/MODEL"):
        mteb_model(str(folders["dense"]), name="mine", device="cpu")
    with pytest.raises(FlatcoatError, match="search before index"):
        mteb_model(str(folders["sparse"]), device="cpu").search(
            Dataset.from_list([{"id": "1", "text": "a"}]), top_k=1, encode_kwargs={}, **HOW
        )
    with pytest.raises(Misuse, match="has no text"):
        mteb_model(str(folders["dense"]), device="cpu").encode([{"image": [None]}], **HOW)
    with pytest.raises(Misuse, match="not text"):
        query_texts(Dataset.from_list([{"id": "1", "text": ["a", "turn"]}]))


def test_the_example_and_the_code_of_the_page_measure(folders):
    spec = spec_from_file_location("mteb_example", ROOT / "examples" / "mteb_model.py")
    assert spec and spec.loader
    spec.loader.exec_module(example := module_from_spec(spec))
    wanted = by_hand(folders["dense"], Toy)
    assert example.measure(str(folders["dense"]), [Toy()]) == {"ToyRetrieval": pytest.approx(wanted, abs=2e-5)}
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.+?)```", page, re.S) if "integrations.mteb" in block]
    scope = {"tasks": [Toy()]}
    exec(compile(code.replace('"my-model"', repr(str(folders["dense"]))), "ecosystem.md", "exec"), scope)
    assert scope["results"].task_results[0].get_score() == pytest.approx(wanted, abs=2e-5)
