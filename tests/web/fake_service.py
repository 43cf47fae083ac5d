"""A small service that answers in the HTTP API's shapes over the toy collection, by formula, with faults to switch on."""

from __future__ import annotations

import json
import math
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from flatcoat.data.toy import ANIMALS, toy_sentences

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
PLACES = ("woods", "marsh", "river", "hills", "heath")


def toy_documents() -> dict[str, dict[str, Any]]:
    """The toy sentences as documents with metadata, and one document an animal that has all three."""
    found: dict[str, dict[str, Any]] = {}
    rows = toy_sentences()
    for number, animal in enumerate(ANIMALS):
        own = rows[3 * number : 3 * number + 3]
        place = {"place": PLACES[number % 5], "year": 1990 + number}
        for id, _, text in own:
            kind = id.split("-")[1]
            found[id] = {"id": id, "title": "", "text": text, "metadata": {"kind": kind, **place}}
        text = (
            " ".join(text for _, _, text in own)
            + f" Where the {animal} lives, others live too; they eat what it leaves."
        )
        metadata = {"kind": "page", **place, "tags": ["animal", animal]}
        found[animal] = {"id": animal, "title": f"The {animal}", "text": text, "metadata": metadata}
    return found


def tokens(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def stem(word: str) -> str:
    """A word without its ending, roughly."""
    return re.sub(r"(ing|es|s)$", "", word) if len(word) > 3 else word


def trigrams(text: str) -> set[str]:
    """The letter trigrams of a text."""
    padded = f"#{text.lower()}#"
    return {padded[n : n + 3] for n in range(len(padded) - 2)}


def likeness(left: set[str], right: set[str]) -> float:
    """The cosine of two sets."""
    return len(left & right) / math.sqrt(len(left) * len(right) or 1)


@dataclass
class Toy:
    """Scores of the toy documents, one method a kind of retriever."""

    documents: dict[str, dict[str, Any]] = field(default_factory=toy_documents)

    def __post_init__(self) -> None:
        self.frequency = Counter(s for d in self.documents.values() for s in {stem(t) for t in tokens(d["text"])})

    def weights(self, text: str) -> dict[str, tuple[float, str]]:
        """Of each stem its weight and the word behind it; a word also says its first four letters, lightly."""
        found: dict[str, tuple[float, str]] = {}
        for word in tokens(text):
            rare = math.log(1 + len(self.documents) / (1 + self.frequency[stem(word)]))
            for term, weight in ((stem(word), rare), (word[:4], 0.3 * rare)):
                if weight > found.get(term, (0.0, ""))[0]:
                    found[term] = (weight, word)
        return found

    def dense(self, query: str, text: str) -> float:
        """Likeness of trigrams."""
        return likeness(trigrams(query), trigrams(text))

    def shared(self, query: str, text: str) -> list[dict[str, Any]]:
        """Terms of both, by their product."""
        left, right = self.weights(query), self.weights(text)
        products = {term: left[term][0] * right[term][0] for term in left.keys() & right.keys()}
        total = sum(products.values()) or 1.0
        best = sorted(products.items(), key=lambda item: (-item[1], item[0]))
        return [
            {"term": t, "query": left[t][0], "document": right[t][0], "product": p, "share": p / total} for t, p in best
        ]

    def sparse(self, query: str, text: str) -> float:
        """The sum of the shared products."""
        return sum(term["product"] for term in self.shared(query, text))

    def similarities(self, query: str, text: str) -> list[list[float]]:
        """Likeness of each word of the query to each of the text."""
        rows, columns = [trigrams(t) for t in tokens(query)], [trigrams(t) for t in tokens(text)]
        return [[likeness(row, column) for column in columns] for row in rows]

    def late(self, query: str, text: str) -> float:
        """MaxSim."""
        return sum(max(row, default=0.0) for row in self.similarities(query, text))

    def score(self, kind: str, query: str, text: str) -> float:
        """The score of one kind."""
        ways: dict[str, Callable[[str, str], float]] = {
            "dense": self.dense, "sparse": self.sparse, "late": self.late, "lexical": self.sparse,
        }  # fmt: skip
        return ways[kind](query, text)


LEGS: dict[str, tuple[str, str, str | None, bool]] = {
    "exact": ("dense", "exact", "toy-trigrams", False),
    "scan": ("dense", "scan", "toy-trigrams", True),
    "sparse": ("sparse", "inverted", "toy-stems", False),
    "late": ("late", "multivector", "toy-words", True),
    "bm25": ("lexical", "bm25", None, False),
}


def lost(id: str) -> bool:
    """Whether the approximate indexes do not find a document."""
    return zlib.crc32(id.encode()) % 4 == 0


def holds(filter: dict[str, Any] | None, metadata: dict[str, Any]) -> bool:
    """Whether metadata fit a filter of the form {field: value} or {field: {"in": […]}}."""
    for name, wanted in (filter or {}).items():
        values = metadata.get(name, [])
        allowed = wanted["in"] if isinstance(wanted, dict) else [wanted]
        if not set(values if isinstance(values, list) else [values]) & set(allowed):
            return False
    return True


def fused(places: dict[str, dict[str, tuple[int, float]]], fuse: str) -> dict[str, float]:
    """One score an id: a lone retriever's own, the sum of 1 / (60 + rank), or of the part of each best score."""
    merged: dict[str, float] = {}
    for ranks in places.values():
        best = max((score for _, score in ranks.values()), default=1.0)
        for id, (rank, score) in ranks.items():
            worth = score if len(places) == 1 else score / best if fuse == "score" else 1 / (60 + rank)
            merged[id] = merged.get(id, 0.0) + worth
    return merged


def by_worth(scores: dict[str, float]) -> list[tuple[str, float]]:
    """Ids and scores, best first, ties by id."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


class Refused(Exception):
    """An answer in the error shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class FakeService:
    """The service, on a port of its own while used with `with`. Faults: `status` answers every search so, `delay` seconds."""

    status: int | None = None
    delay: float = 0.0
    key: str | None = None
    toy: Toy = field(default_factory=Toy)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def ranking(
        self, name: str, query: str, filter: dict[str, Any] | None, exact: bool = False
    ) -> list[tuple[str, float]]:
        """Ids and scores by a retriever, best first."""
        if name not in LEGS:
            raise Refused(400, f"no retriever {name!r}; there are {', '.join(LEGS)}")
        kind, _, _, approximate = LEGS[name]
        scores = {
            id: self.toy.score(kind, query, d["text"])
            for id, d in self.toy.documents.items()
            if holds(filter, d["metadata"]) and not (approximate and not exact and lost(id))
        }
        return by_worth({id: score for id, score in scores.items() if score > 0})

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/search."""
        begin, names = time.perf_counter(), body.get("retrievers") or ["exact"]
        rankings = {name: self.ranking(name, body["query"], body.get("filter")) for name in names}
        places = {name: {id: (n + 1, s) for n, (id, s) in enumerate(r)} for name, r in rankings.items()}
        order = by_worth(fused(places, body.get("fuse") or "rank"))
        found = time.perf_counter()
        depth = body.get("rerank") or 0
        heads = {id: self.toy.late(body["query"], self.toy.documents[id]["text"][:60]) for id, _ in order[:depth]}
        order = [*by_worth(heads), *order[depth:]]
        offset, k = body.get("offset", 0), body.get("k", 10)
        hits = [
            {**self.toy.documents[id], "score": score, "rank": offset + n + 1,
             "found_by": {name: {"rank": r[id][0], "score": r[id][1]} for name, r in places.items() if id in r}}
            for n, (id, score) in enumerate(order[offset : offset + k])
        ]  # fmt: skip
        end = time.perf_counter()
        seconds = {
            "encode": 0.0,
            "search": found - begin,
            "rerank": end - found if depth else 0.0,
            "total": end - begin,
        }
        return {"results": [{"query": body["query"], "hits": hits}], "seconds": seconds, "sequence": 1}

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/explain."""
        kind, toy, query = LEGS[body["retriever"]][0], self.toy, body["query"]
        text = toy.documents[body["id"]]["text"]
        answer: dict[str, Any] = {"retriever": body["retriever"], "kind": kind, "score": toy.score(kind, query, text)}
        if kind in ("sparse", "lexical"):
            answer["terms"] = toy.shared(query, text)
        if kind == "sparse":
            heaviest = sorted(toy.weights(query).items(), key=lambda item: -item[1][0])
            answer["expansion"] = [{"term": t, "weight": w, "token": word} for t, (w, word) in heaviest]
        if kind == "late":
            answer["alignment"] = {
                "query_tokens": tokens(query), "document_tokens": tokens(text), "similarities": toy.similarities(query, text),
            }  # fmt: skip
        if kind == "dense":
            sentences = [{"text": s, "score": toy.dense(query, s)} for s in re.split(r"(?<=[.;])\s", text)]
            answer["passages"] = sorted(sentences, key=lambda one: -one["score"])[:5]
        return answer

    def missed(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/missed."""
        begin, k = time.perf_counter(), body["k"]
        approximate = {id for id, _ in self.ranking(body["retriever"], body["query"], None)[:k]}
        middle = time.perf_counter()
        exact = self.ranking(body["retriever"], body["query"], None, exact=True)[:k]
        end = time.perf_counter()
        missed = [
            {"id": id, "rank": n + 1, "score": score, "title": self.toy.documents[id]["title"]}
            for n, (id, score) in enumerate(exact)
            if id not in approximate
        ]
        recall = 1 - len(missed) / max(1, len(exact))
        seconds = {"approximate": middle - begin, "exact": end - middle}
        return {"retriever": body["retriever"], "k": k, "recall": recall, "missed": missed, "seconds": seconds}

    def retrievers(self) -> dict[str, Any]:
        """GET /v1/retrievers."""
        documents = len(self.toy.documents)
        legs = [
            {
                "name": name,
                "kind": kind,
                "index": index,
                "model": model,
                "approximate": approximate,
                "documents": documents,
            }
            for name, (kind, index, model, approximate) in LEGS.items()
        ]
        fields = ["kind", "place", "tags", "year"]
        return {"retrievers": legs, "reranker": "toy-words", "collection": "toy animals", "documents": documents,
                "sequence": 1, "writable": False, "fields": fields}  # fmt: skip

    def answer(self, method: str, path: str, body: Any, key: str | None) -> dict[str, Any]:
        """The JSON that answers a request; raises Refused."""
        self.asked.append((path, body))
        if self.key and key != f"Bearer {self.key}":
            raise Refused(401, "This service asks for a key.")
        if method == "GET" and path == "/v1/retrievers":
            return self.retrievers()
        if method == "GET" and path.startswith("/v1/documents/"):
            id = unquote(path.rsplit("/", 1)[1])
            if id in self.toy.documents:
                return self.toy.documents[id]
        posts = {"/v1/search": self.search, "/v1/explain": self.explain, "/v1/missed": self.missed}
        if method != "POST" or path not in posts:
            raise Refused(404, f"nothing at {path}")
        time.sleep(self.delay)
        if self.status:
            raise Refused(self.status, f"refused with {self.status} as asked")
        return posts[path](body)

    def __enter__(self) -> FakeService:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def handler_of(service: FakeService) -> type[BaseHTTPRequestHandler]:
    """The handler class that answers for a service."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", "default-src 'self'")
            self.send_header("X-Content-Type-Options", "nosniff")
            if status == 429:
                self.send_header("Retry-After", "2")
            self.end_headers()
            self.wfile.write(content)

        def respond(self) -> None:
            path = self.path.split("?")[0]
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            name = "index.html" if path == "/" else path.removeprefix("/page/") if path.startswith("/page/") else ""
            file = files("flatcoat.app.serve.page") / name
            if name and file.is_file():
                return self.send(200, TYPES[name.rsplit(".", 1)[-1]], file.read_bytes())
            try:
                answer = service.answer(self.command, path, body, self.headers.get("Authorization"))
                self.send(200, "application/json", json.dumps(answer).encode())
            except Refused as refused:
                error = {"message": str(refused), "type": "refused", "param": None}
                self.send(refused.status, "application/json", json.dumps({"error": error}).encode())

        do_GET = do_POST = respond

    return Handler
