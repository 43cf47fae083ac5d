"""Keys are seen by nobody: not in answers, logs, metrics or the description; they are compared in constant time. And requests that two
servers would read in two ways are refused by the one that we run on.
"""

from __future__ import annotations

import ast
import inspect
import logging
import socket
import textwrap
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

import uvicorn
from starlette.testclient import TestClient

from fake_retriever import FakeRetriever, serve_fake, toy_documents
from flatcoat.app.serve.keys import Keys, new_key


@pytest.fixture
def served():
    reader, writer = new_key(), new_key()
    retriever = FakeRetriever(toy_documents())
    app, service = serve_fake(retriever, keys=Keys((reader[1],), (writer[1],)))
    yield app, retriever, (reader, writer)
    service.stop()


def test_no_key_and_no_hash_is_ever_said(served, caplog, capfd, monkeypatch):
    app, retriever, pairs = served
    caplog.set_level(logging.DEBUG)
    client = TestClient(app, raise_server_exceptions=False)
    (reader, _), (writer, _) = pairs
    said = []
    for key in (reader, writer, "fc-a-key-that-nobody-has", reader + "x"):
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            for path in ("/v1/retrievers", "/metrics", "/openapi.json", "/nothing", "/v1/documents/d1"):
                said.append(client.get(path, headers=headers))
            said.append(
                client.post("/v1/search", json={"query": key}, headers=headers | {"content-type": "text/plain"})
            )
    monkeypatch.setattr(retriever, "search", lambda *_, **__: 1 / 0)
    said.append(client.post("/v1/search", json={"query": "red"}, headers={"x-api-key": reader}))
    assert {answer.status_code for answer in said} >= {200, 401, 404, 500}
    out, err = capfd.readouterr()
    everything = "\n".join([*(f"{a.headers}{a.text}" for a in said), caplog.text, out, err])
    for secret in (reader, writer, *(hash.removeprefix("sha256:") for _, hash in pairs)):
        assert secret not in everything


def test_keys_are_compared_in_constant_time():
    tree = ast.parse(textwrap.dedent(inspect.getsource(Keys.role)))
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not compared and "compare_digest" in ast.unparse(tree) and "break" not in ast.unparse(tree)


BODY = b'{"query": "red"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("headers", [
    LENGTH + b"Content-Length: 3\r\n", b"Content-Length: +16\r\n", b"Content-Length: 0x10\r\n", b"Content-Length: 16, 16, 3\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: xchunked\r\n" + LENGTH, b"Content-Length: -1\r\n",
    b"A: b\r\n folded\r\nBad Name: x\r\n" + LENGTH, b"A: b\0c\r\n" + LENGTH,
])  # fmt: skip
def test_requests_that_could_be_read_in_two_ways_are_refused(server, headers):
    answer = asked(
        server,
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers + b"\r\n" + BODY,
    )
    assert answer.count(b"HTTP/1.1 ") <= 1 and not answer.startswith(b"HTTP/1.1 200"), answer


def test_what_follows_a_refused_request_is_not_another(server):
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = asked(
        server,
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n" + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY + smuggled,
    )
    assert answer.count(b"HTTP/1.1 ") <= 1 and b'"ok"' not in answer


@pytest.fixture(scope="module")
def server():
    app, service = serve_fake(FakeRetriever(toy_documents()))
    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, http="h11", log_level="critical", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield listening.getsockname()
    running.should_exit = True
    thread.join()
    service.stop()


def asked(place, request: bytes) -> bytes:
    """All that is answered until the server closes, or has nothing more to say for a second."""
    with socket.create_connection(place, timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
