"""The HTTP API over a retriever in memory: every route's answer, what is refused and how, and the OpenAPI description."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from fake_retriever import LEGS, FakeRetriever, FakeScorer, overlap, serve_fake, toy_documents, vector
from flatcoat.app.serve.failures import Refused
from flatcoat.app.serve.keys import Keys, hashed, new_key, read_keys
from flatcoat.app.serve.limits import Limits
from flatcoat.app.serve.metrics import Metrics
from flatcoat.app.serve.service import Service
from flatcoat.errors import FlatcoatError, Misuse


@pytest.fixture
def retriever():
    return FakeRetriever(toy_documents(), scorer=FakeScorer())


@pytest.fixture
def client(retriever):
    app, service = serve_fake(retriever)
    yield TestClient(app, raise_server_exceptions=False)
    service.stop()


def failed(response, status):
    """The error of an answer, in its one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"] and list(body["error"]) == ["message", "type", "param"]
    return body["error"]


def test_health_readiness_and_what_is_served(client, retriever):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "documents": 20, "sequence": 0}
    served = client.get("/v1/retrievers").json()
    assert [leg["name"] for leg in served["retrievers"]] == list(LEGS)
    assert served["retrievers"][1] == {"name": "scan", "kind": "dense", "index": "scan", "model": "models/tiny",
                                       "approximate": True, "documents": 20}  # fmt: skip
    assert served["fields"] == ["even", "year"] and served["collection"] == "toy" and served["writable"]


def test_a_search_is_the_retrievers_ranking(client, retriever):
    answer = client.post("/v1/search", json={"query": "red fox", "k": 3, "offset": 2}).json()
    (result,) = answer["results"]
    truth = sorted(
        ((overlap("red fox", f"{d.title} {d.text}"), d.id) for d in toy_documents()), key=lambda p: (-p[0], p[1])
    )
    assert [(hit["score"], hit["id"]) for hit in result["hits"]] == truth[2:5]
    assert [hit["rank"] for hit in result["hits"]] == [3, 4, 5]
    first = result["hits"][0]
    document = retriever.documents[first["id"]]
    assert (first["title"], first["text"], first["metadata"]) == (document.title, document.text, document.metadata)
    assert first["found_by"] == {"exact": {"rank": 3, "score": first["score"]}}
    assert set(answer["seconds"]) == {"encode", "search", "rerank", "total"} and answer["seconds"]["encode"] == 0.001


def test_several_queries_filters_and_no_text(client):
    body = {"query": ["red", "dog"], "retrievers": ["exact", "bm25"], "filter": {"year": {"gte": 2015}}, "text": False}
    results = client.post("/v1/search", json=body).json()["results"]
    assert [result["query"] for result in results] == ["red", "dog"]
    hits = [hit for result in results for hit in result["hits"]]
    assert hits and all(int(hit["id"][1:]) >= 15 and set(hit["found_by"]) == {"exact", "bm25"} for hit in hits)
    assert all("text" not in hit and "title" not in hit and "metadata" not in hit for hit in hits)


