"""Keys: who may read, who may write. A file holds their hashes; a key is 256 random bits, so that a plain sha256 hides it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flatcoat.errors import FlatcoatError, Misuse

Role = Literal["read", "write"]  # who may write may read


def new_key() -> tuple[str, str]:
    """A key, and its hash as a file of keys holds it."""
    key = "fc-" + secrets.token_urlsafe(32)
    return key, hashed(key)


def hashed(key: str) -> str:
    """`sha256:` and the hex digest of a key."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Keys:
    """The hashes of those who may read, and of those who may write too."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def role(self, key: str | None) -> Role | None:
        """What a key may do, None for an unknown one; every hash is looked at, each in constant time."""
        given = hashed(key or "")
        found: Role | None = None
        for role, hashes in (("read", self.read), ("write", self.write)):
            for one in hashes:
                if hmac.compare_digest(one.encode(), given.encode()):
                    found = role  # pyright: ignore[reportAssignmentType]
        return found if key else None


def read_keys(path: Path) -> Keys:
    """The keys of a TOML file, as in `read = ["sha256:…"]`, `write = ["sha256:…"]`.

    Raises:
        FlatcoatError: no such file.
        Misuse: not TOML, another table than these, no key at all, or an entry that is not a hash.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FlatcoatError(f"{path}: no such file") from error
    except (ValueError, RecursionError, OSError) as error:
        raise Misuse(f"{path}: not valid TOML ({error})") from error
    odd = sorted(set(said) - {"read", "write"})
    if odd:
        raise Misuse(f"{path}: {odd[0]!r} is not known; want read and write, lists of hashes")
    keys = Keys(_hashes(path, said, "read"), _hashes(path, said, "write"))
    if not keys.read + keys.write:
        raise Misuse(f"{path}: holds no key, so that nobody could ask; make one with flatcoat serve --new-key")
    return keys


def _hashes(path: Path, said: Mapping[str, object], name: str) -> tuple[str, ...]:
    entries = said.get(name, [])
    if not isinstance(entries, list):
        raise Misuse(f"{path}: {name} is not a list; want {name} = ['sha256:…']")
    for number, entry in enumerate(entries):
        if not isinstance(entry, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", entry):
            raise Misuse(
                f"{path}: {name}[{number}] is not a hash; want sha256: and 64 hex digits, as flatcoat serve --new-key gives"
            )
    return tuple(entries)


def key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request's headers carry: `Authorization: Bearer KEY`, or `X-API-Key`."""
    said = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, rest = said.partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None
