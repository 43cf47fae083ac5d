"""Workers: shards of a job given to local processes or to machines, so that a lost worker costs its shard and nothing else.

A `Crew` is whatever can hire workers, give each a shard and say what became of it; `work_through` is the one place that
decides who does what. What a worker does is a function of a module, sent by name, and a job of plain JSON values.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import re
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from flatcoat.errors import FlatcoatError, Misuse

LOSSES = 3
PATIENCE = 300.0

Do = Callable[[int], None]
Make = Callable[[Mapping[str, Any]], Do]  # called once in each worker; what it returns does one shard


class Workers(NamedTuple):
    """Who works: processes of this machine, a Ray cluster of this machine, or one that is running. `size` None: as many as fit."""

    kind: Literal["local", "ray:local", "ray"]
    size: int | None = None
    address: str = ""


class Event(NamedTuple):
    """What became of a worker: ready for a shard, done with its own, failed (no other could do better), or lost."""

    place: int
    kind: str
    text: str = ""


class Crew(Protocol):
    """Workers by place, 0 to `size` - 1."""

    size: int
    device: str  # where each works: cpu or cuda
    threads: int  # of each

    def start(self, make: Make, job: Mapping[str, Any]) -> None:
        """What workers hired from now on do."""
        ...

    def hire(self, place: int) -> None:
        """Bring a new worker to a place, in place of the one that is there."""
        ...

    def give(self, place: int, shard: int) -> None:
        """Give a ready worker a shard."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """What has happened; nothing where nothing has for this long."""
        ...

    def dismiss(self, place: int) -> None:
        """Send a worker away, if there is one."""
        ...

    def close(self) -> None:
        """Send all away."""
        ...


def workers_of(said: str) -> Workers:
    """Read `N`, `ray:local`, `ray:local:N`, `ray://HOST:PORT` or `ray://HOST:PORT/N`. Raises Misuse."""
    found = re.fullmatch(r"(ray:local):(\d+)|(ray:local)|(\d+)|(ray://[^/\s]+:\d+)(?:/(\d+))?", said)
    if not found or any(part == 0 for part in map(_number, (found[2], found[4], found[6]))):
        raise Misuse(
            f"--workers {said}: want a number above 0, ray:local, ray:local:N, ray://HOST:PORT or ray://HOST:PORT/N"
        )
    if found[4]:
        return Workers("local", int(found[4]))
    if found[5]:
        return Workers("ray", _number(found[6]), found[5])
    return Workers("ray:local", _number(found[2]))


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def open_crew(workers: Workers, device: str) -> Crew:
    """The crew that was asked for; `device` is auto, cpu or cuda.

    Raises:
        Misuse: no such device here, or Ray is not installed.
        FlatcoatError: no cluster answers at the address.
    """
    if workers.kind == "local":
        return LocalCrew(workers.size or 1, device)
    from flatcoat.app.workers_ray import RayCrew

    return RayCrew(workers, device)


def work_through(
    crew: Crew,
    shards: Sequence[int],
    *,
    name: Callable[[int], str] = str,
    note: Callable[[str], None] = lambda _: None,
    patience: float = PATIENCE,
) -> Iterator[int]:
    """Each shard as it is done. A lost worker is replaced, and its shard goes to the next that is free.

    Raises:
        FlatcoatError: a worker failed; three workers were lost on one shard, or before they were ready; or no worker
            is ready within `patience` seconds.
    """
    board = _Board(crew, deque(shards), name, note)
    for place in range(min(crew.size, len(shards))):
        crew.hire(place)
    try:
        while board.left:
            events = crew.wait(patience)
            if not events and not board.doing:
                raise FlatcoatError(
                    f"no worker is ready after {patience:.0f} s; has the cluster {crew.threads} free processors a worker?"
                )
            for event in events:
                done = board.hear(event)
                if done is not None:
                    yield done
    finally:
        for place in range(crew.size):
            crew.dismiss(place)


class _Board:
    """Which shard waits, who does which, and what was lost."""

    def __init__(self, crew: Crew, queue: deque[int], name: Callable[[int], str], note: Callable[[str], None]):
        self.crew, self.queue, self.name, self.note = crew, queue, name, note
        self.left, self.doing, self.losses, self.stillborn = len(queue), dict[int, int](), Counter[int](), 0

    def hear(self, event: Event) -> int | None:
        """Act on an event; the shard that is done by it, if one is."""
        shard = self.doing.pop(event.place, None)
        if event.kind == "failed":
            raise FlatcoatError(event.text)
        if event.kind == "lost":
            self._lose(event, shard)
            return None
        self.stillborn = 0
        self.left -= event.kind == "done"
        if self.queue:
            self.doing[event.place] = self.queue.popleft()
            self.crew.give(event.place, self.doing[event.place])
        else:
            self.crew.dismiss(event.place)  # its processors may be what another waits for
        return shard if event.kind == "done" else None

    def _lose(self, event: Event, shard: int | None) -> None:
        if shard is None:
            self.stillborn += 1
            if self.stillborn >= LOSSES:
                raise FlatcoatError(
                    f"{LOSSES} workers in a row were lost before they were ready; the last: {event.text}"
                )
        else:
            self.losses[shard] += 1
            if self.losses[shard] >= LOSSES:
                raise FlatcoatError(f"{self.name(shard)}: {LOSSES} workers were lost on it; the last: {event.text}")
            self.note(f"a worker was lost on {self.name(shard)} ({event.text}); another does it again")
            self.queue.appendleft(shard)
        if self.queue:
            self.crew.hire(event.place)


class Hand:
    """One worker: makes what does the work at its first shard, and says of each how it went."""

    def __init__(self, make: Make, job: Mapping[str, Any]):
        self.make, self.job, self.do = make, job, None

    def ready(self) -> tuple[str, str]:
        """Say that it is here."""
        return "ready", ""

    def work(self, shard: int) -> tuple[str, str]:
        """Do a shard. What is wrong with the job is `failed`; anything else may go better elsewhere, and is `lost`."""
        try:
            self.do = self.do or self.make(self.job)
            self.do(shard)
        except FlatcoatError as error:
            return "failed", str(error)
        except Exception as error:  # noqa: BLE001
            return "lost", f"{type(error).__name__}: {error}"
        return "done", ""


class LocalCrew:
    """Processes of this machine, which share its threads; on CUDA devices, one after another. Those that are idle stay, and
    are given the next job.
    """

    def __init__(self, size: int, device: str = "auto"):
        import torch

        from flatcoat.models.base import best_device

        self.size, self.device = size, best_device(device)
        self.threads = max(1, torch.get_num_threads() // size)
        self.devices = torch.cuda.device_count() if self.device == "cuda" else 0
        self.make: Make | None = None
        self.job: Mapping[str, Any] = {}
        self.here: dict[int, tuple[Any, Any]] = {}
        self.busy: set[int] = set()
        self.idle: set[int] = set()

    def start(self, make: Make, job: Mapping[str, Any]) -> None:
        """What processes do that are hired from now on."""
        self.make, self.job = make, job

    def hire(self, place: int) -> None:
        """Give the idle process of a place the job, or start one."""
        own = {"device": f"cuda:{place % self.devices}"} if self.devices > 1 else {}
        trade = self.make, {**self.job, **own}
        if place not in self.idle or not self._send(place, trade):
            self._end(place)
            self._begin(place)
            self._send(place, trade)
        self.idle.discard(place)
        self.busy.add(place)

    def _begin(self, place: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self.here[place] = process, ours

    def give(self, place: int, shard: int) -> None:
        """Send a process a shard."""
        self.busy.add(place)
        self._send(place, shard)

    def _send(self, place: int, what: Any) -> bool:
        try:
            self.here[place][1].send(what)
        except OSError:  # it has died; where it is waited for, `wait` says so
            return False
        return True

    def wait(self, seconds: float) -> list[Event]:
        """What processes have said, or that they have ended."""
        places = {self.here[place][1]: place for place in self.busy}
        heard = multiprocessing.connection.wait(list(places), seconds)
        return [self._event(places[pipe]) for pipe in heard]  # pyright: ignore[reportArgumentType]

    def _event(self, place: int) -> Event:
        process, pipe = self.here[place]
        self.busy.discard(place)
        try:
            event = Event(place, *pipe.recv())
        except (EOFError, OSError):
            process.join()
            code = process.exitcode
            event = Event(place, "lost", f"signal {-code}" if code < 0 else f"its process ended with {code}")
        if event.kind == "lost":
            self._end(place)
        return event

    def dismiss(self, place: int) -> None:
        """Let a process that has said all rest, and end one that is at work."""
        if place in self.busy:
            self._end(place)
        elif place in self.here:
            self.idle.add(place)

    def _end(self, place: int) -> None:
        self.busy.discard(place)
        self.idle.discard(place)
        process, pipe = self.here.pop(place, (None, None))
        if process is not None:
            process.kill()
            process.join()
            pipe.close()

    def close(self) -> None:
        """End all."""
        for place in list(self.here):
            self._end(place)


def _serve(pipe: Any) -> None:
    """A process's life: jobs and their shards come until the other end is closed. An interrupt is the driver's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hand = None
    try:
        while True:
            what = pipe.recv()
            if isinstance(what, int):
                assert hand is not None
                pipe.send(hand.work(what))
            else:
                hand = Hand(*what)
                pipe.send(hand.ready())
    except (EOFError, OSError):
        return
