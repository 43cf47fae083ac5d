"""Faults planted for the checks to find, and the clean cases beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from flatcoat.app.inspect import inspect
from flatcoat.checks import (
    best_pooling,
    cross,
    index,
    late,
    sparse,
    texts,
    training,
)
from flatcoat.checks.base import Finding
from flatcoat.data.collection import build_store
from flatcoat.data.pairs import load_pairs
from flatcoat.errors import FlatcoatError
from flatcoat.files import write_json
from flatcoat.index.exact import ExactIndex
from flatcoat.models.checkpoint import Overrides, load_dense
from flatcoat.models.colbert_checkpoint import LateOverrides, load_late, save_late
from flatcoat.models.colbert_layouts import describe_late
from flatcoat.models.cross_checkpoint import CrossOverrides, load_cross
from flatcoat.models.splade_checkpoint import load_splade
from flatcoat.records import Ranking
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.testing.index import unit
from flatcoat.testing.multi_index import tokens
from flatcoat.vectors import write_vectors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "flatcoat"
MARKED = LateOverrides(8, 12, 24, query_marker="q", document_marker="d", expand=True, skip_punctuation=True)


class Shop:
    """What the cases are made of: small models and collections, each made once."""

    def __init__(self, tiny, tiny_mlm, home):
        self.tiny, self.mlm, self.home, self.made = tiny, tiny_mlm, home, {}

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def dense(self):
        return self.once("dense", lambda: load_dense(str(self.tiny)))

    def splade(self):
        return self.once("splade", lambda: load_splade(str(self.mlm)))

    def late(self, name="late"):
        def make():
            save_late(load_late(str(self.tiny), MARKED), self.home / "late")
            return self.home / "late"

        return self.once(name, make)

    def cross(self):
        return self.once("cross", lambda: load_cross(str(self.tiny), CrossOverrides(seed=0)))

    def store(self, documents, splits=None, queries=None):
        """A collection of texts; `splits` has (query, document, grade) by numbers, or a document's id."""
        folder = self.home / f"c{len(self.made)}-{len(list(self.home.iterdir()))}"
        (folder / "qrels").mkdir(parents=True)
        lines = [json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(documents)]
        (folder / "corpus.jsonl").write_text("".join(lines))
        asked = queries or [f"question number {i}" for i in range(40)]
        lines = [json.dumps({"_id": f"q{i}", "text": text}) + "\n" for i, text in enumerate(asked)]
        (folder / "queries.jsonl").write_text("".join(lines))
        for split, rows in (splits or {"test": [(0, 0, 1)]}).items():
            lines = [f"q{q}\t{d if isinstance(d, str) else f'd{d}'}\t{g}\n" for q, d, g in rows]
            (folder / "qrels" / f"{split}.tsv").write_text("q\td\ts\n" + "".join(lines))
        return build_store(str(folder), folder.with_name(f"{folder.name}-store"))


PLAIN = [f"text {i}" for i in range(60)]
SPLITS = {"train": [(i, i, 1) for i in range(20)], "test": [(20 + i, 20 + i, 1) for i in range(10)]}


def ranked(relevant=1, queries=12, scores=None):
    made = {
        f"q{i}": Ranking.of({f"d{j}": float(10 - j) if scores is None else scores for j in range(10)})
        for i in range(queries)
    }
    return made, {f"q{i}": {f"d{relevant}": 1} for i in range(queries)}


def trec(shop, upside):
    file = shop.home / f"{upside}.trec"
    file.write_text("".join(f"q Q0 d{j} {j + 1} {j if upside else 9 - j} tag\n" for j in range(9)))
    return file


def terms(rows, words=64):
    """Sparse vectors of texts given as {term: weight}."""
    weights = np.zeros((len(rows), words), np.float32)
    for i, row in enumerate(rows):
        for term, weight in row.items():
            weights[i, term] = weight
    return Sparse.of(weights)


NAMES, NOISE = [f"w{i}" for i in range(300)], np.arange(300) < 4
HEALTHY = [{10 + i: 1.0, 11 + i: 2.0} for i in range(30)]


def healthy(rows=HEALTHY, words=64):
    return sparse.health(terms(rows, words), NAMES[:words], NOISE[:words])


def folder_saying(shop, name, **said):
    folder = shop.home / name
    folder.mkdir(exist_ok=True)
    write_json(folder / "config_sentence_transformers.json", said)
    return folder


def taught(good=True, spread=1.0, queries=20):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(queries, 4)).astype(np.float32)
    scores[:, 0] += 3 if good else -3
    return spread * scores


def pairs(shop):
    return shop.once("pairs", lambda: load_pairs(shop.store(PLAIN, SPLITS), "train"))


class Reversed:
    """An index that ranks the farthest first."""

    def __init__(self, vectors):
        self.index = ExactIndex(-vectors)

    def __len__(self):
        return len(self.index)

    def search(self, queries, k):
        return self.index.search(queries, k)


def retrieval(shop, wrong):
    made = unit(80, 16)
    return index.loses(Reversed(made) if wrong else ExactIndex(made), ExactIndex(made), Dense(made[:10]), "x")


