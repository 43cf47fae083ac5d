"""Two worker processes behind one socket: one is killed, answers go on, another takes its place, and SIGTERM ends all of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

RECIPE = """
[collection]
source = "{toy}"
dev = "dev"
[model]
start = "{tiny}"
document_length = 20
query_length = 10
[training]
steps = 0
[evaluation]
rerank = 3
"""
PATIENCE = 120.0  # seconds; each worker imports torch


@pytest.fixture
def run(tiny: Path, toy: Path, tmp_path: Path) -> Path:
    """A run of an untrained model over the toy collection."""
    from flatcoat.app.recipe import load_recipe
    from flatcoat.app.run import run_recipe
    from flatcoat.records import silent

    (tmp_path / "recipe.toml").write_text(RECIPE.format(toy=toy, tiny=tiny))
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", track=silent, note=lambda text: None)
    return tmp_path / "run"


@pytest.fixture
def server(run: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`flatcoat serve` with two workers, and the file that it tells its news to."""
    said = tmp_path / "said"
    words = ["serve", run, "--workers", "2", "--port", "0", "--device", "cpu", "--threads", "1"]
    with said.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "flatcoat", *map(str, words)], stdout=file, stderr=file)
    yield process, said
    if process.poll() is None:
        process.kill()  # its workers see that and go
        process.wait()


def until(found: Callable[[], Any], process: subprocess.Popen[bytes], said: Path) -> Any:
    """What `found` gives as soon as it gives anything."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := found():
            return value
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)
    raise AssertionError(f"nothing in {PATIENCE:g} s: {said.read_text()}")


def workers(parent: int) -> set[int]:
    """The worker processes of a server, by /proc."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue  # gone meanwhile
        if int(ppid) == parent and state != "Z" and b"spawn_main" in command:
            found.add(int(place.name))
    return found


def asked(address: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A request's answer, None where there is none or not 200."""
    request = urllib.request.Request(address + path, None if body is None else json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except (OSError, urllib.error.URLError):
        return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find the workers in")
def test_a_worker_that_is_killed_is_replaced_while_the_other_answers(server):
    process, said = server
    address = until(lambda: re.search(r"(http://127\.0\.0\.1:\d+)/ answers", said.read_text()), process, said)[1]
    until(lambda: asked(address, "/readyz"), process, said)
    added = {"documents": [{"id": "new one", "text": "zyzzyva"}]}
    assert asked(address, "/v1/documents", added) == {"added": 1, "sequence": 1}
    question = {"query": "zyzzyva", "retrievers": ["bm25"], "k": 1}

    def best() -> list[str]:
        answer = asked(address, "/v1/search", question)
        return [hit["id"] for hit in answer["results"][0]["hits"]] if answer else []

    first = workers(process.pid)
    assert len(first) == 2
    gone = min(first)
    os.kill(gone, signal.SIGKILL)
    until(lambda: f"worker {gone} died" in said.read_text(), process, said)
    for _ in range(5):
        assert best() == ["new one"]  # of the one that is left
    now = until(lambda: len(found := workers(process.pid)) == 2 and found, process, said)
    assert gone not in now and now & first
    os.kill((now & first).pop(), signal.SIGKILL)  # so that only the new one answers, from what is on disk
    until(lambda: best() == ["new one"], process, said)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, said.read_text()
    assert not any(Path(f"/proc/{worker}").exists() for worker in now | first)
