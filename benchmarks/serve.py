"""How many questions a second, and how soon?  `flatcoat serve` and sentence-transformers + faiss in a plain FastAPI app.

    python benchmarks/serve.py FOLDER [--clients 1,8,64] [--seconds 10] [--rounds 3] [--k 10] [--text] [--workers 1]
    python benchmarks/serve.py --hostile 10000

FOLDER is a run with a dense model. Both load its model and its documents' vectors, in fp32, and answer with the k best of exact
search, one after the other, A B A B, each a server process of its own on loopback; the clients are in a third. The peer is what one
would write first: a `def` endpoint that encodes one question and searches an IndexFlatIP. Before timing, both answer the same
questions: how many of the k they have in common is in the table. A closed loop: each client asks again when it is answered; queries
are drawn from the collection by a seed. `--workers` are Flatcoat's processes; one, unless said. Threads are what each takes by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from common import write_table

NAMES = ["peer", "flatcoat"]


def model_and_vectors(folder: Path) -> tuple[str, Path]:
    """The folder or name of the run's model, and of its documents' vectors."""
    from flatcoat.app.opening import of_run

    index = next(
        path for path in (folder / "index" / "exact", *sorted((folder / "index").iterdir())) if path.name != "bm25"
    )
    model, _, _ = of_run(folder, index.name)
    return model, folder / ("vectors" if (folder / "vectors").is_dir() else "before")


def serve_flatcoat(folder: Path, port: int, workers: int) -> None:
    from flatcoat.app.verbs_serve import serve

    serve(folder, "127.0.0.1", port, workers, ["exact"], "none", None, False, False, True, 1000, 2_000_000, 4000, 256, "fp32", "cpu",
          None, True)  # fmt: skip


def serve_peer(folder: Path, port: int) -> None:
    """The peer: what its README shows, in an endpoint."""
    import faiss
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    from flatcoat.data.store import Collection
    from flatcoat.models.source import resolve
    from flatcoat.vectors import VectorFolder

    name, place = model_and_vectors(folder)
    model = SentenceTransformer(str(resolve(name)), device="cpu")
    stored = VectorFolder.open(place)
    vectors = np.ascontiguousarray(stored.vectors, np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    texts, ids = Collection.open(folder / "store").documents, stored.ids
    app = FastAPI()

    class Question(BaseModel):
        query: str
        k: int = 10
        text: bool = True

    globals()["Question"] = Question  # annotations are read as text

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/search")
    def search(question: Question) -> dict[str, Any]:
        vector = model.encode([question.query], normalize_embeddings=True, show_progress_bar=False)
        scores, rows = index.search(vector, question.k)
        hits = []
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True):
            hit = {"id": ids[row], "score": score}
            if question.text:
                hit["text"] = texts.text(texts.lookup.row(ids[row]))
            hits.append(hit)
        return {"results": [{"query": question.query, "hits": hits}]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return bound.getsockname()[1]


def until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if process.poll() is not None:
            raise SystemExit("a server could not start")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("a server is not ready after 5 minutes")


def questions(folder: Path, count: int = 1000) -> list[str]:
    from flatcoat.data.store import Collection

    queries = Collection.open(folder / "store").queries
    rows = np.random.default_rng(0).permutation(len(queries))[:count]
    return [text[:1000] for text in queries.texts(rows)]


def request(port: int, query: str, k: int, text: bool) -> bytes:
    body = json.dumps({"query": query, "k": k, "text": text}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> bytes:
    """Send one request over a connection that stays, and read its answer; anything but 200 ends the benchmark."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode())
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


