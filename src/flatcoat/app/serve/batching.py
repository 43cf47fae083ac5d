"""Dynamic batching: what arrives while one batch is computed is computed together in the next; nobody waits for company."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flatcoat.errors import FlatcoatError

Work = Callable[[list[Any]], Sequence[Any]]  # payloads in, as many results out


class Busy(FlatcoatError):
    """The queue is full."""


class Closed(FlatcoatError):
    """No more work is taken."""


@dataclass(eq=False)
class Job:
    """Something asked for. Jobs of equal `key` may be computed by one call of either's `work`; None is computed alone."""

    key: Hashable
    work: Work
    payload: Any
    size: int
    done: asyncio.Future[Any]
    arrived: float = field(default_factory=time.perf_counter)


def one_by_one(work: Work, payloads: Sequence[Any]) -> list[Any]:
    """The slow twin of a batch: each payload computed alone; what it raised stands in its place."""
    found: list[Any] = []
    for payload in payloads:
        try:
            found.append(work([payload])[0])
        except Exception as error:  # noqa: BLE001 - goes to whoever asked
            found.append(error)
    return found


def together(work: Work, payloads: Sequence[Any]) -> list[Any]:
    """Payloads computed at once; where that fails, one by one, so that only what is at fault fails."""
    if len(payloads) > 1:
        try:
            found = list(work(list(payloads)))
        except Exception:  # noqa: BLE001 - the culprit raises it again, alone
            return one_by_one(work, payloads)
        if len(found) == len(payloads):
            return found
    return one_by_one(work, payloads)


def _nothing(_: int) -> None:
    return


class Batcher:
    """One thread that computes what an event loop asks for, in order of arrival.

    `waiting` bounds the jobs in the queue, `most` the sizes in one batch (a single larger job is a batch of its own). `begin` is
    called once in the thread, before any job, and `before` ahead of each batch; `between` when nobody waits: after a batch, and each
    `pause` seconds. `observe` is told each computed group's number of jobs, `queued` the queue's length whenever it changes; what
    `between` and these two raise is let go.
    """

    def __init__(
        self, *, waiting: int = 256, most: int = 64, before: Callable[[], Any] | None = None,
        between: Callable[[], Any] | None = None, pause: float = 1.0, observe: Callable[[int], Any] = _nothing,
        queued: Callable[[int], Any] = _nothing,
    ):  # fmt: skip
        self.waiting, self.most, self.pause = waiting, most, pause
        self.before, self.between, self.observe, self.queued = before, between, observe, queued
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, begin: Callable[[], Any] | None = None) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(begin,), name="flatcoat-compute", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def closed(self) -> bool:
        """Whether no more work is taken: after `close`, or because the thread could not go on."""
        return self._closed

    async def ask(self, key: Hashable, work: Work, payload: Any, size: int = 1) -> Any:
        """The result of `work([payload])`, computed with others of the same key. Cancelled before its turn, it is not computed.

        Raises:
            Busy: `waiting` jobs are in the queue.
            Closed: after `close`.
            Exception: what the work raised.
        """
        job = Job(key, work, payload, size, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._closed:
                raise Closed("shutting down; ask another server")
            if len(self._jobs) >= self.waiting:
                raise Busy(f"{self.waiting} requests are waiting already; ask again in a second")
            self._jobs.append(job)
            _tried(lambda: self.queued(len(self._jobs)))
            self._wake.notify()
        return await job.done

    def close(self, seconds: float | None = None) -> None:
        """Take no more; finish what is in the queue, waiting for it at most `seconds`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, begin: Callable[[], Any] | None) -> None:
        batch: list[Job] | None = []
        try:
            if begin is not None:
                begin()
            while (batch := self._next()) is not None:
                self._turn(batch)
        except BaseException as wrong:  # noqa: BLE001 - whatever ends the thread is told to those who wait
            self._refuse(wrong, batch or [])

    def _turn(self, batch: list[Job]) -> None:
        if batch and (wrong := _tried(self.before)) is not None:
            _hand_over(batch, [wrong] * len(batch))
            return
        for jobs in _groups(batch):
            self._compute(jobs)
        if not self._jobs:
            _tried(self.between)  # what is wrong is met again by the next batch

    def _refuse(self, wrong: BaseException, batch: list[Job]) -> None:
        said = (
            wrong if isinstance(wrong, Exception) else Closed("the thread that computes has ended; ask another server")
        )
        with self._wake:
            self._closed = True
            left = [*batch, *self._jobs]
            self._jobs.clear()
            _tried(lambda: self.queued(0))
        _hand_over(left, [said] * len(left))

    def _next(self) -> list[Job] | None:
        """The next batch; empty where nothing was asked, None at the end."""
        with self._wake:
            if not self._jobs and not self._closed:
                self._wake.wait(self.pause)
            if not self._jobs:
                return None if self._closed else []
            batch, size = [], 0
            while self._jobs and (not batch or size + self._jobs[0].size <= self.most):
                batch.append(self._jobs.popleft())
                size += batch[-1].size
            _tried(lambda: self.queued(len(self._jobs)))
            return batch

    def _compute(self, jobs: list[Job]) -> None:
        jobs = [job for job in jobs if not job.done.done()]  # whose asker is gone
        if not jobs:
            return
        _tried(lambda: self.observe(len(jobs)))
        _hand_over(jobs, together(jobs[0].work, [job.payload for job in jobs]))


def _tried(call: Callable[[], Any] | None) -> Exception | None:
    """What a call raised, if anything."""
    try:
        if call is not None:
            call()
    except Exception as error:  # noqa: BLE001 - goes to whoever asks
        return error
    return None


def _groups(batch: list[Job]) -> list[list[Job]]:
    """Jobs of equal key together, in order of each group's first."""
    groups: dict[Hashable, list[Job]] = {}
    for job in batch:
        groups.setdefault(id(job) if job.key is None else ("key", job.key), []).append(job)
    return list(groups.values())


def _hand_over(jobs: list[Job], found: list[Any]) -> None:
    """Give results to whoever asked, in their own thread; a loop that is closed has nobody left."""
    if jobs:
        with contextlib.suppress(RuntimeError):
            jobs[0].done.get_loop().call_soon_threadsafe(_deliver, jobs, found)


def _deliver(jobs: list[Job], found: list[Any]) -> None:
    for job, result in zip(jobs, found, strict=True):
        if job.done.done():
            continue
        if isinstance(result, BaseException):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)
