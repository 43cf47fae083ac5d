"""The example of docs/serving.md runs."""

from __future__ import annotations

import io
import re
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from fake_retriever import FakeRetriever, serve_fake, toy_documents

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def test_the_example_gets_hits(monkeypatch, capsys):
    app, service = serve_fake(FakeRetriever(toy_documents()))
    client, asked = TestClient(app), []

    def answered(request):
        asked.append(request)
        answer = client.post(request.selector, content=request.data, headers=dict(request.header_items()))
        assert answer.status_code == 200, answer.text
        return io.BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", answered)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    code = code.replace("how do I remove duplicate rows", "red fox").replace("2020", "2005")  # what the toy has
    exec(compile(code, str(PAGE), "exec"), {})
    service.stop()
    assert len(asked) == 1 and asked[0].full_url.endswith("/v1/search")
    assert len(capsys.readouterr().out.splitlines()) == 5
