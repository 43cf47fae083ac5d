"""Hostile requests: schemathesis reads the OpenAPI description and breaks it; our own generator breaks what it cannot say.

Nothing may answer 500, hang, or answer in another shape than the contract's.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx")

import httpx

from fake_retriever import FakeRetriever, FakeScorer, serve_fake, toy_documents

REQUESTS = 600  # of our own; benchmarks/serve.py --hostile makes more
EXAMPLES = 8  # of schemathesis, an operation
KNOWN = {200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 503}
POSTS = ["/v1/search", "/v1/explain", "/v1/missed", "/v1/embeddings", "/v1/embeddings/sparse", "/v1/embeddings/multivector",
         "/v1/rerank", "/rerank", "/v1/documents", "/v1/documents/delete"]  # fmt: skip
GOOD = {
    "/v1/search": {
        "query": "red fox",
        "retrievers": ["exact", "bm25"],
        "k": 3,
        "filter": {"year": {"gt": 2003}},
        "rerank": 2,
    },
    "/v1/explain": {"query": "red", "retriever": "late", "id": "d1"},
    "/v1/missed": {"query": "red", "retriever": "scan", "k": 3},
    "/v1/rerank": {"query": "red", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/rerank": {"query": "red", "documents": ["a"]},
    "/v1/documents": {"documents": [{"id": "x", "title": "t", "text": "y", "metadata": {"a": [1]}}], "replace": True},
    "/v1/documents/delete": {"ids": ["x", "d3"]},
}


def odd_value(rng: random.Random, depth: int = 0):
    """A value that somebody may not have thought of."""
    plain = [
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.1, -0.0, 1e308, "", " ", "\x00", "red fox", "a" * 5000,
        "\u202e", "💥" * 50, "\ufdd0", "{}", "d1", "exact", "'\"<script>", "../../etc/passwd", "%00", "\n\r", "\x1b[2J", "null",
    ]  # fmt: skip
    if depth < 3 and rng.random() < 0.4:
        if rng.random() < 0.5:
            return [odd_value(rng, depth + 1) for _ in range(rng.randrange(5))]
        names = ["and", "or", "not", "in", "eq", "gt", "exists", "text", "id", "metadata", "", "$where", "__class__"]
        return {rng.choice(names): odd_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(plain)


def mutated(rng: random.Random, path: str):
    """A body that was right, with a thing or two wrong."""
    body = json.loads(json.dumps(GOOD.get(path, {"input": ["red", "dog"], "input_type": "query"})))
    for _ in range(rng.randrange(1, 4)):
        if not isinstance(body, dict) or not body:
            return odd_value(rng)
        name = rng.choice([*body, "extra", "k", "filter"])
        change = rng.random()
        if change < 0.2:
            body.pop(name, None)
        else:
            body[name] = (
                odd_value(rng) if change < 0.9 or name not in body else [body[name]] * rng.choice([2, 300, 3000])
            )
    return body


def raw(rng: random.Random, body: bytes) -> bytes:
    """Bytes that may be JSON no more."""
    way = rng.randrange(8)
    if way == 0:
        return body[: rng.randrange(len(body) + 1)]
    if way == 1:
        at = rng.randrange(len(body) + 1)
        return body[:at] + bytes(rng.randrange(256) for _ in range(4)) + body[at:]
    if way == 2:
        return b'{"query": "\\ud800\\udc00\\ud800", "input": "\\udfff"}'
    if way == 3:
        opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
        deep = rng.choice([50, 500, 50_000])
        return b'{"query": "a", "filter": ' + opening * deep + b"1" + closing * deep + b"}"
    if way == 4:
        return body.replace(b"3", rng.choice([b"NaN", b"Infinity", b"1e999", b"-0", b"0x3", b"3" * 5000]))
    return body


def hostile_request(rng: random.Random) -> dict:
    """One request, as httpx takes it."""
    if rng.random() < 0.15:
        paths = ["/", "/nothing", "/v1/documents/", "/v1/documents/%00", "/v1/documents/%ff%fe", "/v1/documents/" + "x" * 3000,
                 "/page/..%2f..%2fapi.py", "/page/app.js", "/page/" + "a" * 300 + ".js", "/v1//search", "/v1/search/",
                 "/metrics", "/v1/retrievers?a=%00",
                 "//"]  # fmt: skip
        return {
            "method": rng.choice(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW"]),
            "url": rng.choice(paths),
        }
    path = rng.choice(POSTS)
    body = json.dumps(mutated(rng, path), ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")
    kinds = ["application/json"] * 9 + [
        "text/plain",
        "application/json;charset=utf-16",
        "",
        "multipart/form-data; boundary=x",
    ]
    headers = {"content-type": rng.choice(kinds)}
    if rng.random() < 0.05:
        headers["authorization"] = rng.choice([b"Bearer", b"Bearer \xff", b"Basic Og==", b"Bearer " + b"x" * 4000])
    return {"method": "POST", "url": path, "content": raw(rng, body), "headers": headers}


async def bombard(app, count: int, seed: int, at_once: int = 16) -> dict[int, int]:
    """Send hostile requests, some at once; give how often each status was answered.

    Raises:
        AssertionError: a status or a shape that is not the contract's, or no answer in ten seconds.
    """
    rng, seen = random.Random(seed), dict.fromkeys(sorted(KNOWN), 0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:

        async def one(request):
            response = await asyncio.wait_for(client.request(**request), 10)
            assert response.status_code in KNOWN, (request, response.status_code, response.text)
            seen[response.status_code] += 1
            if response.status_code != 200 and request["method"] != "HEAD":
                error = response.json()["error"]
                assert set(error) == {"message", "type", "param"} and "Traceback" not in error["message"], (
                    request,
                    error,
                )

        for start in range(0, count, at_once):
            await asyncio.gather(*(one(hostile_request(rng)) for _ in range(min(at_once, count - start))))
    return seen


def hostile_app():
    """What is bombarded: the application over a fake of a few documents."""
    return serve_fake(FakeRetriever(toy_documents(), scorer=FakeScorer()))


def test_nothing_breaks_it():
    app, service = hostile_app()
    seen = asyncio.run(bombard(app, REQUESTS, seed=0))
    assert min(seen[200], seen[400], seen[422], seen[415], seen[404]) > 0, seen
    assert app.in_flight == 0 and not len(service.batcher)
    assert asyncio.run(bombard(app, 50, seed=1))[200] > 0  # and it still answers
    service.stop()


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_as_described(mode):
    """Bodies that fit the description, and bodies that do not: every answer is one that it names, in the shape it names."""
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    app, service = hostile_app()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    wanted = [not_a_server_error, checks.content_type_conformance, checks.response_schema_conformance,
              checks.status_code_conformance]  # fmt: skip
    if mode == "negative":
        wanted.append(checks.negative_data_rejection)
    bounds = hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    asked: dict[str, list[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode == "negative" and operation.path not in POSTS:
            continue
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

        @bounds
        @hypothesis.given(case=strategy)
        def ask(case):
            response = case.call()
            case.validate_response(response, checks=wanted)
            asked.setdefault(case.operation.label, []).append(response.status_code)

        ask()
    service.stop()
    assert len(asked) == (17 if mode == "positive" else len(POSTS)), sorted(asked)
    if mode == "positive":
        assert {label for label, statuses in asked.items() if 200 in statuses} >= {
            "GET /healthz",
            "POST /v1/embeddings",
        }
