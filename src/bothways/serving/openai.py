"""OpenAI's /v1/embeddings API."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bothways.serving import schemas
from bothways.serving.problems import ProblemError
from bothways.serving.routes import PROBLEMS
from bothways.serving.routing import JsonRoute
from bothways.serving.service import json_response, of_request

PATH = "/v1/embeddings"
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
router = APIRouter(route_class=JsonRoute)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.OpenAIProblem, "description": problem["description"]}
    for status, problem in PROBLEMS.items()
    if status != 401  # sent before routing, in our own format
} | {401: PROBLEMS[401]}


@router.post(PATH, tags=["OpenAI"], response_model=schemas.Embeddings, responses=_PROBLEMS)
async def embeddings(request: Request, body: schemas.EmbeddingsRequest) -> Response:
    """Embed texts, in OpenAI's format. The request fails if one text fails."""
    service = of_request(request)
    model = service.models.answering("embed", body.model)
    computed = await service.compute(request, model, "embed", body.input, {})
    for place, vector in enumerate(computed.results):
        if vector.error is not None:
            raise ProblemError(422, f"input.{place}: {vector.error}")
    width = len(computed.results[0])
    if body.dimensions not in (None, width):
        raise ProblemError(422, f"dimensions: expected {width}, the size of this model's vectors, or leave it out")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(computed.results)
    ]
    usage = {"prompt_tokens": computed.tokens, "total_tokens": computed.tokens}
    return json_response({"object": "list", "data": data, "model": model.name, "usage": usage})


def problem(error: ProblemError) -> Response:
    """An error in OpenAI's format."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    body = {"error": {"message": error.message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, error.status, headers=error.headers)


def _encoded(vector: list[float], encoding: str) -> Any:
    if encoding == "float":
        return list(vector)
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()
