"""Answers that are not 200: one shape, `{"error": {"message", "type", "param"}}`, and which error gets which status."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flatcoat.app.serve.batching import Busy, Closed
from flatcoat.errors import FlatcoatError, Misuse

TYPES = {
    400: "invalid_request", 401: "no_key", 403: "not_allowed", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    409: "conflict", 413: "too_large", 415: "unsupported_media_type", 422: "invalid_body", 429: "too_many_requests",
    500: "server_error", 503: "not_ready",
}  # fmt: skip


FOLDERS = re.compile(
    r"^/[^:\n]*/|(?<=[\s(])/(?:[^\s/:;,'\")]+/)+"
)  # of this machine, as messages name them: never in quotes


class Refused(FlatcoatError):
    """A request that gets `status` in place of what it asked for."""

    def __init__(self, status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.headers = status, param, dict(headers or {})


def failure(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of an answer that is not 200."""
    return {"error": {"message": message, "type": TYPES.get(status, "error"), "param": param}}


def refused(error: FlatcoatError) -> Refused:
    """An error as an answer: misuse is 400, an id that is there already 409, what cannot be taken now 429 or 503, the rest 500,
    of which the answer tells nothing and the log all. No answer names the folders of this machine.
    """
    from flatcoat.search.retriever import Conflict

    if isinstance(error, Refused):
        return error
    headers = {"retry-after": "1"} if isinstance(error, Busy | Closed) else None
    for kind, status in ((Conflict, 409), (Misuse, 400), (Busy, 429), (Closed, 503)):
        if isinstance(error, kind):
            return Refused(status, FOLDERS.sub("", str(error)), headers=headers)
    logging.getLogger("flatcoat.serve").error("%s", error)
    return Refused(500, "the server failed; its log says why")


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """A body or path that does not fit its schema, told by pydantic's first complaint."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"{place}: {first['msg']}" if place else str(first["msg"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Refused(422, message + more, place)
