"""The HTTP API: routes over a Service, behind a Guard. Bodies and answers are those of schemas.py; /openapi.json says all of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.app.serve import schemas as s
from flatcoat.app.serve.failures import Refused, failure, invalid, refused
from flatcoat.app.serve.guard import OPEN, Gate, Guard
from flatcoat.app.serve.limits import Limits
from flatcoat.app.serve.service import Service, stopped
from flatcoat.errors import FlatcoatError, need

if TYPE_CHECKING:
    from fastapi import FastAPI

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": s.FailureAnswer, "description": what}
    for status, what in (
        (400, "What is asked for cannot be."), (401, "No key, or an unknown one."), (403, "This key may not do that."),
        (408, "The body did not come in time."), (413, "The body is too large."), (415, "The body is not JSON."),
        (422, "The body does not fit the schema."), (429, "Too many requests at once."),
        (500, "The server failed."), (503, "Not ready, or shutting down."),
    )
}  # fmt: skip
PLAIN = {status: FAILURES[status] for status in (403, 500)}
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": s.FailureAnswer, "description": "There is none of that id."}}
TAKEN: dict[int | str, dict[str, Any]] = {409: {"model": s.FailureAnswer, "description": "That id is there already."}}


def create_app(service: Service, gate: Gate) -> Guard:
    """The application, an ASGI callable. Its lifespan starts and stops the service."""
    fastapi = need("fastapi", "serve")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        service.start()
        yield
        await stopped(service)

    app = fastapi.FastAPI(
        title="Flatcoat", version=importlib.metadata.version("flatcoat"), lifespan=lifespan,
        docs_url=None, redoc_url=None, redirect_slashes=False,
        description="Search, explain, encode, re-rank and change the documents of one folder.",
    )  # fmt: skip
    strict = _strict_route(service.limits)
    for number, (add, tag) in enumerate(
        ((_plain, "server"), (_reading, "search"), (_encoding, "models"), (_writing, "documents"))
    ):
        router = fastapi.APIRouter(tags=[tag], route_class=strict, responses=FAILURES if number else PLAIN)
        add(router, service)
        app.include_router(router)
    _on_errors(app)
    paths = app.openapi()["paths"]
    _with_keys(app, needed=gate.keys is not None)
    posts = [path for path, methods in paths.items() if "post" in methods]
    return Guard(app, gate, service.metrics, posts, [*(path for path in paths if "{" not in path), *OPEN])


def answered(value: Any) -> Any:
    """A JSON response."""
    from fastapi import Response
    from pydantic_core import to_json

    return Response(to_json(value, inf_nan_mode="null"), media_type="application/json")


def page_files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, each with its media type."""
    from importlib import resources

    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    places = (resources.files("flatcoat.app.serve") / "page").iterdir()
    return {place.name: (place.read_bytes(), kinds[suffix]) for place in places
            if (suffix := Path(place.name).suffix) in kinds}  # fmt: skip


def _plain(router: Any, service: Service) -> None:
    from fastapi import Response

    files = page_files()

    @router.get("/", response_class=Response, responses={200: {"content": {"text/html": {}}}, **MISSING})
    async def page() -> Any:
        """The page."""
        content, kind = files["index.html"]
        return Response(content, media_type=kind)

    @router.get("/page/{name}", include_in_schema=False)
    async def page_part(name: str) -> Any:
        if name not in files:
            raise Refused(404, f"no {name[:100]!r} in the page")
        content, kind = files[name]
        return Response(content, media_type=kind)

    @router.get("/healthz", response_model=s.HealthAnswer)
    async def health() -> Any:
        """Whether the process answers."""
        return answered({"status": "ok"})

    @router.get("/readyz", response_model=s.ReadyAnswer, responses={503: FAILURES[503]})
    async def ready() -> Any:
        """Whether questions can be answered."""
        return answered(service.ready())

    metrics_text = {200: {"content": {"text/plain": {}}}, 401: FAILURES[401]}

    @router.get("/metrics", response_class=Response, responses=metrics_text)
    async def metrics() -> Any:
        """Counts and times, in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _reading(router: Any, service: Service) -> None:
    @router.get("/v1/retrievers", response_model=s.RetrieversAnswer)
    async def retrievers() -> Any:
        """What is served."""
        return answered(await service.retrievers())

    @router.post("/v1/search", response_model=s.SearchAnswer)
    async def search(body: s.SearchBody) -> Any:
        """The best documents of one retriever, or of several fused."""
        return answered(await service.search(body))

    @router.post("/v1/explain", response_model=s.ExplainAnswer, responses=MISSING)
    async def explain(body: s.ExplainBody) -> Any:
        """Why a document is found."""
        return answered(await service.explain(body))

    @router.post("/v1/missed", response_model=s.MissedAnswer)
    async def missed(body: s.MissedBody) -> Any:
        """What exact search has among its best k and the index does not give."""
        return answered(await service.missed(body))


def _encoding(router: Any, service: Service) -> None:
    @router.post("/v1/embeddings", response_model=s.EmbeddingsAnswer)
    async def embeddings(body: s.EmbeddingsBody) -> Any:
        """One vector a text, as OpenAI's endpoint gives them."""
        return answered(await service.embeddings("dense", body))

    @router.post("/v1/embeddings/sparse", response_model=s.SparseAnswer)
    async def embeddings_sparse(body: s.EmbeddingsBody) -> Any:
        """Term weights of each text."""
        return answered(await service.embeddings("sparse", body))

    @router.post("/v1/embeddings/multivector", response_model=s.MultiAnswer)
    async def embeddings_multivector(body: s.EmbeddingsBody) -> Any:
        """One vector a token of each text."""
        return answered(await service.embeddings("late", body))

    @router.post("/rerank", response_model=s.RerankAnswer)
    @router.post("/v1/rerank", response_model=s.RerankAnswer)
    async def rerank(body: s.RerankBody) -> Any:
        """Texts by falling score, as Cohere's and Jina's endpoints give them."""
        return answered(await service.rerank(body))