async def load(port: int, messages: list[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each answer that came in `seconds`, of `clients` that each ask again when answered."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = number * 7919
        while (began := time.perf_counter()) < end:
            await ask(reader, writer, messages[at % len(messages)])
            took.append(time.perf_counter() - began)
            at += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took


async def answers(port: int, messages: list[bytes]) -> list[list[str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for message in messages:
        body = json.loads(await ask(reader, writer, message))
        found.append([hit["id"] for hit in body["results"][0]["hits"]])
    writer.close()
    return found


def peak(pid: int) -> float:
    """The most memory of a server process and its children, in MB."""
    total = 0.0
    for process in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        total += float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return total


def measure(name: str, folder: Path, args: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """One server, asked by each number of clients."""
    port = free_port()
    command = [
        sys.executable,
        __file__,
        str(folder),
        "--one",
        name,
        "--port",
        str(port),
        "--workers",
        str(args.workers),
    ]
    process = subprocess.Popen(command)
    try:
        until_ready(port, process)
        messages = [request(port, text, args.k, args.text) for text in texts]
        found = asyncio.run(answers(port, messages[:50]))
        rows = {}
        for clients in args.clients:
            asyncio.run(load(port, messages, clients, min(2.0, args.seconds)))  # warm
            took = asyncio.run(load(port, messages, clients, args.seconds))
            p50, p95, p99 = (float(value) * 1000 for value in np.quantile(took, [0.5, 0.95, 0.99]))
            rows[clients] = {"rate": len(took) / args.seconds, "p50": p50, "p95": p95, "p99": p99}
            print(f"{name}, {clients} clients: {rows[clients]}", file=sys.stderr, flush=True)
        return {"rows": rows, "found": found, "peak": peak(process.pid)}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def in_common(one: list[list[str]], other: list[list[str]]) -> float:
    return statistics.mean(len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(one, other, strict=True))


def middle(runs: list[dict[str, Any]], clients: int, key: str) -> float:
    return statistics.median(run["rows"][clients][key] for run in runs)


def compare(args: argparse.Namespace) -> None:
    folder, texts = Path(args.folder).resolve(), questions(Path(args.folder))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for number in range(args.rounds):
        for name in NAMES if number % 2 == 0 else NAMES[::-1]:
            runs[name].append(measure(name, folder, args, texts))
    rows = []
    for clients in args.clients:
        for name in NAMES:
            rates = [run["rows"][clients]["rate"] for run in runs[name]]
            ratios = [rate / peer["rows"][clients]["rate"] for rate, peer in zip(rates, runs["peer"], strict=True)]
            rows.append([
                clients, "sentence-transformers + faiss" if name == "peer" else "flatcoat serve", f"{statistics.median(rates):.1f}",
                f"{min(rates):.1f}", f"{max(rates):.1f}", f"{statistics.median(ratios):.2f}",
                *(f"{middle(runs[name], clients, key):.1f}" for key in ("p50", "p95", "p99")),
                f"{max(run['peak'] for run in runs[name]):.0f}",
                f"{min(in_common(run['found'], runs['peer'][0]['found']) for run in runs[name]):.3f}",
            ])  # fmt: skip
    header = ["clients", "server", "queries/s", "least", "most", "median of ratios", "p50 ms", "p95 ms", "p99 ms", "peak MB",
              f"of the {args.k} in common"]  # fmt: skip
    note = (
        f"closed loop, {args.seconds:g} s each, {args.rounds} alternating rounds, k={args.k}, "
        f"{'with' if args.text else 'without'} texts, {args.workers} worker(s); servers and clients share the machine"
    )
    write_table("serve", "serve", header, rows, note)


def hostile(count: int) -> None:
    """Hostile requests against the application over a fake; an answer of another shape, a 500 or a hang raises."""
    sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("web", "")]
    from test_hostile import bombard, hostile_app

    app, service = hostile_app()
    began = time.perf_counter()
    seen = asyncio.run(bombard(app, count, seed=int.from_bytes(os.urandom(4))))
    service.stop()
    said = ", ".join(f"{status}: {times}" for status, times in seen.items() if times)
    print(f"{count} hostile requests in {time.perf_counter() - began:.1f} s, none broke it; {said}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hostile", type=int)
    parser.add_argument("--one", choices=NAMES)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    if args.hostile is not None:
        hostile(args.hostile)
    elif args.folder is None:
        parser.error("want FOLDER, or --hostile N")
    elif args.one == "peer":
        serve_peer(Path(args.folder), args.port)
    elif args.one == "flatcoat":
        serve_flatcoat(Path(args.folder), args.port, args.workers)
    else:
        compare(args)


if __name__ == "__main__":
    main()
