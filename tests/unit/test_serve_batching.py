"""Dynamic batching: who waits is computed together, each gets what it would have got alone, and only what is at fault fails."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx")

import httpx

from fake_retriever import FakeRetriever, FakeScorer, serve_fake, toy_documents
from flatcoat.app.serve.batching import Batcher, Busy, Closed, one_by_one, together
from flatcoat.app.serve.metrics import Metrics
from flatcoat.errors import FlatcoatError


class Recorder:
    """Work that squares, notes each batch, and waits at a gate before its first."""

    def __init__(self):
        self.batches: list[list] = []
        self.gate = threading.Event()

    def __call__(self, payloads):
        if not self.batches:
            self.gate.wait(5)
        self.batches.append(list(payloads))
        if "poison" in payloads:
            raise ValueError("poison")
        return [payload * payload for payload in payloads]


async def behind(batcher, work, jobs):
    """Ask `jobs` (key, payload, size) while the first batch is held; give their results."""
    first = asyncio.ensure_future(batcher.ask("first", work, 0))
    while len(batcher) or not first.get_loop().is_running():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    waiting = [asyncio.ensure_future(batcher.ask(key, work, payload, size)) for key, payload, size in jobs]
    await asyncio.sleep(0.02)
    work.gate.set()
    await first
    return waiting


def started(**settings):
    batcher = Batcher(**settings)
    batcher.start()
    return batcher


def test_what_waits_is_computed_together_by_key_and_as_alone():
    work, batcher = Recorder(), started()

    async def go():
        jobs = [("a" if i % 3 else "b", i, 1) for i in range(12)]
        found = await asyncio.gather(*await behind(batcher, work, jobs))
        alone = Recorder()
        alone.gate.set()
        assert found == one_by_one(alone, [payload for _, payload, _ in jobs])

    asyncio.run(go())
    batcher.close()
    assert work.batches == [[0], [0, 3, 6, 9], [1, 2, 4, 5, 7, 8, 10, 11]]


def test_a_batch_is_bounded_and_a_larger_job_goes_alone():
    work, batcher = Recorder(), started(most=4)

    async def go():
        jobs = [("a", 1, 2), ("a", 2, 2), ("a", 3, 9), ("a", 4, 3), ("a", 5, 2)]
        assert await asyncio.gather(*await behind(batcher, work, jobs)) == [1, 4, 9, 16, 25]

    asyncio.run(go())
    batcher.close()
    assert work.batches[1:] == [[1, 2], [3], [4], [5]]


def test_only_what_is_at_fault_fails():
    work, batcher = Recorder(), started()

    async def go():
        jobs = [("a", payload, 1) for payload in (1, 2, "poison", 3)]
        return await asyncio.gather(*await behind(batcher, work, jobs), return_exceptions=True)

    found = asyncio.run(go())
    batcher.close()
    assert found[:2] == [1, 4] and found[3] == 9 and isinstance(found[2], ValueError)


def test_a_batch_that_gives_too_few_is_computed_one_by_one():
    assert together(lambda payloads: [payloads[0]], [1, 2, 3]) == [1, 2, 3]


def test_who_is_gone_is_not_computed():
    work, batcher = Recorder(), started()

    async def go():
        waiting = await behind(batcher, work, [("a", i, 1) for i in range(1, 4)])
        return waiting

    async def cancelled():
        first = asyncio.ensure_future(batcher.ask("first", work, 0))
        await asyncio.sleep(0.02)
        waiting = [asyncio.ensure_future(batcher.ask("a", work, i)) for i in range(1, 4)]
        await asyncio.sleep(0.02)
        waiting[1].cancel()
        await asyncio.sleep(0)
        work.gate.set()
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(cancelled())
    batcher.close()
    assert work.batches == [[0], [1, 3]] and found[0] == 1 and isinstance(found[1], asyncio.CancelledError)


def test_the_queue_is_bounded_and_a_closed_one_takes_nothing():
    work, batcher = Recorder(), started(waiting=2)

    async def go():
        first = asyncio.ensure_future(batcher.ask("a", work, 3))
        await asyncio.sleep(0.02)
        waiting = [asyncio.ensure_future(batcher.ask("a", work, i)) for i in (4, 5)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 requests"):
            await batcher.ask("a", work, 6)
        closing = asyncio.get_running_loop().run_in_executor(None, batcher.close)
        await asyncio.sleep(0.02)
        with pytest.raises(Closed):
            await batcher.ask("a", work, 7)
        work.gate.set()
        assert await asyncio.gather(first, *waiting) == [9, 16, 25]  # what was taken is finished
        await closing

    asyncio.run(go())


def test_nobody_waits_for_company():
    work, batcher = Recorder(), started(pause=60.0)
    work.gate.set()

    async def go():
        began = time.perf_counter()
        for i in range(20):
            assert await batcher.ask("a", work, i) == i * i
        return time.perf_counter() - began

    assert asyncio.run(go()) < 1.0
    batcher.close()


def test_what_fails_ahead_of_a_batch_fails_the_batch():
    wrong = FlatcoatError("journal is damaged")

    def before():
        raise wrong

    batcher = started(before=before)

    async def go():
        with pytest.raises(FlatcoatError, match="damaged"):
            await batcher.ask("a", Recorder(), 1)

    asyncio.run(go())
    batcher.close()


def test_a_beginning_that_fails_refuses_who_waits():
    batcher, opened = Batcher(), threading.Event()

    def begin():
        opened.wait(5)
        raise FlatcoatError("no such folder")

    batcher.start(begin)

    async def go():
        waiting = asyncio.ensure_future(batcher.ask("a", Recorder(), 1))
        await asyncio.sleep(0.01)
        opened.set()
        with pytest.raises(FlatcoatError, match="no such folder"):
            await waiting
        batcher._thread.join(5)
        with pytest.raises(Closed):
            await batcher.ask("a", Recorder(), 1)

    asyncio.run(go())


def test_news_is_taken_up_when_nothing_is_asked():
    seen = threading.Event()
    batcher = started(between=seen.set, pause=0.01)
    assert seen.wait(5)
    batcher.close()


def test_counting_that_fails_spoils_no_answer():
    def fails(_):
        raise OSError("no space left")

    work, batcher = Recorder(), started(observe=fails, queued=fails)
    work.gate.set()

    async def go():
        return [await asyncio.wait_for(batcher.ask("a", work, i), 5) for i in range(3)]

    assert asyncio.run(go()) == [0, 1, 4]
    batcher.close()


def test_a_thread_that_ends_refuses_who_waits():
    class Ended(BaseException):
        """Nothing catches it."""

    def ends(payloads):
        raise Ended

    batcher = started()

    async def go():
        with pytest.raises(Closed, match="ended"):
            await asyncio.wait_for(batcher.ask("a", ends, 1), 5)
        batcher._thread.join(5)
        assert batcher.closed
        with pytest.raises(Closed):
            await batcher.ask("a", ends, 1)

    asyncio.run(go())


def test_the_queue_s_length_is_told_as_it_changes():
    seen = []
    work, batcher = Recorder(), started(queued=seen.append)

    async def go():
        await asyncio.gather(*await behind(batcher, work, [("a", i, 1) for i in range(1, 4)]))

    asyncio.run(go())
    batcher.close()
    assert seen == [1, 0, 1, 2, 3, 0]


def test_stages_are_counted_once_a_batch_and_the_journal_is_tidied_when_nobody_waits(monkeypatch):
    told = []
    monkeypatch.setattr(Metrics, "stages", lambda _, seconds: told.append(seconds))
    retriever = FakeRetriever(toy_documents())
    asked_at_once(retriever, [("/v1/search", {"query": "red"})] * 5)
    assert retriever.calls == [("search", 1), ("search", 5)]
    assert len(told) == 2 and retriever.tidied >= 1


def asked_at_once(retriever, requests):
    """Answers to (path, body) requests sent at once, while the retriever is held by a first one."""
    app, service = serve_fake(retriever)
    gate = threading.Event()
    retriever.hold = lambda: gate.wait(5)

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            first = asyncio.ensure_future(client.post("/v1/search", json={"query": "hold"}))
            await asyncio.sleep(0.1)
            sent = [asyncio.ensure_future(client.post(path, json=body)) for path, body in requests]
            while len(service.batcher) < len(requests):
                await asyncio.sleep(0.005)
            gate.set()
            await first
            return await asyncio.gather(*sent)

    found = asyncio.run(go())
    service.stop()
    return found


def answers_alone(retriever, requests):
    """The slow twin: the same requests, one after another."""
    app, service = serve_fake(retriever)

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return [await client.post(path, json=body) for path, body in requests]

    found = asyncio.run(go())
    service.stop()
    return found


def without_times(response):
    return {name: value for name, value in response.json().items() if name != "seconds"}


def test_requests_at_once_get_what_they_would_get_alone_in_fewer_calls():
    words = ["red fox", "green dog", "blue cat runs", "slow", "eats fast red"]
    requests = [("/v1/search", {"query": words[i % 5], "k": 3 if i % 2 else 5}) for i in range(20)]
    requests += [("/v1/search", {"query": [words[i], words[i + 1]], "filter": {"even": True}}) for i in range(3)]
    requests += [("/v1/embeddings", {"input": [words[i]] * (i + 1)}) for i in range(3)]
    requests += [("/rerank", {"query": words[i], "documents": words[: i + 2]}) for i in range(3)]
    retriever = FakeRetriever(toy_documents(), scorer=FakeScorer())
    found = asked_at_once(retriever, requests)
    twin = answers_alone(FakeRetriever(toy_documents(), scorer=FakeScorer()), requests)
    assert [response.status_code for response in found] == [200] * len(requests)
    assert [without_times(one) for one in found] == [without_times(one) for one in twin]
    assert retriever.calls == [("search", 1), ("search", 10), ("search", 10), ("search", 6), ("embed", 6)]
    assert retriever.overlapping == 0 and retriever.caught_up >= 2


def test_a_poisoned_query_does_not_spoil_its_neighbours():
    retriever = FakeRetriever(toy_documents())
    retriever.poison = {"bad"}
    requests = [("/v1/search", {"query": query}) for query in ("red", "bad", "dog")]
    assert [response.status_code for response in asked_at_once(retriever, requests)] == [200, 500, 200]


def test_a_client_that_goes_away_is_not_computed():
    retriever = FakeRetriever(toy_documents())
    app, service = serve_fake(retriever)
    gate, body = threading.Event(), b'{"query": "red"}'
    retriever.hold = lambda: gate.wait(5)
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "query_string": b"",
             "headers": headers, "root_path": "", "scheme": "http", "http_version": "1.1"}  # fmt: skip

    async def ask(gone: asyncio.Event):
        messages, sent = [{"type": "http.request", "body": body}], []

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await app(dict(scope), receive, send)
        return sent

    async def go():
        stays, goes = asyncio.Event(), asyncio.Event()
        first = asyncio.ensure_future(ask(stays))
        await asyncio.sleep(0.1)
        second, third = asyncio.ensure_future(ask(goes)), asyncio.ensure_future(ask(stays))
        while len(service.batcher) < 2:
            await asyncio.sleep(0.005)
        goes.set()
        assert await second == []
        gate.set()
        assert (await first)[0]["status"] == (await third)[0]["status"] == 200

    asyncio.run(go())
    service.stop()
    assert retriever.calls == [("search", 1), ("search", 1)]
