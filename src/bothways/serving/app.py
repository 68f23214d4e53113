"""The FastAPI application: our routes, Hugging Face's inference API, OpenAI's embeddings, and the web page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from bothways import __version__
from bothways.serving import huggingface, openai, page, routes
from bothways.serving.guard import Guarded, Observed
from bothways.serving.limits import Limits
from bothways.serving.metrics import Metrics
from bothways.serving.models import Models
from bothways.serving.problems import ProblemError, phrase
from bothways.serving.service import Service


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a server: the token, the host names, and the allowed origins of web pages (CORS).

    `reload` allows requests to reload a model, which also needs a token.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None
    origins: Sequence[str] = ()
    reload: bool = True


def create_app(models: Models, *, limits: Limits, access: Access, metrics: Metrics) -> FastAPI:
    """Create the application for loaded models; on shutdown it computes the queued texts and closes the models."""
    service = Service(models, limits, metrics, reload=access.reload and access.token is not None)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.ready = True
        yield
        service.ready = False
        models.close()

    middleware = [Middleware(Observed, metrics=metrics)]
    if access.origins:
        methods, headers = ["GET", "POST"], ["authorization", "content-type", "x-request-id"]
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=access.origins, allow_methods=methods, allow_headers=headers)
        )
    middleware.append(Middleware(Guarded, limits=limits, token=access.token, hosts=access.hosts))
    app = FastAPI(
        title="bothways",
        version=__version__,
        description="BERT-family models: classes, entities, answers, masked tokens, vectors.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            ProblemError: _problem,
            HTTPException: _http_problem,
            ClientDisconnect: _gone,
        },
    )
    for router in (routes.router, huggingface.router, openai.router, page.router):
        app.include_router(router)
    app.state.service = service
    return app


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    if request.url.path == openai.PATH:
        return openai.problem(error)
    body = {"error": error.message, "request_id": request.state.request_id}
    return JSONResponse(body, error.status, headers=error.headers)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return await _problem(request, ProblemError(error.status_code, phrase(error.status_code), headers))


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)
