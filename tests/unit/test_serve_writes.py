"""Writing over HTTP: what is added is found, what is deleted is not, and what may not be written is refused before it is tried."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from fake_retriever import FakeRetriever, serve_fake, toy_documents


@pytest.fixture
def retriever():
    return FakeRetriever(toy_documents(4))


@pytest.fixture
def client(retriever):
    app, service = serve_fake(retriever)
    yield TestClient(app)
    service.stop()


NEW = {
    "id": "new/1",
    "title": "A title",
    "text": "purple emu",
    "metadata": {"tags": ["a", "b"], "deep": {"x": [1, 2.5, None]}},
}


def test_what_is_added_is_found_read_replaced_and_deleted(client):
    assert client.post("/v1/documents", json={"documents": [NEW]}).json() == {"added": 1, "sequence": 1}
    assert client.get("/v1/documents/new/1").json() == NEW
    (result,) = client.post("/v1/search", json={"query": "purple"}).json()["results"]
    assert [hit["id"] for hit in result["hits"]] == ["new/1"]
    response = client.post("/v1/documents", json={"documents": [{**NEW, "text": "pink emu"}]})
    assert response.status_code == 409 and response.json()["error"]["type"] == "conflict"
    assert client.get("/v1/documents/new/1").json()["text"] == "purple emu"
    body = {"documents": [{"id": "new/1", "text": "pink emu"}], "replace": True}
    assert client.post("/v1/documents", json=body).json() == {"added": 1, "sequence": 2}
    assert client.get("/v1/documents/new/1").json() == {"id": "new/1", "title": "", "text": "pink emu", "metadata": {}}
    assert client.delete("/v1/documents/new/1").json() == {"deleted": 1, "sequence": 3}
    assert client.delete("/v1/documents/new/1").status_code == 404
    assert client.get("/v1/documents/new/1").status_code == 404


def test_ids_that_are_not_there_are_not_counted(client, retriever):
    answer = client.post("/v1/documents/delete", json={"ids": ["d0", "nobody", "d1", "d0"]}).json()
    assert answer == {"deleted": 2, "sequence": 1} and set(retriever.documents) == {"d2", "d3"}


def test_ids_may_need_quoting(client):
    for id in ("a b", " ", "ü/é", "a?b", "a#b", "100%", "delete", "a..b", "💡"):
        assert client.post("/v1/documents", json={"documents": [{"id": id, "text": "x"}]}).status_code == 200
        from urllib.parse import quote

        assert client.get("/v1/documents/" + quote(id, safe="")).json()["id"] == id
        assert client.post("/v1/explain", json={"query": "x", "id": id}).status_code == 200
        assert client.delete("/v1/documents/" + quote(id, safe="")).json()["deleted"] == 1


@pytest.mark.parametrize(("change", "status"), [
    ({"id": ""}, 422), ({"id": "a\n"}, 422), ({"id": "a\x00"}, 422), ({"id": "x" * 513}, 422), ({"id": 3}, 422),
    ({"text": None}, 422), ({"title": 3}, 422), ({"metadata": []}, 422), ({"vector": [1.0]}, 422),
    ({"metadata": {"a": "x" * 20_000}}, 400), ({"metadata": {"a": [[[[[[[[1]]]]]]]]}}, 400), ({"metadata": {"a": 2**64}}, 400),
])  # fmt: skip
def test_documents_that_cannot_be_are_refused(client, retriever, change, status):
    response = client.post("/v1/documents", json={"documents": [{**NEW, **change}]})
    assert response.status_code == status and response.json()["error"]["message"]
    assert retriever.sequence == 0 and "add" not in dict(retriever.calls)


def test_one_wrong_document_keeps_all_of_its_request_out(client, retriever):
    for wrong in ({"id": "new/1", "text": "again"}, {"id": "d1", "text": "there"}):
        assert client.post("/v1/documents", json={"documents": [NEW, wrong]}).status_code in (400, 409)
    assert retriever.sequence == 0 and "new/1" not in retriever.documents


def test_not_finite_numbers_are_no_metadata(client):
    for number, status in ((b"NaN", 422), (b"Infinity", 422), (b"1e999", 400)):
        body = b'{"documents": [{"id": "n", "text": "x", "metadata": {"a": ' + number + b"}}]}"
        response = client.post("/v1/documents", content=body, headers={"content-type": "application/json"})
        assert response.status_code == status


def test_a_read_only_server_writes_nothing(retriever):
    app, service = serve_fake(retriever, read_only=True, writable=False)
    client = TestClient(app)
    assert client.get("/v1/retrievers").json()["writable"] is False
    for response in (
        client.post("/v1/documents", json={"documents": [NEW]}), client.delete("/v1/documents/d0"),
        client.post("/v1/documents/delete", json={"ids": ["d0"]}),
    ):  # fmt: skip
        assert response.status_code == 403 and "read-only" in response.json()["error"]["message"]
    assert client.get("/v1/documents/d0").status_code == 200
    assert retriever.sequence == 0
    service.stop()
