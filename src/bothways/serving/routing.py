"""Routes that parse and validate a JSON body in one step, from bytes; FastAPI only documents them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from bothways.serving.problems import ProblemError, of_validation

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A route whose endpoint takes the request, path parameters and optionally a `body`, and returns a `Response`."""

    def get_route_handler(self) -> Handler:
        """Return a handler that parses the body and calls the endpoint."""
        endpoint = self.endpoint
        body: type[BaseModel] | None = get_type_hints(endpoint).get("body")
        assert inspect.iscoroutinefunction(endpoint)
        if body is None:

            async def plain(request: Request) -> Response:
                return await endpoint(request=request, **request.path_params)

            return plain

        async def parsed(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ProblemError(415, "expected the header Content-Type: application/json")
            try:
                given = body.model_validate_json(await request.body())
            except ValidationError as error:
                raise of_validation(error) from None
            return await endpoint(request=request, body=given, **request.path_params)

        return parsed
