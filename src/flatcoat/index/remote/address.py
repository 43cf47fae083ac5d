"""Where an engine is: `qdrant:URL`, `postgresql:URL`, `milvus:URL`; or a folder or file, for those that run in this process.

A password is taken out of the URL as it is read, and goes nowhere but to the engine: not into manifests, messages or `repr`. Where the URL
has none, PostgreSQL looks into ~/.pgpass, the others into ~/.netrc, by host.
"""

from __future__ import annotations

import netrc
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from flatcoat.errors import FlatcoatError, Misuse, nearest

ENGINES = ("qdrant", "postgresql", "milvus")
SECRETS = ("password", "passwd", "token", "api_key", "api-key", "apikey", "key")
MEMORY = ":memory:"
LIKE_URL = re.compile(r"[@?]|^[^/]*:\d+(?:/|$)")  # a user, a query, or HOST:PORT


@dataclass(frozen=True)
class Address:
    """An engine and where it is; `url` has no password, and may be a path."""

    engine: str
    url: str
    secret: str | None = field(default=None, repr=False)

    @property
    def remote(self) -> bool:
        """Whether a server is meant, not a file of this machine."""
        return "://" in self.url

    @property
    def host(self) -> str:
        """The machine's name, '' of a path."""
        return urlsplit(self.url).hostname or "" if self.remote else ""

    @property
    def user(self) -> str:
        """The user's name, where the URL has one."""
        return unquote(urlsplit(self.url).username or "") if self.remote else ""

    @property
    def bare(self) -> str:
        """The URL without user."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if self.remote else self.url

    def hide(self, text: str) -> str:
        """A message of an engine on one line, without the secret."""
        line = " ".join(text.split())
        for secret in {self.secret or "", unquote(self.secret or "")} - {""}:
            line = line.replace(secret, "…")
        return line[:300]

    def __str__(self) -> str:
        return f"{self.engine} at {self.url}"


def parse_address(text: str, secret: str | None = None) -> Address:
    """Read ENGINE:URL.

    Raises:
        Misuse: an engine that is not known, or no URL.
    """
    engine, colon, rest = text.partition(":")
    if engine in ("postgres", "postgresql"):
        engine, rest = "postgresql", rest if not rest.startswith("//") else f"postgresql:{rest}"
    if engine not in ENGINES or not colon or not rest:
        hint = nearest(engine, list(ENGINES))
        raise Misuse(f"--engine {_without(text)}: want qdrant:URL, postgresql:URL or milvus:URL{hint}")
    if "://" not in rest:
        return Address(engine, _path(engine, rest), secret)
    url, found = _split(engine, rest)
    made = Address(engine, url, secret or found)
    return made if made.secret or engine == "postgresql" else Address(engine, url, _netrc(made.host))


def _path(engine: str, rest: str) -> str:
    """A folder or file of this machine. What may be a URL without its scheme, and hold a password, is none."""
    if engine == "postgresql":
        raise Misuse("--engine postgresql: want a URL, as postgresql://USER@HOST/DATABASE")
    if rest.startswith("//") or (not rest.startswith(("/", "./", "../")) and LIKE_URL.search(rest)):
        raise Misuse(f"--engine {engine}:…: want a URL, as {engine}:http://HOST:PORT, or a path, as {engine}:./FOLDER")
    return rest if rest == MEMORY else str(Path(rest).resolve())


def _split(engine: str, url: str) -> tuple[str, str | None]:
    """A URL without its secret, and the secret. To Qdrant, which knows no users, a name alone is the key."""
    try:
        parts = urlsplit(url)
        password, asked = parts.password, parse_qsl(parts.query, keep_blank_values=True)
        _ = parts.port
    except ValueError:
        raise Misuse(f"--engine {_without(url)}: not a URL, as http://HOST:PORT") from None
    if any(key.lower() == "sslpassword" for key, _ in asked):
        raise Misuse("--engine: sslpassword in the URL; put it into ~/.pg_service.conf, and say ?service=NAME")
    kept = [(key, value) for key, value in asked if key.lower() not in SECRETS]
    said = [value for key, value in asked if key.lower() in SECRETS]
    query = urlencode(kept) if said else parts.query
    machine, user = parts.netloc.rpartition("@")[2], parts.username
    if engine == "qdrant":
        user, password = None, password or user
    own = [unquote(password)] if password else []
    secrets: list[str] = sorted({*own, *said})
    if len(secrets) > 1:
        raise Misuse(f"--engine {_without(url)}: {len(secrets)} passwords or keys in the URL; give one")
    place = f"{user}@{machine}" if user else machine
    return urlunsplit((parts.scheme, place, parts.path, query, "")), secrets[0] if secrets else None


def _without(text: str) -> str:
    """Text that may hold a password, as it may be shown."""
    if not {"@", "?"} & set(text):
        return text
    head = text.partition(":")[0]
    return "…" if {"@", "?"} & set(head) else f"{head}:…"


def _netrc(host: str) -> str | None:
    file = Path.home() / ".netrc"
    if not file.is_file():
        return None
    try:
        found = netrc.netrc(str(file)).hosts.get(host)
    except (netrc.NetrcParseError, OSError) as error:
        raise FlatcoatError(
            f"{file}: cannot be read ({type(error).__name__}); want lines as machine HOST password KEY"
        ) from None
    return found[2] if found else None
