"""The routes under /v1, and /health, /ready and /metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bothways.serving import schemas
from bothways.serving.problems import ProblemError
from bothways.serving.routing import JsonRoute
from bothways.serving.schemas import Answer, Problem
from bothways.serving.service import json_response, of_request, seconds_since_start

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body is not JSON",
        401: "The token is missing or wrong",
        404: "No such model, or none for this task",
        413: "The body is too large",
        415: "The Content-Type is not application/json",
        422: "The body is not what is expected, or none of its texts can be answered",
        429: "Too many texts are waiting; retry after the seconds in Retry-After",
        503: "The server starts or stops",
        504: "Not computed within the time limit",
    }.items()
}
router = APIRouter(route_class=JsonRoute)


async def _answer(request: Request, route: str, body: schemas.Options) -> Response:
    service = of_request(request)
    model = service.models.answering(route, body.model)
    inputs = [one if isinstance(one, str) else one.model_dump() for one in body.inputs]
    computed = await service.compute(request, model, route, inputs, body.options())
    results = [
        {"output": one, "windows": one.windows, "truncated": one.truncated, "error": one.error}
        for one in computed.results
    ]
    return json_response(
        {
            "model": model.name,
            "results": results,
            "tokens": computed.tokens,
            "seconds": seconds_since_start(request),
            "notes": computed.notes,
        }
    )


@router.post("/v1/classify", tags=["Predict"], response_model=Answer[schemas.LabelOutput], responses=PROBLEMS)
async def classify(request: Request, body: schemas.ClassifyRequest) -> Response:
    """Classify texts or pairs (keys of `pipeline("text-classification")`)."""
    return await _answer(request, "classify", body)


@router.post("/v1/tag", tags=["Predict"], response_model=Answer[list[schemas.Entity]], responses=PROBLEMS)
async def tag(request: Request, body: schemas.TagRequest) -> Response:
    """Find entities (keys of `pipeline("token-classification")`)."""
    return await _answer(request, "tag", body)


@router.post("/v1/answer", tags=["Predict"], response_model=Answer[schemas.SpanOutput], responses=PROBLEMS)
async def answer(request: Request, body: schemas.AnswerRequest) -> Response:
    """Answer questions from passages (keys of `pipeline("question-answering")`)."""
    return await _answer(request, "answer", body)


@router.post("/v1/zero-shot", tags=["Predict"], response_model=Answer[schemas.Classes], responses=PROBLEMS)
async def zero_shot(request: Request, body: schemas.ZeroShotRequest) -> Response:
    """Classify texts with candidate labels (keys of `pipeline("zero-shot-classification")`)."""
    return await _answer(request, "zero-shot", body)


@router.post("/v1/fill", tags=["Predict"], response_model=Answer[schemas.GuessOutput], responses=PROBLEMS)
async def fill(request: Request, body: schemas.FillRequest) -> Response:
    """Fill masked tokens (keys of `pipeline("fill-mask")`)."""
    return await _answer(request, "fill", body)


@router.post("/v1/embed", tags=["Predict"], response_model=Answer[schemas.VectorOutput], responses=PROBLEMS)
async def embed(request: Request, body: schemas.EmbedRequest) -> Response:
    """Embed texts: one vector per text, or with pooling "none" per token."""
    return await _answer(request, "embed", body)


@router.post("/v1/similarity", tags=["Predict"], response_model=Answer[list[float | None]], responses=PROBLEMS)
async def similarity(request: Request, body: schemas.SimilarityRequest) -> Response:
    """Compute the cosine similarity of a sentence to others; null for an empty one."""
    return await _answer(request, "similarity", body)


@router.post("/v1/tokenize", tags=["Models"], response_model=schemas.Tokens, responses=PROBLEMS)
async def tokenize(request: Request, body: schemas.TokenizeRequest) -> Response:
    """Tokenize a text or a pair: tokens, ids, type ids, offsets and, if requested, attention probabilities."""
    service = of_request(request)
    models = service.models
    model = next(iter(models)) if body.model is None else models.named(body.model)
    request.state.facts["model"] = model.name
    most = service.limits.max_characters
    if len(body.text) > most or len(body.text_pair or "") > most:
        raise ProblemError(422, f"expected at most {most:,} characters; send parts of it")

    def answer() -> Response:  # in a thread, because serializing a million probabilities is slow
        return json_response(model.tokens(body.text, body.text_pair, attentions=body.attentions))

    return await asyncio.to_thread(answer)


@router.get("/v1/models", tags=["Models"], response_model=schemas.Cards)
async def models(request: Request) -> Response:
    """List all models with their tasks, labels, engines, versions and cards."""
    return json_response({"object": "list", "data": [model.facts() for model in of_request(request).models]})


@router.get("/v1/models/{name}", tags=["Models"], response_model=schemas.Card, responses={404: PROBLEMS[404]})
async def model(request: Request, name: str) -> Response:
    """Describe one model."""
    return json_response(of_request(request).models.named(name).facts())


@router.post(
    "/v1/models/{name}/reload",
    tags=["Models"],
    response_model=schemas.Card,
    responses={
        403: {"model": Problem, "description": "Reloading is off: the server has no token, or several processes"},
        404: PROBLEMS[404],
        409: {"model": Problem, "description": "The model is being reloaded"},
        422: {"model": Problem, "description": "The directory cannot be served; the previous model stays in use"},
    },
)
async def reload(request: Request, name: str) -> Response:
    """Reload a model from its source. The old model answers requests meanwhile; none is lost. Needs the token."""
    service = of_request(request)
    if not service.reload:
        raise ProblemError(
            403,
            "reloading needs a token (--token-file) and one process; with several, send the server SIGHUP",
        )
    request.state.facts["model"] = service.models.named(name).name
    return json_response((await service.models.reload(name)).facts())


@router.get(
    "/health",
    tags=["Server"],
    response_model=schemas.Status,
    responses={503: {"model": schemas.Status, "description": "A worker thread has ended; restart the server"}},
)
async def health(request: Request) -> Response:
    """Whether the process is running and can compute."""
    is_alive = all(model.batcher.alive for model in of_request(request).models)
    return json_response({"status": "ok" if is_alive else "restart"}, 200 if is_alive else 503)


@router.get(
    "/ready",
    tags=["Server"],
    response_model=schemas.Status,
    responses={503: {"model": schemas.Status, "description": "The server starts or stops"}},
)
async def ready(request: Request) -> Response:
    """Whether requests are accepted: all models are loaded and warm, and the server is not stopping."""
    service = of_request(request)
    is_ready = service.ready and all(model.batcher.alive for model in service.models)
    return json_response({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@router.get("/metrics", tags=["Server"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Requests, times, queues and batches, in Prometheus text format."""
    found = of_request(request).metrics
    return Response(found.text(), headers={"Content-Type": found.content_type})
