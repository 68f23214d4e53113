"""The routes keep what /openapi.json promises, whatever a client sends (Schemathesis)."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
SETTINGS = hypothesis.settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)


@pytest.fixture(scope="session")
def api(client):
    """The description that the server gives of itself."""
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


OPERATIONS = [
    ("POST", "/v1/classify"),
    ("POST", "/v1/tag"),
    ("POST", "/v1/answer"),
    ("POST", "/v1/zero-shot"),
    ("POST", "/v1/fill"),
    ("POST", "/v1/embed"),
    ("POST", "/v1/similarity"),
    ("POST", "/v1/tokenize"),
    ("POST", "/v1/embeddings"),
    ("POST", "/models/{name}"),
    ("GET", "/models/{name}/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/models/{name}/reload"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
]


def test_every_operation_is_tried(api):
    assert sorted((one.ok().method.upper(), one.ok().path) for one in api.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_operation_does_as_it_says(api, method, path, mode):
    operation = api[path][method]
    if mode is GenerationMode.NEGATIVE and (method == "GET" or path.endswith("/reload")):
        pytest.skip("there is nothing to send wrongly")

    @SETTINGS
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        case.call_and_validate(checks=CHECKS)

    run()


def test_tokenize_gives_attentions_as_it_says(attentive):
    answered = []

    @SETTINGS
    @hypothesis.given(
        case=schemathesis.openapi.from_asgi("/openapi.json", attentive.app)["/v1/tokenize"]["POST"].as_strategy()
    )
    def run(case):
        case.body |= {"model": "tiny", "attentions": True}
        response = case.call_and_validate(checks=[check for check in CHECKS if check is not negative_data_rejection])
        answered.append(response.status_code == 200 and response.json()["attentions"] is not None)

    run()
    assert any(answered)
