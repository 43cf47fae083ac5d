"""How long does the whole quickstart take?  Flatcoat, and the same recipe by sentence-transformers, faiss and ranx.

    python benchmarks/quickstart_peer.py COLLECTION [--steps 120] [--documents N] [--rounds 3]
        [--precision bf16 int8 recipe] [--peer-python PYTHON]

Both read one BEIR folder that is written from COLLECTION first (`--documents`: cut to so many at random), and do the dense part of
recipes/quickstart.toml in fp32: encode with all-MiniLM-L6-v2 as it is, mine a hard negative a query with those vectors, train on the
same pairs in the same batches, encode anew, search the held-out queries exactly before and after, measure both and test the difference.
Same lengths, batch, steps, rate, warm-up, schedule with its floor, weight decay, clipping, temperature and dropout. Each run is
a process of its own, timed from its start to its end, A B A B; memory is the most that it held.

The peer is what one would write: its own trainer with MultipleNegativesRankingLoss, IndexFlatIP, ranx.compare with Fisher's test; it
mines from the vectors that it has. It says one length for a training step, so its queries may there be as long as documents.
What ranx compiles for ids of a length when it first sees one is compiled before, and ids are all of one length.

What `flatcoat run` does beside this is in its time: checks, a BM25 index that is searched and tested too, a hybrid, the time of single
queries, exact search once more for fidelity, checkpoints, TREC runs and two reports. Search is part of its evaluation, so
the two are one column. `--precision bf16` or `int8` adds a row of ours that encodes so; `recipe` one with the recipe's own precisions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from common import alternate, median_ratio, medians, quietly, write_table

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.toml"
PEER = "sentence-transformers + faiss + ranx"
STAGES = {"load": ("collection",), "train": ("train",), "encode": ("encode-before", "encode-after"),
          "answer": ("index-exact", "evaluate"), "more": ("bm25", "report")}  # fmt: skip
K = 100
COMPILE = """
from ranx import Qrels, Run, compare
right = Qrels({f"q{i:07d}": {"d0000001": 1, "d0000002": 1} for i in range(3)})
runs = [Run({f"q{i:07d}": {"d0000001": 2.0, "d0000003": 1.0} for i in range(3)}, name=name) for name in ("before", "after")]
compare(right, runs, ["ndcg@10", "mrr@10", "recall@100"], stat_test="fisher")
"""


# --- what both are given


def prepare(args: argparse.Namespace, work: Path) -> None:
    """Write the folder that both read, our recipes, and what the peer is to do."""
    from flatcoat.app.recipe import format_recipe, load_recipe

    _write_collection(args.collection, args.documents, work / "data")
    said = [f"training.steps={args.steps}", f"collection.source={work / 'data'}"]
    if args.batch:
        said.append(f"training.batch={args.batch}")
    for precision in ("fp32", *args.precision):
        own = [] if precision == "recipe" else [f"runtime.precision={precision}", "runtime.training_precision=fp32"]
        recipe = load_recipe(RECIPE, [*said, *own]).model_copy(update={"also": (), "indexes": ()})
        (work / f"{precision}.toml").write_text(format_recipe(recipe), encoding="utf-8")
    _write_peer(load_recipe(RECIPE, said), work)


def _write_collection(source: str, count: int | None, folder: Path) -> None:
    from flatcoat.data.collection import open_collection

    opened = open_collection(source)
    documents, queries = opened.documents, opened.queries
    rows = np.arange(len(documents))
    if count and count < len(rows):
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:count])
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for row, text in zip(rows.tolist(), documents.texts(rows), strict=True):
            file.write(json.dumps({"_id": f"d{row:07d}", "title": "", "text": text}) + "\n")
    asked: set[int] = set()
    for split in opened.splits:
        judged = np.asarray(opened.judgements(split))
        judged = judged[np.isin(judged[:, 1], rows)]
        asked |= set(judged[:, 0].tolist())
        lines = [f"q{q:07d}\td{d:07d}\t{grade}\n" for q, d, grade in judged.tolist()]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8"
        )
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for row in sorted(asked):
            file.write(json.dumps({"_id": f"q{row:07d}", "text": queries.text(row)}) + "\n")


def _write_peer(recipe: Any, work: Path) -> None:
    """The recipe in numbers, and the pairs of every batch in order: another interpreter needs no Flatcoat."""
    from flatcoat.data.collection import open_collection
    from flatcoat.data.pairs import epoch_batches, load_pairs
    from flatcoat.models.source import resolve

    collection = open_collection(str(work / "data"), work / "store")
    pairs, training, order = load_pairs(collection, recipe.collection.train), recipe.training, np.empty(0, np.int64)
    epoch = 0
    while len(order) < training.steps * training.batch:
        found = epoch_batches(pairs.query_keys, training.batch, training.seed, epoch).reshape(-1)
        order, epoch = np.concatenate([order, found]), epoch + 1
    order = order[: training.steps * training.batch]
    ids, asked = collection.documents.ids, collection.queries.ids
    said = {
        "model": str(resolve(recipe.model.start)), "data": str(work / "data"),
        "train": recipe.collection.train, "test": recipe.collection.test,
        "pairs": [[asked[int(q)], ids[int(d)]] for q, d in zip(pairs.queries[order], pairs.documents[order], strict=True)],
        "lengths": [recipe.model.query_length, recipe.model.document_length], "dropout": recipe.model.dropout,
        "negatives": {"last": recipe.negatives.last, "relative": recipe.negatives.relative},
        "training": training.model_dump(include={"steps", "batch", "rate", "warmup", "floor", "weight_decay", "clip",
                                                 "temperature", "seed"}),
    }  # fmt: skip
    (work / "peer.json").write_text(json.dumps(said), encoding="utf-8")


# --- the peer


class Peer:
    """The recipe by sentence-transformers, faiss and ranx."""

    def __init__(self, said: dict[str, Any], out: Path):
        self.said, self.out = said, out
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what is spent inside to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def go(self) -> dict[str, Any]:
        """Do it all; give seconds of stages, and nDCG@10 before and after."""
        from sentence_transformers import SentenceTransformer

        with self.stage("load"):
            self.load()
        rate = self.said["dropout"]
        given = {} if rate is None else {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        make = lambda: SentenceTransformer(self.said["model"], device="cpu", config_kwargs=given)  # noqa: E731
        self.model = quietly(make)
        vectors = self.encode("before")
        before, index = self.search("before", vectors)
        if self.said["training"]["steps"]:
            with self.stage("train"):
                self.train(self.mine(index, vectors))
        after, _ = self.search("after", self.encode("after"))
        with self.stage("answer"):
            scores = self.compare(before, after)
        return {**self.seconds, "before": scores[0], "after": scores[1]}

    def load(self) -> None:
        """Documents, queries, judgements."""
        folder = Path(self.said["data"])
        self.ids, self.texts = self._records(folder / "corpus.jsonl")
        self.queries = dict(zip(*self._records(folder / "queries.jsonl"), strict=True))
        self.place = {id: i for i, id in enumerate(self.ids)}
        self.right = {
            split: self._judgements(folder / "qrels" / f"{self.said[split]}.tsv") for split in ("train", "test")
        }

    @staticmethod
    def _records(path: Path) -> tuple[list[str], list[str]]:
        with path.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        return [record["_id"] for record in records], [record["text"] for record in records]

    @staticmethod
    def _judgements(path: Path) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if int(grade) > 0:
                found.setdefault(query, {})[document] = int(grade)
        return found

    def read(self, texts: list[str], side: int) -> np.ndarray:
        """Vectors of texts at the length of a side: 0 queries, 1 documents."""
        self.model.max_seq_length = self.said["lengths"][side]
        return np.asarray(self.model.encode(texts, show_progress_bar=False), np.float32)

    def encode(self, name: str) -> np.ndarray:
        """The corpus's vectors, kept."""
        with self.stage("encode"):
            vectors = self.read(self.texts, 1)
            np.save(self.out / f"{name}.npy", vectors)
        return vectors

    def search(self, name: str, vectors: np.ndarray) -> tuple[Any, Any]:
        """Index, and answer the held-out queries."""
        import faiss
        from ranx import Run

        with self.stage("answer"):
            index: Any = faiss.IndexFlatIP(vectors.shape[1])
            index.add(vectors)
            faiss.write_index(index, str(self.out / f"{name}.faiss"))
            asked = list(self.right["test"])
            scores, rows = index.search(self.read([self.queries[id] for id in asked], 0), min(K, len(self.ids)))
            found = {
                id: {self.ids[r]: float(s) for r, s in zip(rows[i], scores[i], strict=True)}
                for i, id in enumerate(asked)
            }
            return Run(found, name=name), index

    def mine(self, index: Any, vectors: np.ndarray) -> list[str]:
        """A hard negative a pair: of the best few, none that is judged or too near to the positive."""
        settings, rng = self.said["negatives"], np.random.default_rng(self.said["training"]["seed"])
        asked = list(dict.fromkeys(query for query, _ in self.said["pairs"]))
        queries = self.read([self.queries[id] for id in asked], 0)
        widest = max(len(self.right["train"][id]) for id in asked)
        scores, rows = index.search(queries, min(settings["last"] + widest, len(self.ids)))
        pools = {}
        for i, id in enumerate(asked):
            own = [self.place[document] for document in self.right["train"][id]]
            fine = ~np.isin(rows[i], own)
            best, values = rows[i][fine][: settings["last"]], scores[i][fine][: settings["last"]]
            if settings["relative"] is not None:
                least = float((vectors[own] @ queries[i]).min())
                best = best[values < least - (1 - settings["relative"]) * abs(least)]
            pools[id] = best
        anywhere = np.arange(len(self.ids))
        chosen = (rng.choice(pools[query] if len(pools[query]) else anywhere) for query, _ in self.said["pairs"])
        return [self.texts[int(row)] for row in chosen]

    def train(self, negatives: list[str]) -> None:
        """Its own trainer, with the batches in the given order; the model is saved."""
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.losses import MultipleNegativesRankingLoss
        from torch.utils.data import SequentialSampler

        pairs, settings = self.said["pairs"], self.said["training"]
        data = Dataset.from_dict({"anchor": [self.queries[q] for q, _ in pairs],
                                  "positive": [self.texts[self.place[d]] for _, d in pairs], "negative": negatives})  # fmt: skip

        class InOrder(SentenceTransformerTrainer):
            def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
                return SequentialSampler(data)

        self.model.max_seq_length = max(self.said["lengths"])
        arguments = SentenceTransformerTrainingArguments(
            str(self.out / "training"), per_device_train_batch_size=settings["batch"], max_steps=settings["steps"],
            learning_rate=settings["rate"], warmup_steps=settings["warmup"], weight_decay=settings["weight_decay"],
            lr_scheduler_type="polynomial", lr_scheduler_kwargs={"lr_end": settings["floor"] * settings["rate"], "power": 1.0},
            max_grad_norm=settings["clip"] or 0.0, seed=settings["seed"], save_strategy="no", report_to="none", use_cpu=True,
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        loss = MultipleNegativesRankingLoss(self.model, scale=1 / settings["temperature"])
        InOrder(self.model, args=arguments, train_dataset=data, loss=loss).train()
        self.model.save_pretrained(str(self.out / "model"))

    def compare(self, before: Any, after: Any) -> tuple[float, float]:
        """NDCG@10 of both, beside the other measures and a randomisation test."""
        from ranx import Qrels, compare

        measures = ["ndcg@10", "mrr@10", f"recall@{K}"]
        report = compare(Qrels(self.right["test"]), [before, after], measures, stat_test="fisher")
        (self.out / "report.txt").write_text(str(report), encoding="utf-8")
        return float(before.mean_scores["ndcg@10"]), float(after.mean_scores["ndcg@10"])


# --- one run of either, timed from outside


def one(name: str, work: Path) -> dict[str, float]:
    """Start a process, wait for it, and read what it says of itself."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "out"
        if name == PEER:
            out.mkdir()
            line = [sys.executable, __file__, str(work), "--do", str(out)]
        else:
            recipe = work / f"{name.partition('-')[2] or 'fp32'}.toml"
            line = [
                sys.executable,
                "-m",
                "flatcoat",
                "run",
                str(recipe),
                "--out",
                str(out),
                "--quiet",
                "--allow",
                "only-judged",
            ]
        start = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True)
        whole = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found = json.loads((out / "said.json").read_text()) if name == PEER else _ours(out)
    known = sum(found.get(stage, 0.0) for stage in STAGES)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"more": 0.0, "train": 0.0, **found, "whole": whole, "rest": whole - known, "peak": peak}


def _ours(out: Path) -> dict[str, float]:
    times = json.loads((out / "times.json").read_text())
    found = {stage: sum(times.get(part, 0.0) for part in parts) for stage, parts in STAGES.items()}
    means = {
        system["name"]: system["means"]["nDCG@10"]
        for system in json.loads((out / "results.json").read_text())["systems"]
    }
    before = means["before, exact"] if "before, exact" in means else means["exact"]
    return {**found, "before": before, "after": means.get("after, exact", before)}


# --- the table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, help="in place of the recipe's")
    parser.add_argument("--documents", type=int, help="cut the collection to so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="*", default=[], choices=["bf16", "int8", "recipe"])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--one")
    parser.add_argument("--do", type=Path)
    args = parser.parse_args()
    if args.do:
        said = json.loads((Path(args.collection) / "peer.json").read_text(encoding="utf-8"))
        (args.do / "said.json").write_text(json.dumps(Peer(said, args.do).go()), encoding="utf-8")
        return
    if args.one:
        print(json.dumps(one(args.one, Path(args.collection))))
        return
    names = [PEER, "flatcoat", *(f"flatcoat-{kind}" for kind in args.precision)]
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # both alike, whatever forked before
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(args, work)
        count = sum(1 for _ in (work / "data" / "corpus.jsonl").open("rb"))
        asked = len({line.split("\t")[0] for line in (work / "data/qrels/test.tsv").read_text().splitlines()[1:]})
        subprocess.run([args.peer_python, "-c", COMPILE], check=True, capture_output=True)
        found = alternate(__file__, names, args.rounds, [folder], {PEER: args.peer_python})
    shown = ["load", "train", "encode", "answer", "more", "rest"]
    rows = []
    for name in names:
        runs = found[name]
        middle, low, high = medians(runs, "whole")
        times = [f"{medians(runs, key)[0]:.1f}" for key in shown]
        rows.append([name, f"{middle:.1f}", f"{low:.1f}", f"{high:.1f}", f"{1 / median_ratio(runs, found[PEER], 'whole'):.2f}",
                     *times, f"{medians(runs, 'before')[0]:.4f}", f"{medians(runs, 'after')[0]:.4f}",
                     f"{medians(runs, 'peak')[0]:.0f}"])  # fmt: skip
    header = ["engine", "whole s", "least", "most", "times the peer's speed", "load s", "mine and train s", "encode twice s",
              "index, search, evaluate s", "BM25 and report s", "start-up and rest s", "nDCG@10 before", "nDCG@10 after",
              "peak MB"]  # fmt: skip
    where = Path(args.collection).name.strip(":")
    note = (f"{count} documents of {where}, {asked} test queries, {args.steps} steps, {args.rounds} alternating rounds; fp32 but where "
            "the name says otherwise\nof flatcoat: what `run` does beyond the peer's script (checks, BM25 and hybrid, latency, fidelity, "
            "checkpoints, reports) is in its time")  # fmt: skip
    write_table("quickstart_peer", "quickstart_peer", header, rows, note)


if __name__ == "__main__":
    main()
