"""The `openai` client works against /v1/embeddings."""

from __future__ import annotations

import numpy as np
import openai
import pytest

import bothways


@pytest.fixture
def ai(live):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_embeddings(ai, included):
    found = ai.embeddings.create(model="minilm-l6", input=["a cat", "a kitten"])
    expected = bothways.pipeline("feature-extraction", included.named("minilm-l6").predictor, pooling="mean")
    np.testing.assert_allclose([one.embedding for one in found.data], expected(["a cat", "a kitten"]), atol=2e-3)
    assert [one.index for one in found.data] == [0, 1]
    assert found.usage.prompt_tokens == found.usage.total_tokens == 4 + 4
    assert found.model == "minilm-l6"


def test_base64_and_numbers_are_the_same(ai):
    one = ai.embeddings.create(model="minilm-l6", input="a cat", encoding_format="float", user="somebody")
    other = ai.embeddings.create(model="minilm-l6", input="a cat", encoding_format="base64", dimensions=384)
    numbers = np.frombuffer(__import__("base64").b64decode(other.data[0].embedding), dtype="<f4")
    np.testing.assert_allclose(one.data[0].embedding, numbers, atol=1e-6)


def test_the_list_of_models(ai):
    assert "minilm-l6" in [model.id for model in ai.models.list()]
    assert ai.models.retrieve("minilm-l6").owned_by == "bothways"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "nobody", "input": "a"}, openai.NotFoundError, "no model of this name is served"),
        ({"model": "sentiment", "input": "a"}, openai.NotFoundError, "not /v1/embed"),
        ({"model": "minilm-l6", "input": []}, openai.UnprocessableEntityError, "at least 1 item"),
        ({"model": "minilm-l6", "input": ["a", ""]}, openai.UnprocessableEntityError, "input.1: the text is empty"),
        ({"model": "minilm-l6", "input": [[1, 2]]}, openai.UnprocessableEntityError, "valid string"),
        ({"model": "minilm-l6", "input": "a", "dimensions": 64}, openai.UnprocessableEntityError, "expected 384"),
    ],
)
def test_errors_have_the_form_that_the_client_reads(ai, options, kind, message):
    with pytest.raises(kind, match=message) as found:
        ai.embeddings.create(**options)
    assert found.value.type in ("not_found_error", "invalid_request_error")