def _writing(router: Any, service: Service) -> None:
    @router.post("/v1/documents", response_model=s.AddedAnswer, responses=TAKEN)
    async def add(body: s.AddBody) -> Any:
        """Add documents; answered when they are on disk."""
        return answered(await service.add(body))

    @router.post("/v1/documents/delete", response_model=s.DeletedAnswer)
    async def delete(body: s.DeleteBody) -> Any:
        """Delete documents; answered when that is on disk. Ids that are not there are not counted."""
        return answered(await service.delete(body.ids))

    @router.get("/v1/documents/{id:path}", response_model=s.DocumentAnswer, responses=MISSING)
    async def document(id: str) -> Any:
        """One document."""
        return answered(await service.document(id))

    @router.delete("/v1/documents/{id:path}", response_model=s.DeletedAnswer, responses=MISSING)
    async def delete_one(id: str) -> Any:
        """Delete one document; answered when that is on disk."""
        done = await service.delete([id])
        if not done["deleted"]:
            raise Refused(404, f"no document {id!r}", "id")
        return answered(done)


def _strict_route(limits: Limits) -> Any:
    """Routes whose bodies are read as JSON and nothing looser: no NaN, no lone surrogate, not hundreds deep; bounded in their answers."""
    from fastapi import HTTPException, Request
    from fastapi.routing import APIRoute
    from pydantic_core import from_json

    class StrictRequest(Request):
        async def json(self) -> Any:
            try:
                return from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise HTTPException(422, f"the body is not valid JSON: {error}") from None

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def strict(request: Request) -> Any:
                try:
                    response = await handler(StrictRequest(request.scope, request.receive))
                    limits.answer(len(response.body))
                    return response
                except FlatcoatError as error:
                    raise refused(error) from error

            return strict

    return StrictRoute


def _on_errors(app: Any) -> None:
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def given(error: Refused) -> Any:
        response = answered(failure(error.status, str(error), error.param))
        response.status_code = error.status
        response.headers.update(error.headers)
        return response

    @app.exception_handler(Refused)
    async def on_refused(_: Any, error: Refused) -> Any:
        return given(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Any, error: RequestValidationError) -> Any:
        return given(invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def on_http(_: Any, error: HTTPException) -> Any:
        said = {404: "there is nothing at this path", 405: "this path does not take that method"}
        return given(Refused(error.status_code, said.get(error.status_code, str(error.detail)), headers=error.headers))

    @app.exception_handler(Exception)
    async def on_any(_: Any, error: Exception) -> Any:
        return given(Refused(500, "the server failed; its log says why"))


def _with_keys(app: Any, needed: bool) -> None:
    """Say in the OpenAPI description that keys are asked for, or may be given."""
    whole = app.openapi()
    whole.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"}, "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }  # fmt: skip
    for path, methods in whole["paths"].items():
        for operation in methods.values():
            if path not in OPEN:
                operation["security"] = [*([] if needed else [{}]), {"bearer": []}, {"header": []}]
