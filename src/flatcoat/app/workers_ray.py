"""Workers on a Ray cluster: one that is running, by its address, or one started on this machine for the while."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

from flatcoat.app.workers import Event, Hand, Make, Workers
from flatcoat.errors import FlatcoatError, Misuse, need

KNOCK, GREET, CONNECT = (
    5.0,
    10.0,
    120.0,
)  # seconds until: a port is open, it speaks gRPC, Ray has started a server for us
STARTS = 3


class RayCrew:
    """Ray actors. Of a running cluster, and unless a number is said: one a GPU; without GPUs, one for as many processors as its
    smallest machine has.
    """

    def __init__(self, workers: Workers, device: str = "auto"):
        self.ray: Any = need("ray", "ray")
        if self.ray.is_initialized():
            raise Misuse("this process is connected to a Ray cluster already; disconnect it (ray.shutdown()) first")
        self.where = workers.address or "ray:local"
        self.here: dict[int, Any] = {}
        self.pending: dict[Any, int] = {}
        if workers.kind == "ray":
            _connect(self.ray, workers.address)
        else:
            _start(self.ray, workers.size or os.cpu_count() or 1)
        try:
            self._survey(workers, device)
        except FlatcoatError:
            self.close()
            raise

    def _survey(self, workers: Workers, device: str) -> None:
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise FlatcoatError(
                f"{self.where}: the cluster has no processors; start Ray on its machines with --num-cpus"
            )
        gpus, processors = (int(sum(node.get(name, 0) for node in nodes)) for name in ("GPU", "CPU"))
        if device == "cuda" and not gpus:
            raise Misuse(f"device 'cuda': the cluster at {self.where} has no GPU; use cpu or auto")
        self.device = "cuda" if gpus and device != "cpu" else "cpu"
        if workers.kind == "ray:local":
            self.size = min(workers.size or processors, gpus or processors)
            self.threads, self.processors = max(1, (os.cpu_count() or 1) // self.size), 1
            return
        smallest = int(min(node["CPU"] for node in nodes))
        fitting = gpus if self.device == "cuda" else processors // smallest
        self.size = workers.size or max(1, fitting)
        self.processors = max(1, min(smallest, processors // self.size))
        self.threads = self.processors

    def start(self, make: Make, job: Mapping[str, Any]) -> None:
        """What actors made from now on do."""
        self.make, self.job = make, job

    def hire(self, place: int) -> None:
        """Make an actor; Ray starts it where there is room."""
        self.dismiss(place)
        gpus = 1 if self.device == "cuda" else 0
        how = self.ray.remote(num_cpus=self.processors, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD")
        self.here[place] = how(Hand).remote(self.make, self.job)
        self.pending[self.here[place].ready.remote()] = place

    def give(self, place: int, shard: int) -> None:
        """Send an actor a shard."""
        self.pending[self.here[place].work.remote(shard)] = place

    def wait(self, seconds: float) -> list[Event]:
        """What actors have said, or that they have died. Raises FlatcoatError where the cluster is gone."""
        try:
            heard, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=seconds)
            return [self._event(ref) for ref in heard]
        except ConnectionError as error:
            raise FlatcoatError(f"{self.where}: the cluster is gone; run the same command again to go on") from error

    def _event(self, ref: Any) -> Event:
        place = self.pending.pop(ref)
        try:
            return Event(place, *self.ray.get(ref))
        except self.ray.exceptions.RayError as error:
            said = _first_line(error)
            if "creation task" in said:  # what went wrong there is said last
                said = str(error).strip().splitlines()[-1].strip()
            return Event(place, "lost", f"{type(error).__name__}: {said}")

    def dismiss(self, place: int) -> None:
        """Kill an actor."""
        actor = self.here.pop(place, None)
        self.pending = {ref: other for ref, other in self.pending.items() if other != place}
        if actor is not None:
            self.ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.pending, self.here = {}, {}
        self.ray.shutdown()


def _start(ray: Any, processors: int) -> None:
    """Start a cluster on this machine: Ray gives a start half a minute, too little where the machine is busy, so it has more than
    one. Raises FlatcoatError where Ray does not start.
    """
    for left in reversed(range(STARTS)):
        try:
            with _unobserved():
                ray.init(
                    address="local", num_cpus=processors, include_dashboard=False, log_to_driver=False,
                    logging_level="ERROR", object_store_memory=10**8,
                )  # fmt: skip
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise FlatcoatError(
                    f"ray:local: Ray does not start here ({_first_line(error)}); its logs are in /tmp/ray"
                ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _unobserved() -> Generator[None, None, None]:
    """A cluster of ours sends no statistics of its use."""
    name = "RAY_USAGE_STATS_ENABLED"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _connect(ray: Any, address: str) -> None:
    """Connect to a running cluster, or say within seconds that none answers. Raises FlatcoatError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), KNOCK).close()
    except (OSError, OverflowError) as error:
        raise FlatcoatError(
            f"{address}: no Ray cluster answers there ({getattr(error, 'strerror', None) or error}); "
            "want the head's client port, 10001 unless said otherwise"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        _greet(host, port, address)
    _within(lambda: ray.init(address, log_to_driver=False, logging_level="ERROR"), address)


def _greet(host: str, port: str, address: str) -> None:
    """Tell a gRPC server from others before Ray's patience is spent on it."""
    grpc: Any = need("grpc", "ray")
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=GREET)
        except grpc.FutureTimeoutError as error:
            raise FlatcoatError(_unusable(address, "it does not speak gRPC")) from error


def _unusable(address: str, said: str) -> str:
    return (
        f"{address}: something answers, but no Ray cluster that can be used ({said}); want the head's client port, 10001 "
        "unless said otherwise, the same versions of Ray and Python, and the cluster's token (RAY_AUTH_MODE=token)"
    )


def _within(connect: Callable[[], Any], address: str) -> None:
    """Connect in a thread, which is left behind where no answer comes in time."""
    wrong: list[BaseException] = []

    def attempt() -> None:
        try:
            connect()
        except Exception as error:  # noqa: BLE001
            wrong.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CONNECT)
    if thread.is_alive() or wrong:
        raise FlatcoatError(_unusable(address, _first_line(wrong[0]) if wrong else "no answer in time"))
