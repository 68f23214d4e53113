"""Hugging Face's inference API under /models/NAME, for `huggingface_hub.InferenceClient`.

Its output differs from a pipeline's: text classification returns a list of lists with all labels, zero-shot a list of
labels and scores; entities are aggregated with "simple"; embeddings are one vector per text.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from bothways.serving import schemas
from bothways.serving.models import ServedModel
from bothways.serving.problems import ProblemError, of_validation
from bothways.serving.routes import PROBLEMS
from bothways.serving.routing import JsonRoute
from bothways.serving.service import json_response, of_request

router = APIRouter(route_class=JsonRoute)
REQUESTS: dict[str, type[schemas.Options]] = {
    "classify": schemas.ClassifyRequest,
    "tag": schemas.TagRequest,
    "answer": schemas.AnswerRequest,
    "zero-shot": schemas.ZeroShotRequest,
    "fill": schemas.FillRequest,
    "embed": schemas.EmbedRequest,
    "similarity": schemas.SimilarityRequest,
}
DEFAULTS: dict[str, dict[str, Any]] = {"classify": {"top_k": None}, "tag": {"aggregation_strategy": "simple"}}
# Feature-extraction options of that API that are accepted, without effect, with these values only.
IGNORED = {"truncation_direction": ("right", "Right"), "encoding_format": ("float",), "prompt_name": (None,)}


@router.get(
    "/models/{name}/health", tags=["Hugging Face"], response_model=schemas.Status, responses={404: PROBLEMS[404]}
)
async def model_health(request: Request, name: str) -> Response:
    """Whether a model is served (`InferenceClient.health_check`)."""
    of_request(request).models.named(name)
    return json_response({"status": "ok"})


@router.post("/models/{name}", tags=["Hugging Face"], response_model=Any, responses=PROBLEMS)
async def infer(request: Request, name: str, body: schemas.InferenceRequest) -> Response:
    """Run a model on one input or a list, in the format of Hugging Face's inference API."""
    service = of_request(request)
    model = service.models.named(name)
    route = _route(model, body.inputs)
    given = {
        key: value for key, value in ((body.parameters or {}) | (body.model_extra or {})).items() if value is not None
    }
    if route == "embed":
        given = _vector_options(given)
    given.pop("model", None)
    try:
        typed = REQUESTS[route].model_validate(DEFAULTS.get(route, {}) | given | {"inputs": body.inputs})
    except ValidationError as error:
        raise of_validation(error) from None
    inputs = [one if isinstance(one, str) else one.model_dump() for one in typed.inputs]
    computed = await service.compute(request, model, route, inputs, typed.options())
    results = [_shaped(route, one) for one in computed.results]
    if isinstance(body.inputs, list) or route == "classify":
        return json_response(results)
    return json_response(results[0])


def _route(model: ServedModel, inputs: Any) -> str:
    """The route for the inputs of a model; an embedding model also takes sentence-similarity inputs."""
    if model.embeds and isinstance(inputs, dict):
        return "similarity"
    return next(iter(model.routes))


def _vector_options(given: dict[str, Any]) -> dict[str, Any]:
    """Check feature-extraction options and rename them to ours."""
    given = dict(given)
    if "truncate" in given:
        given["truncation"] = given.pop("truncate")
    for name, harmless in IGNORED.items():
        if name in given and given.pop(name) not in harmless:
            raise ProblemError(422, f"{name}: expected {' or '.join(map(repr, harmless))}, or leave it out")
    return given


def _shaped(route: str, result: Any) -> Any:
    if route == "zero-shot" and result.error is None:
        pairs = zip(result["labels"], result["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    return result