@pytest.mark.parametrize(("body", "status", "says"), [
    ({"query": "a", "retrievers": ["excat"]}, 400, "did you mean 'exact'"),
    ({"query": "a", "retrievers": ["exact", "exact"]}, 400, "once"),
    ({"query": "a", "k": 1001}, 400, "at most 1000"),
    ({"query": "a", "k": 10, "offset": 991}, 400, "rank 1001"),
    ({"query": "  "}, 400, "empty"),
    ({"query": "a" * 4001}, 400, "4001 characters"),
    ({"query": "a", "weights": [1.0, 2.0]}, 400, "one each"),
    ({"query": "a", "weights": [0]}, 400, "not all"),
    ({"query": ["a"] * 256, "k": 1000}, 400, "hits"),
    ({"query": ["a"] * 256, "k": 1, "rerank": 1000}, 400, "pairs"),
    ({"query": "a", "filter": {"year": {"near": 1}}}, 400, "near"),
    ({"query": "a", "filter": {"a": {"in": list(range(300))}}}, 400, "256 values"),
    ({}, 422, "query"),
    ({"query": ""}, 422, "query"),
    ({"query": []}, 422, "query"),
    ({"query": ["a"] * 257}, 422, "query"),
    ({"query": 3}, 422, "query"),
    ({"query": "a", "k": "10"}, 422, "k"),
    ({"query": "a", "k": 0}, 422, "k"),
    ({"query": "a", "k": True}, 422, "k"),
    ({"query": "a", "k": 10**30}, 422, "k"),
    ({"query": "a", "fuse": "max"}, 422, "fuse"),
    ({"query": "a", "kk": 3}, 422, "kk"),
    ([1], 422, ""),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(client, body, status, says):
    assert says in failed(client.post("/v1/search", json=body), status)["message"]


@pytest.mark.parametrize("body", [
    b"", b"{", b"nul", b'{"query": "\\ud800"}', b'{"query": "\xff"}', b'{"query": "a", "weights": [NaN]}',
    b'{"query": "a", "weights": [1e999]}', b"[" * 100_000, b'{"query":' * 500, b'{"query": "a", "k": ' + b"1" * 5000 + b"}",
])  # fmt: skip
def test_bodies_that_are_no_json_are_refused(client, body):
    failed(client.post("/v1/search", content=body, headers={"content-type": "application/json"}), 422)


def test_a_number_past_all_bounds_in_a_filter_is_refused(client):
    for value in (b"1e999", b"9" * 30, b'{"a":' * 40 + b"1" + b"}" * 40):
        body = b'{"query": "a", "filter": {"year": ' + value + b"}}"
        failed(client.post("/v1/search", content=body, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize("headers", [
    {}, {"content-type": "text/plain"}, {"content-type": "application/json; charset=latin-1"}, {"content-type": "application/xml"},
    {"content-type": "application/json", "content-encoding": "gzip"}, {"content-type": "application/x-www-form-urlencoded"},
])  # fmt: skip
def test_only_json_is_read(client, headers):
    assert "Content-" in failed(client.post("/v1/search", content=b'{"query": "a"}', headers=headers), 415)["message"]


def test_paths_and_methods_that_are_not_there(client):
    failed(client.get("/nothing"), 404)
    failed(client.get("/docs"), 404)
    failed(client.get("/page/../service.py"), 404)
    failed(client.get("/page/%2e%2e%2fservice.py"), 404)
    failed(client.get("/page/" + "a" * 300 + ".js"), 404)
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    failed(client.get("/v1/search/"), 404)
    assert client.get("/v1/search").headers["allow"] == "POST"
    failed(client.get("/v1/search"), 405)
    failed(client.put("/v1/documents/d1"), 405)
    failed(client.request("WEIRD", "/healthz"), 405)


def test_odd_text_is_only_text(client):
    for text in ("a\x00b", "\u202e\ufeff", "𝔘" * 1000, "'; DROP TABLE --", "\r\n\r\n"):
        response = client.post("/v1/search", json={"query": "red " + text})
        assert response.status_code == 200 and response.json()["results"][0]["query"] == "red " + text


def test_every_answer_has_the_headers_that_keep_a_page_safe(client):
    for response in (client.get("/healthz"), client.get("/nothing"), client.post("/v1/search", content=b"x")):
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in response.headers


def test_explain_takes_an_id_or_a_text(client):
    found = client.post("/v1/explain", json={"query": "red fox", "retriever": "late", "id": "d0"}).json()
    assert found["retriever"] == "late" and found["kind"] == "late"
    given = client.post("/v1/explain", json={"query": "red fox", "document": "a red fox"}).json()
    assert given["score"] == 2.0 and given["retriever"] == "exact"
    failed(client.post("/v1/explain", json={"query": "a", "id": "nobody"}), 404)
    failed(client.post("/v1/explain", json={"query": "a"}), 422)
    failed(client.post("/v1/explain", json={"query": "a", "id": "d0", "document": "x"}), 422)


def test_missed(client):
    found = client.post("/v1/missed", json={"query": "red", "retriever": "scan", "k": 5}).json()
    assert (found["retriever"], found["k"], found["recall"]) == ("scan", 5, 1.0)


def test_embeddings_are_the_models_vectors(client):
    answer = client.post("/v1/embeddings", json={"input": ["red", "a green dog"]}).json()
    assert answer["object"] == "list" and answer["model"] == "models/tiny"
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for i, (item, text) in enumerate(zip(answer["data"], ["red", "a green dog"], strict=True)):
        assert item["index"] == i and item["object"] == "embedding"
        np.testing.assert_array_equal(np.array(item["embedding"], np.float32), vector("document" + text))
    coded = client.post(
        "/v1/embeddings", json={"input": "red", "encoding_format": "base64", "input_type": "query", "model": "tiny"}
    )
    raw = np.frombuffer(base64.b64decode(coded.json()["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(raw, vector("queryred"))
    failed(client.post("/v1/embeddings", json={"input": "red", "model": "text-embedding-3-small"}), 400)
    failed(client.post("/v1/embeddings", json={"input": "red", "dimensions": 3}), 422)


def test_sparse_and_multivector_embeddings(client):
    (item,) = client.post("/v1/embeddings/sparse", json={"input": "red"}).json()["data"]
    truth = np.maximum(vector("red"), 0)
    assert item["weights"] == sorted(item["weights"], reverse=True) and item["terms"] == [
        f"term{i}" for i in item["ids"]
    ]
    np.testing.assert_array_equal(np.array(item["weights"], np.float32), truth[item["ids"]])
    assert len(item["ids"]) == np.count_nonzero(truth)
    (item,) = client.post("/v1/embeddings/multivector", json={"input": "red dog"}).json()["data"]
    np.testing.assert_array_equal(np.array(item["embedding"], np.float32), [vector("red"), vector("dog")])


def test_a_kind_that_is_not_served_has_no_vectors():
    app, service = serve_fake(FakeRetriever(toy_documents(), legs=("bm25",)))
    client = TestClient(app)
    for path in ("/v1/embeddings", "/v1/embeddings/sparse", "/v1/embeddings/multivector"):
        failed(client.post(path, json={"input": "red"}), 400)
    assert "no re-ranker" in failed(client.post("/v1/rerank", json={"query": "a", "documents": ["b"]}), 400)["message"]
    failed(client.post("/v1/search", json={"query": "a", "rerank": 5}), 400)
    service.stop()


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_rerank_orders_texts_by_score(client, path):
    texts = ["a dog", {"text": "red fox runs"}, "red"]
    answer = client.post(
        path, json={"query": "red fox", "documents": texts, "top_n": 2, "return_documents": True}
    ).json()
    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["results"][0]["document"] == {"text": "red fox runs"}
    truth = FakeScorer().score(["red fox"], ["red fox runs"])
    assert answer["results"][0]["relevance_score"] == pytest.approx(float(truth[0]))
    plain = client.post(path, json={"query": "red fox", "documents": ["x", "red"]}).json()
    assert "document" not in plain["results"][0] and len(plain["results"]) == 2


def test_metrics_count_by_route_never_by_what_a_client_makes_up(client):
    client.post("/v1/search", json={"query": "red"})
    client.get("/v1/documents/some-id")
    client.get("/made-up-by-a-client")
    text = client.get("/metrics").text
    assert 'flatcoat_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert 'route="/v1/documents/{id}",status="404"' in text and 'route="other",status="404"' in text
    assert "made-up" not in text and "some-id" not in text
    assert 'flatcoat_stage_seconds_count{stage="encode"} 1.0' in text and "flatcoat_documents 20.0" in text
    assert "flatcoat_batch_size_count" in text and "flatcoat_queue_length" in text


def test_openapi_describes_every_route_and_failure(client):
    whole = client.get("/openapi.json").json()
    assert {"/", "/healthz", "/readyz", "/metrics", "/v1/retrievers", "/v1/search", "/v1/explain", "/v1/missed", "/v1/embeddings",
            "/v1/embeddings/sparse", "/v1/embeddings/multivector", "/v1/rerank", "/rerank", "/v1/documents", "/v1/documents/delete",
            "/v1/documents/{id}"} == set(whole["paths"])  # fmt: skip
    search = whole["paths"]["/v1/search"]["post"]
    assert search["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/FailureAnswer")
    assert search["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/FailureAnswer")
    assert "HTTPValidationError" not in whole["components"]["schemas"]
    assert {"408", "500"} <= set(search["responses"])
    assert search["security"] == [{}, {"bearer": []}, {"header": []}]


def test_openapi_says_that_a_key_is_wanted_where_one_is(retriever):
    app, service = serve_fake(retriever, keys=Keys(read=(hashed("k"),)))
    whole = TestClient(app).get("/openapi.json").json()["paths"]
    assert whole["/v1/search"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert "security" not in whole["/healthz"]["get"]
    service.stop()


def test_nothing_is_answered_before_the_folder_is_open():
    app, service = serve_fake(FakeRetriever(toy_documents()), started=False)
    client = TestClient(app)  # without its lifespan
    assert client.get("/healthz").status_code == 200
    failed(client.get("/readyz"), 503)
    failed(client.post("/v1/search", json={"query": "a"}), 503)
    with TestClient(app) as running:
        for _ in range(1000):
            if running.get("/readyz").status_code == 200:
                break
        assert running.post("/v1/search", json={"query": "red"}).status_code == 200
    failed(client.post("/v1/search", json={"query": "red"}), 503)  # shut down
    assert service.retriever.closed


def test_what_breaks_is_500_in_the_same_shape_and_tells_nothing(retriever, client, monkeypatch):
    monkeypatch.setattr(retriever, "search", lambda *_: 1 / 0)
    error = failed(client.post("/v1/search", json={"query": "a"}), 500)
    assert "division" not in error["message"] and error["type"] == "server_error"


@pytest.mark.parametrize(("said", "answer"), [
    ("/srv/my runs/a/index/hnsw: its vectors are gone", "hnsw: its vectors are gone"),
    ("want what lies in /srv/runs/a, or less", "want what lies in a, or less"),
    ("document '/srv/runs/a' is there; 3/4 and a/b stay", "document '/srv/runs/a' is there; 3/4 and a/b stay"),
])  # fmt: skip
def test_answers_do_not_name_the_folders_of_the_machine(retriever, client, monkeypatch, caplog, said, answer):
    def fail(kind):
        def search(*_):
            raise kind(said)

        monkeypatch.setattr(retriever, "search", search)
        return client.post("/v1/search", json={"query": "a"})

    assert failed(fail(Misuse), 400)["message"] == answer
    assert failed(fail(FlatcoatError), 500)["message"] == "the server failed; its log says why"
    assert said in caplog.text


def test_what_cannot_be_followed_is_not_ready(retriever, client, monkeypatch, caplog):
    def damaged():
        raise FlatcoatError("/srv/live/journal: damaged")

    monkeypatch.setattr(retriever, "catch_up", damaged)
    failed(client.post("/v1/search", json={"query": "red"}), 500)
    assert "srv" not in failed(client.get("/readyz"), 503)["message"] and "damaged" in caplog.text
    monkeypatch.undo()
    assert client.post("/v1/search", json={"query": "red"}).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_an_opening_that_cannot_follow_is_told_and_refused(retriever):
    def damaged():
        raise FlatcoatError("damaged")

    retriever.catch_up = damaged
    told = []
    service = Service(lambda: retriever, limits=Limits(), metrics=Metrics(), collection="toy", on_failure=told.append)
    service.start()
    assert service.opened.wait(5)
    with pytest.raises(Refused):
        service.ready()
    service.stop()
    assert [str(error) for error in told] == ["damaged"] and retriever.closed


def test_keys(retriever, tmp_path):
    reader, writer = new_key(), new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'read = ["{reader[1]}"]\nwrite = ["{writer[1]}"]\n')
    keys = read_keys(file)
    assert keys.role(reader[0]) == "read" and keys.role(writer[0]) == "write"
    assert keys.role(reader[1]) is None and keys.role("") is None and keys.role(None) is None
    app, service = serve_fake(retriever, keys=keys)
    client = TestClient(app)
    add = {"documents": [{"id": "n1", "text": "new"}]}
    assert failed(client.post("/v1/search", json={"query": "red"}), 401)["type"] == "no_key"
    assert client.get("/v1/retrievers").headers["www-authenticate"] == "Bearer"
    failed(client.get("/metrics"), 401)
    failed(client.get("/nothing"), 401)
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200
    read, write = {"authorization": f"Bearer {reader[0]}"}, {"x-api-key": writer[0]}
    assert client.post("/v1/search", json={"query": "red"}, headers=read).status_code == 200
    assert client.get("/metrics", headers=read).status_code == 200
    failed(client.post("/v1/search", json={"query": "red"}, headers={"authorization": "Bearer nobody"}), 401)
    failed(client.post("/v1/search", json={"query": "red"}, headers={"authorization": f"Basic {reader[0]}"}), 401)
    failed(client.post("/v1/documents", json=add, headers=read), 403)
    failed(client.delete("/v1/documents/d1", headers=read), 403)
    assert client.post("/v1/documents", json=add, headers=write).status_code == 200
    service.stop()


@pytest.mark.parametrize(("text", "says"), [
    ("read = 3", "not a list"), ("reed = []", "reed"), ("read = []", "no key"), ("= 3", "TOML"), ("read = ['secret']", "hash"),
    ("write = ['sha256:abc']", "hash"),
])  # fmt: skip
def test_files_of_keys_that_say_nothing_usable_are_refused(tmp_path, text, says):
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(Misuse, match=says):
        read_keys(tmp_path / "keys.toml")
    with pytest.raises(FlatcoatError, match="no such file"):
        read_keys(tmp_path / "none.toml")


def test_a_hash_is_plain_sha256():
    assert hashed("abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert Keys(read=(hashed("abc"),)).role("abc") == "read"


def test_other_names_for_this_machine_are_refused(retriever):
    app, service = serve_fake(retriever, hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}))
    for host in ("127.0.0.1:8080", "localhost", "[::1]:80"):
        assert TestClient(app).get("/healthz", headers={"host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
        failed(TestClient(app).post("/v1/search", json={"query": "a"}, headers={"host": host}), 403)
    service.stop()
