"""Processes that answer: one socket, opened once, and one or several workers on it; a worker that dies is started again."""

from __future__ import annotations

import ipaddress
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flatcoat.app.serve.guard import Gate
from flatcoat.errors import FlatcoatError, Misuse, need

IDLE = 1024  # connections besides those whose requests are answered
GRACE = 30  # seconds that requests in work are given at the end
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # how prometheus-client is told; it has no other way
NOT_OPENED = 10  # exit status of a worker whose folder could not be opened, plus that of the error


@dataclass(frozen=True)
class Serving:
    """What is served and how: all that a worker process has to know."""

    folder: Path
    gate: Gate
    collection: str
    legs: tuple[str, ...] | None = None
    reranker: str | None = None
    precision: str | None = None
    device: str = "auto"
    threads: int | None = None
    shared: Path | None = None  # where workers add their metrics up


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises FlatcoatError where the address is taken or not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # connections inherit it; asyncio sets it only where the protocol is named, and 40 ms an answer would be lost without
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        raise FlatcoatError(f"cannot listen at {host}:{port}: {error}; choose another --host or --port") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_here(serving: Serving, listening: socket.socket, on_ready: Callable[[Any], None]) -> None:
    """Answer in this process until SIGTERM or SIGINT. `on_ready` gets the retriever.

    Raises:
        FlatcoatError: the folder could not be opened.
    """
    _answer(serving, listening, on_ready)


def serve_several(serving: Serving, listening: socket.socket, workers: int, note: Callable[[str], None]) -> None:
    """Answer in `workers` processes until SIGTERM or SIGINT; one that dies is started again, at most once a second.

    Raises:
        FlatcoatError: the folder could not be opened.
    """
    with tempfile.TemporaryDirectory(prefix="flatcoat-metrics-") as shared:
        os.environ[SHARED] = shared  # inherited by the workers
        try:
            _Workers(replace(serving, shared=Path(shared)), listening, workers, note).run()
        finally:
            os.environ.pop(SHARED, None)


class _Workers:
    def __init__(self, serving: Serving, listening: socket.socket, count: int, note: Callable[[str], None]):
        self.context = multiprocessing.get_context("spawn")
        self.serving, self.listening, self.note = serving, listening, note
        self.ready = [self.context.Event() for _ in range(count)]
        self.processes = [self._start(number) for number in range(count)]
        self.stopping = threading.Event()

    def _start(self, number: int) -> Any:
        args = (self.serving, self.listening, self.ready, number)
        process = self.context.Process(target=_work, args=args, name=f"flatcoat-worker-{number}")
        process.start()
        return process

    def run(self) -> None:
        """Until a signal says to stop."""
        before = {sig: signal.signal(sig, lambda *_: self.stopping.set()) for sig in (signal.SIGTERM, signal.SIGINT)}
        said = False
        try:
            while not self.stopping.wait(0.2):
                self._mend()
                if not said and all(event.is_set() for event in self.ready):
                    self.note(f"{len(self.processes)} workers are ready")
                    said = True
        finally:
            self._stop()
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _mend(self) -> None:
        """Start again what died, if it had ever been ready."""
        for number, process in enumerate(self.processes):
            if process.is_alive() or self.stopping.is_set():
                continue
            if not self.ready[number].is_set():
                kind = Misuse if process.exitcode == NOT_OPENED + Misuse.exit_code else FlatcoatError
                raise kind(f"a worker could not open {self.serving.folder} (its exit status: {process.exitcode})")
            self.note(f"worker {process.pid} died (exit status {process.exitcode}); starting another")
            need("prometheus_client.multiprocess", "serve").mark_process_dead(process.pid, str(self.serving.shared))
            self.stopping.wait(1.0)
            if not self.stopping.is_set():
                self.processes[number] = self._start(number)

    def _stop(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        end = time.monotonic() + GRACE + 5
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _work(serving: Serving, listening: socket.socket, ready: list[Any], number: int) -> None:
    """A worker process: out of the terminal's reach (its parent tells it to stop), and gone when its parent is."""
    os.setsid()
    threading.Thread(target=_with_parent, daemon=True).start()
    again = ready[number].is_set()
    try:
        _answer(
            serving, listening, lambda _: ready[number].set(), lambda: all(event.is_set() for event in ready), again
        )
    except FlatcoatError as error:
        sys.stderr.write(f"flatcoat: {error}\n")
        raise SystemExit(NOT_OPENED + error.exit_code) from None


def _with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _answer(
    serving: Serving, listening: socket.socket, on_ready: Callable[[Any], None],
    everyone: Callable[[], bool] | None = None, again: bool = False,
) -> None:  # fmt: skip
    uvicorn = need("uvicorn", "serve")
    from flatcoat.app.serve.api import create_app
    from flatcoat.app.serve.metrics import Metrics
    from flatcoat.app.serve.service import Service

    failed: list[Exception] = []

    def on_failure(error: Exception) -> None:
        failed.append(error)
        server.should_exit = True

    service = Service(
        lambda: _open(serving), limits=serving.gate.limits, metrics=Metrics(serving.shared),
        collection=serving.collection, writable=not serving.gate.read_only, everyone_ready=everyone,
        on_ready=on_ready, on_failure=on_failure,
    )  # fmt: skip
    app = create_app(service, serving.gate)
    server = uvicorn.Server(uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, ws="none",
        h11_max_incomplete_event_size=65_536, proxy_headers=False,
        limit_concurrency=serving.gate.limits.max_concurrent + IDLE,
    ))  # fmt: skip

    def on_signal(*_: Any) -> None:  # also what uvicorn raises again once it is done, which would kill otherwise
        server.should_exit = True

    before = {sig: signal.signal(sig, on_signal) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        if again:  # others answer meanwhile
            service.start()
            service.opened.wait()
        server.run(sockets=[listening])
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    if failed:
        wrong = failed[0]
        raise wrong if isinstance(wrong, FlatcoatError) else FlatcoatError(f"{serving.folder}: {wrong}") from wrong


def _open(serving: Serving) -> Any:
    import torch

    from flatcoat.app.serve.open import open_served
    from flatcoat.search.retriever import Asked

    if serving.threads is not None:
        torch.set_num_threads(serving.threads)  # of this thread, the one that computes
    retriever = open_served(
        serving.folder, legs=serving.legs, reranker=serving.reranker, precision=serving.precision, device=serving.device
    )
    retriever.search(
        ["warm up"], Asked(tuple(retriever.legs), k=1)
    )  # whatever is loaded late is loaded before anybody waits
    return retriever
