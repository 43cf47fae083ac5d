"""Limits: how large a body, how deep its JSON, how many requests at once; and a body that never comes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx")

import httpx
from starlette.testclient import TestClient

from fake_retriever import FakeRetriever, serve_fake, toy_documents
from flatcoat.app.serve.guard import PIECE
from flatcoat.app.serve.keys import Keys, hashed
from flatcoat.app.serve.limits import Limits, shape
from flatcoat.app.serve.supervise import bound, is_loopback
from flatcoat.app.verbs_serve import serve
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.search.retriever import Document

JSON = {"content-type": "application/json"}


@pytest.fixture
def serving():
    made = []

    def make(**settings):
        app, service = serve_fake(FakeRetriever(toy_documents()), **settings)
        made.append(service)
        return app, service

    yield make
    for service in made:
        service.stop()


def pieces(size, piece=b" " * 1000):
    """A body of unknown length: sent in chunks, without Content-Length."""
    for _ in range(size // len(piece)):
        yield piece
    yield b'{"query": "red"}'


def test_a_large_body_is_refused_with_and_without_its_length(serving):
    app, _ = serving(max_body=10_000)
    client = TestClient(app)
    assert client.post("/v1/search", content=pieces(9000), headers=JSON).status_code == 200
    for content in (pieces(11_000), b" " * 11_000):
        response = client.post("/v1/search", content=content, headers=JSON)
        assert response.status_code == 413 and response.json()["error"]["type"] == "too_large"
        assert response.headers["connection"] == "close"
    response = client.post("/v1/search", content=b"{}", headers={**JSON, "content-length": "9" * 30})
    assert response.status_code == 413


def test_a_body_that_never_ends_is_given_up(serving):
    app, _ = serving(body_seconds=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/search", "query_string": b"", "root_path": "",
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    assert sent[0]["status"] == 408 and b'"timeout"' in sent[1]["body"]


def test_too_many_at_once_are_told_to_wait(serving):
    app, service = serving(max_concurrent=4)
    gate = threading.Event()
    service.retriever.hold = lambda: gate.wait(5)

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            sent = [asyncio.ensure_future(client.post("/v1/search", json={"query": "red"})) for _ in range(10)]
            await asyncio.sleep(0.3)
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            gate.set()
            return await asyncio.gather(*sent)

    found = asyncio.run(go())
    assert sorted(response.status_code for response in found) == [200] * 4 + [429] * 6
    busy = next(response for response in found if response.status_code == 429)
    assert busy.headers["retry-after"] == "1" and busy.json()["error"]["type"] == "too_many_requests"
    assert app.in_flight == 0


def scope_of(method, path, *headers):
    """A request as a server hands it on."""
    return {"type": "http", "method": method, "path": path, "query_string": b"", "root_path": "", "scheme": "http",
            "http_version": "1.1", "headers": [(b"content-type", b"application/json"), *headers]}  # fmt: skip


def test_who_has_no_key_holds_no_place(serving):
    app, _ = serving(max_concurrent=2, keys=Keys(read=(hashed("k"),)))
    never = asyncio.Event()

    async def receive():
        await never.wait()
        return {"type": "http.disconnect"}

    async def status(method, path):
        sent = []

        async def send(message):
            sent.append(message)

        await asyncio.wait_for(app(scope_of(method, path), receive, send), 5)
        return sent[0]["status"]

    async def go():
        key = {"authorization": "Bearer k"}
        for method, path, said in (("POST", "/healthz", 405), ("GET", "/", 200), ("POST", "/v1/search", 401)):
            assert await status(method, path) == said  # without waiting for a body
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.post("/v1/search", json={"query": "red"}, headers=key)).status_code == 200

    asyncio.run(go())
    assert app.in_flight == 0


def asked_by_hand(app, send):
    """A search whose answer goes to `send`; gives how many were in flight meanwhile, and after."""

    async def go():
        messages = [{"type": "http.request", "body": b'{"query": "red", "k": 500}'}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.sleep(60)

        asking = asyncio.ensure_future(app(scope_of("POST", "/v1/search"), receive, send))
        await asyncio.sleep(0.5)
        meanwhile = app.in_flight
        await asyncio.wait_for(asking, 5)
        return meanwhile, app.in_flight

    return asyncio.run(go())


def test_an_answer_that_nobody_reads_is_given_up_and_one_that_is_read_is_whole():
    documents = [Document(f"d{i}", "", "red " + "x" * 2000, {}) for i in range(200)]
    app, service = serve_fake(FakeRetriever(documents), body_seconds=1.0)
    got, sent = [], []

    async def read(message):
        got.append(message)

    async def unread(message):
        sent.append(message)
        if len(sent) > 2:
            await asyncio.sleep(60)

    assert asked_by_hand(app, read) == (0, 0)
    body = b"".join(message.get("body", b"") for message in got)
    assert len(json.loads(body)["results"][0]["hits"]) == 200
    assert max(len(message.get("body", b"")) for message in got) <= PIECE < len(body)
    assert [message.get("more_body") for message in got[1:]] == [True] * (len(got) - 2) + [False]
    assert asked_by_hand(app, unread) == (1, 0)
    assert len(sent) == 3 and sent[-1]["more_body"]
    service.stop()


def test_an_answer_is_bounded(serving):
    app, _ = serving(max_answer=2000)
    client = TestClient(app)
    response = client.post("/v1/search", json={"query": "red", "k": 500})
    assert response.status_code == 400 and "text: false" in response.json()["error"]["message"]
    assert client.post("/v1/search", json={"query": "red", "k": 2, "text": False}).status_code == 200


def test_a_deep_json_value_is_measured():
    assert shape({"a": [1, 2, {"b": None}]}, "it", 5) == 6
    value = deep = []
    for _ in range(6):
        deep.append([])
        deep = deep[0]
    shape(value, "it", 7)
    with pytest.raises(Misuse, match="6 levels"):
        shape(value, "it", 6)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [float("-inf")], 2**63, {"a": -(2**63) - 1}])
def test_numbers_that_json_or_a_column_cannot_hold_are_refused(value):
    with pytest.raises(Misuse):
        shape(value, "it", 8)


def test_settings_bound_what_is_asked():
    limits = Limits(max_k=10, max_query=5)
    limits.ranking(1, 10, 0, None)
    limits.query("12345")
    for wrong in (lambda: limits.ranking(1, 10, 1, None), lambda: limits.query("123456"), lambda: limits.query("\n")):
        with pytest.raises(Misuse):
            wrong()


def test_a_socket_answers_without_delay_and_a_port_is_taken_once():
    with bound("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(FlatcoatError, match="another --host or --port"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize(("host", "private"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
    ("10.0.0.1", False), ("localhost.example", False),
])  # fmt: skip
def test_only_loopback_is_private(host, private):
    assert is_loopback(host) is private


def verb(folder, **said):
    """`flatcoat serve` with its defaults."""
    settings = {
        "host": "127.0.0.1", "port": 0, "workers": 1, "retriever": None, "reranker": None, "keys": None, "no_keys": False,
        "new_key": False, "read_only": False, "max_k": 1000, "max_body": 2_000_000, "max_query": 4000, "max_concurrent": 256,
        "precision": None, "device": "auto", "threads": None, "quiet": True,
    }  # fmt: skip
    serve(folder, **(settings | said))


@pytest.mark.parametrize(("said", "says"), [
    ({"host": "0.0.0.0"}, "without a key"), ({"workers": 0}, "--workers"), ({"port": 70_000}, "--port"), ({"max_k": 0}, "--max-k"),
    ({"precision": "fp8"}, "bf16"), ({"keys": Path("k"), "no_keys": True}, "one of them"),
])  # fmt: skip
def test_the_verb_refuses_what_would_be_unsafe_or_nothing(tmp_path, said, says):
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(Misuse, match=says):
        verb(tmp_path, **said)
    with pytest.raises(Misuse, match="not the folder of a run"):
        verb(tmp_path / "nothing")
    with pytest.raises(Misuse, match="FOLDER"):
        verb(None)


def test_a_new_key_is_printed_with_its_hash(capsys):
    verb(None, new_key=True)
    key, hash = capsys.readouterr().out.split()
    assert hash == f'"{hashed(key)}"'
