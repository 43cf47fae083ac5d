"""What every request passes first: its host, its key, its size and kind, how many are here already; and what every answer carries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from flatcoat.app.serve.failures import Refused, failure
from flatcoat.app.serve.keys import Keys, key_of
from flatcoat.app.serve.limits import Limits
from flatcoat.app.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PIECE = 65_536  # bytes of an answer that are handed on at once
OPEN = ("/", "/healthz", "/readyz", "/openapi.json")  # and /page/...: no key is asked for
SECURITY = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
WRITES = "/v1/documents"  # every method but GET there


@dataclass(frozen=True)
class Gate:
    """Who may do what: `keys` None lets everybody read, and write unless `read_only`. `hosts` are the names this server answers
    to, None any: a page elsewhere that had its own name lead here would be refused.
    """

    limits: Limits = field(default_factory=Limits)
    keys: Keys | None = None
    read_only: bool = False
    hosts: frozenset[str] | None = None

    def admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raises Refused: another host, no or an unknown key, or one that may not write."""
        path, method = scope["path"], scope["method"]
        if self.hosts is not None and (name := _host(headers.get(b"host", b""))) not in self.hosts:
            raise Refused(403, f"this server does not answer to the name {name[:100]!r}")
        is_open = path in OPEN or path.startswith("/page/")
        if self.keys is not None and not is_open:
            role = self.keys.role(key_of(headers))
            if role is None:
                said = "this key is not known" if key_of(headers) else "a key is wanted"
                hint = "; say Authorization: Bearer KEY"
                raise Refused(401, said + hint, headers={"www-authenticate": "Bearer"})
            if role == "read" and _writes(path, method):
                raise Refused(403, "this key may read, not write")
        if self.read_only and _writes(path, method):
            raise Refused(403, "this server is read-only")


class Guard:
    """The whole application: `app` behind a gate. `posts` are the paths that take a body, `routes` those that are counted by name."""

    def __init__(self, app: App, gate: Gate, metrics: Metrics, posts: Iterable[str], routes: Iterable[str]):
        self.app, self.gate, self.metrics = app, gate, metrics
        self.posts, self.routes = frozenset(posts), frozenset(routes)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, self.gate.limits.body_seconds)
        began, headers = time.perf_counter(), dict(scope["headers"])
        try:
            await self._answered(scope, headers, receive, answer)
        except Unread:
            pass  # nobody to tell: the server closes a connection whose answer is not whole
        finally:
            if answer.status:
                spent = time.perf_counter() - began
                self.metrics.request(self._route(scope["path"]), _method(scope), answer.status, spent)

    async def _answered(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, answer: _Answer) -> None:
        try:
            self.gate.admit(scope, headers)
            with self._counted(scope["path"]):
                body = await self._body(scope, headers, receive)
                if body is not None:
                    await _watched(self.app, scope, body, receive, answer)
        except Refused as error:
            await answer.refuse(error)

    @contextlib.contextmanager
    def _counted(self, path: str) -> Generator[None, None, None]:
        """One of those that are answered at once, from its first byte until its answer is read. Raises Refused where they are too many."""
        counts = path.startswith(("/v1/", "/rerank"))
        if counts and self.in_flight >= self.gate.limits.max_concurrent:
            said = f"{self.gate.limits.max_concurrent} requests are answered already; ask again in a second"
            raise Refused(429, said, headers={"retry-after": "1"})
        self.in_flight += counts
        try:
            yield
        finally:
            self.in_flight -= counts

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The request's body, unread where none belongs; None where the client is gone."""
        limits, path = self.gate.limits, scope["path"]
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limits.max_body):
            raise _too_large(limits)
        if scope["method"] != "POST" or path not in self.posts:
            return b""
        _json(headers)
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await _read(receive, limits)
        except TimeoutError:
            close = {"connection": "close"}
            raise Refused(408, f"no whole body in {limits.body_seconds:g} seconds", headers=close) from None

    def _route(self, path: str) -> str:
        """A path as it is counted: never one that a client could choose freely."""
        if path in self.routes:
            return path
        if path.startswith("/v1/documents/"):
            return "/v1/documents/{id}"
        return "/page" if path.startswith("/page/") else "other"


class Unread(Exception):
    """A client does not read its answer."""


class _Answer:
    """What is sent, with the headers of every answer; knows its status, and when it is whole. A long answer goes out in pieces, each
    when the one before has left, so that what nobody reads is not held; `seconds` without one leaving raise Unread.
    """

    def __init__(self, send: Send, seconds: float):
        self._send, self._seconds = send, seconds
        self.status, self.whole = 0, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *SECURITY]
            await self._out(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        for start in range(0, max(1, len(body)), PIECE):
            rest = more or start + PIECE < len(body)
            self.whole = not rest
            piece = {"type": "http.response.body", "body": body[start : start + PIECE], "more_body": rest}
            await self._out(piece)

    async def _out(self, message: MutableMapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self.whole = False
            raise Unread from None

    async def refuse(self, error: Refused) -> None:
        from pydantic_core import to_json

        body = to_json(failure(error.status, str(error), error.param))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
                   *((name.encode(), value.encode()) for name, value in error.headers.items())]  # fmt: skip
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


async def _watched(app: App, scope: Scope, body: bytes, receive: Receive, answer: _Answer) -> None:
    """Run the application; where the client goes away before its answer is whole, give up."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    running, gone = asyncio.current_task(), False

    async def replay() -> MutableMapping[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            continue
        if not answer.whole and running is not None:
            gone = True
            running.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        await app(scope, replay, answer)
    except asyncio.CancelledError:
        if not gone:
            raise
        if running is not None:
            running.uncancel()
    finally:
        watching.cancel()


async def _read(receive: Receive, limits: Limits) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.max_body:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limits: Limits) -> Refused:
    said = f"the body is larger than {limits.max_body} bytes; send less at once"
    return Refused(413, said, headers={"connection": "close"})


def _json(headers: dict[bytes, bytes]) -> None:
    said = headers.get(b"content-type", b"").decode("latin-1").lower()
    media, _, rest = said.partition(";")
    charset = rest.partition("charset=")[2].partition(";")[0].strip(' "')
    if media.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise Refused(415, "want a body of Content-Type: application/json, in UTF-8")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(415, "want a body without Content-Encoding")


def _writes(path: str, method: str) -> bool:
    return method not in ("GET", "HEAD", "OPTIONS") and (path == WRITES or path.startswith(WRITES + "/"))


def _host(header: bytes) -> str:
    said = header.decode("latin-1").lower()
    return said[: said.find("]") + 1] if said.startswith("[") else said.partition(":")[0]


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"