def measured(shop, wrong):
    from flatcoat.data.toy import toy_sentences

    model = load_dense(str(shop.tiny), Overrides(pooling="cls" if wrong else "mean"))
    if wrong:
        import torch

        with torch.no_grad():
            for layer in model.query.backbone.encoder.layer:
                layer.attention.output.dense.weight.zero_()
    rows = [document for _, _, document in toy_sentences()[:30]]
    return best_pooling.pooling_by_measure(model, rows, rows)


def marked(shop, lost):
    source = shop.late()
    if lost:
        folder = shop.home / "unmarked"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        config = folder / "config_sentence_transformers.json"
        write_json(config, {**json.loads(config.read_text()), "query_prefix": "[Q] "})
        own = folder / "flatcoat.json"  # no word of what the files were
        kept = {name: value for name, value in json.loads(own.read_text()).items() if name not in ("files", "sha256")}
        write_json(own, kept)
        source = folder
    return late.markers(describe_late(source), load_late(str(source)))


def expanded(shop, far):
    model = load_late(str(shop.late()))
    said = describe_late(shop.late())
    wanted = said._replace(query=said.query._replace(expansion=20)) if far else said
    return late.expansion(wanted, model)


def punctuated(shop, kept):
    model = load_late(str(shop.late()))
    if kept:
        model.document.skip_ids = model.document.skip_ids[:0]
    return late.punctuation(model.document)


def collapsed_tokens():
    made = tokens(40, 1, 9)
    return MultiVector(made.start, np.repeat(made.vectors[:1], len(made.vectors), 0))


def scorer_of(sign):
    class Overlap:
        def score(self, queries, documents):
            shared = [len(set(q.split()) & set(d.split())) for q, d in zip(queries, documents, strict=True)]
            return np.array(shared, np.float32) * sign

    return Overlap()


def related(sign):
    asked = [f"where is word{i}" for i in range(20)]
    return cross.related(scorer_of(sign), asked, [f"word{i} is there" for i in range(20)])


def flat_cross(shop, zero):
    import torch

    model = shop.cross()
    if zero:
        model = load_cross(str(shop.tiny), CrossOverrides(seed=0))
        with torch.no_grad():
            model.tower.backbone.classifier.weight.zero_()
    return cross.spread(model)


def labels(shop, count):
    folder = shop.home / f"labels{count}"
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {"id2label": {str(i): str(i) for i in range(count)}})
    return cross.one_label(folder)


def tokenizer_of(shop, unknown):
    return texts.vocabulary_fit(
        shop.dense().document.tokenizer, shop.store(["Привет мир"] * 3 if unknown else ["the otter"])
    )


def top(shop, noisy):
    """The heaviest terms of a question, every entry of the vocabulary a word, or a mark."""
    model = shop.splade()
    real = model.encode_queries(sparse.PROBES[:2])
    word = "." if noisy else "badger"
    fake = SimpleNamespace(query=model.query, vocabulary=[word] * len(model.vocabulary), encode_queries=lambda _: real)
    return sparse.clean_top(fake)


def gradient(clear):
    total = [0.0]

    def norm():
        total[0] = 1.0 if clear else total[0] + 1.0
        return total[0]

    return training.piled_up(norm)


def hashed(shop, damaged):
    folder = shop.home / f"v-{damaged}"
    write_vectors(folder, unit(20, 8), [f"d{i}" for i in range(20)], {})
    if damaged:
        data = bytearray((folder / "vectors.npy").read_bytes())
        data[-1] ^= 1
        (folder / "vectors.npy").write_bytes(bytes(data))
    try:
        return inspect(str(folder), None, None)
    except FlatcoatError as error:  # the line that the verb ends with
        return [Finding("error", "hashes", str(error))]


def recipe_of(shop, start):
    file = shop.home / "r.toml"
    source = shop.once("toy", lambda: shop.store(PLAIN, SPLITS)).facts["source"]["spec"]
    file.write_text(f'[collection]\nsource = "{source}"\n[model]\nstart = "{start}"\n[training]\nsteps = 0\n')
    return [finding for finding in inspect(str(file), None, None) if finding.check == "sources"]


def said(settings_, side="document"):
    return SimpleNamespace(query=SimpleNamespace(settings=settings_), document=SimpleNamespace(settings=settings_))


def tower(prompt="", length=32):
    return said(SimpleNamespace(prompt=prompt, max_length=length))


def broken(shop):
    bad = unit(30, 8)
    bad[3, 2] = np.nan
    return bad


def rows(count, width):
    return np.zeros((count, width), np.float32)


DEEP = {"train": [(i, i, 1) for i in range(20)], "test": [(20 + i, "d-9" + str(i), 1) for i in range(6)]}
ECHO = {"test": [(i, i, 1) for i in range(20)]}
FULL = {"test": [(0, i, 1) for i in range(58)]}
SHARED = {"train": [(0, 1, 1)], "test": [(1, 1, 1)]}
UNJUDGED = {"test": [(i, i, i % 2) for i in range(10)]}
# (function, name) -> a planted fault, a clean case
