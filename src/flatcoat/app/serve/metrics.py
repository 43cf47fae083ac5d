"""Prometheus metrics of the service; with several worker processes, each answers for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatcoat.errors import need

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts and times of one process, in a registry of its own. `shared` is the folder through which processes add theirs up, which
    prometheus-client wants told before its first import (see supervise).
    """

    def __init__(self, shared: Path | None = None):
        client = need("prometheus_client", "serve")
        self._client, self._shared = client, shared
        self._registry = client.CollectorRegistry()
        here: dict[str, Any] = {"registry": self._registry}
        live: dict[str, Any] = here | ({"multiprocess_mode": "livesum"} if shared else {})
        greatest: dict[str, Any] = here | ({"multiprocess_mode": "livemax"} if shared else {})
        self._requests = client.Counter(
            "flatcoat_requests", "Requests answered.", ("route", "method", "status"), **here
        )
        self._whole = client.Histogram(
            "flatcoat_request_seconds",
            "From a request's first byte to its answer.",
            ("route",),
            buckets=SECONDS,
            **here,
        )
        self._stage = client.Histogram(
            "flatcoat_stage_seconds", "Of a batch of searches, by stage.", ("stage",), buckets=SECONDS, **here
        )
        self._batch = client.Histogram("flatcoat_batch_size", "Requests computed together.", buckets=SIZES, **here)
        self._queue = client.Gauge("flatcoat_queue_length", "Requests that wait to be computed.", **live)
        self._documents = client.Gauge("flatcoat_documents", "Documents served.", **greatest)
        self._sequence = client.Gauge("flatcoat_sequence", "The last journal record applied.", **greatest)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._whole.labels(route).observe(seconds)

    def stages(self, seconds: dict[str, float]) -> None:
        """Count a batch's stages."""
        for stage, spent in seconds.items():
            if stage != "total":
                self._stage.labels(stage).observe(spent)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batch.observe(size)

    def queue(self, length: int) -> None:
        """Take note of how many wait."""
        self._queue.set(length)

    def state(self, documents: int, sequence: int) -> None:
        """Take note of what is served now."""
        self._documents.set(documents)
        self._sequence.set(sequence)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if self._shared is None:
            return self._client.generate_latest(self._registry)
        from prometheus_client import multiprocess

        everyone = self._client.CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone, path=str(self._shared))
        return self._client.generate_latest(everyone)
