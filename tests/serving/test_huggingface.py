"""`huggingface_hub.InferenceClient` works against the server."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import bothways


def hub(live, model):
    return InferenceClient(base_url=f"{live.url}/models/{model}")


def test_text_classification(live):
    found = hub(live, "sentiment").text_classification("a great film")
    assert [one.label for one in found] == ["POSITIVE", "NEGATIVE"]
    assert found[0].score + found[1].score == pytest.approx(1)
    assert len(hub(live, "sentiment").text_classification("a great film", top_k=1)) == 1


def test_token_classification(live):
    found = hub(live, "ner").token_classification("Tim Cook lives in Cupertino.")
    assert [(one.entity_group, one.word, one.start, one.end) for one in found] == [
        ("PER", "Tim Cook", 0, 8),
        ("LOC", "Cupertino", 18, 27),
    ]
    plain = hub(live, "ner").token_classification("Tim Cook", aggregation_strategy="none")
    assert plain[0]["entity"].endswith("PER")


def test_question_answering(live):
    question, context = "Who designed it?", "It was designed by Gustave Eiffel in 1887."
    found = hub(live, "question-answering").question_answering(question, context)
    assert found.answer == context[found.start : found.end] == "Gustave Eiffel"
    several = hub(live, "question-answering").question_answering(question, context, top_k=3)
    assert len(several) == 3


def test_zero_shot_classification(live):
    found = hub(live, "zero-shot").zero_shot_classification("The match ended 2:1.", ["politics", "sports"])
    assert found[0].label == "sports"
    assert found[0].score + found[1].score == pytest.approx(1)
    multi = hub(live, "zero-shot").zero_shot_classification(
        "The match ended 2:1.", ["politics", "sports"], multi_label=True, hypothesis_template="It is about {}."
    )
    assert multi[0].label == "sports"


def test_fill_mask(live):
    found = hub(live, "fill-mask").fill_mask("The cat [MASK] on the mat.", top_k=3)
    assert len(found) == 3
    assert found[0].sequence == f"The cat {found[0].token_str} on the mat."
    among = hub(live, "fill-mask").fill_mask("The cat [MASK] on the mat.", targets=["sat", "slept"])
    assert {one.token_str for one in among} == {"sat", "slept"}


def test_feature_extraction(live, included):
    one = hub(live, "minilm-l6").feature_extraction("a cat")
    many = hub(live, "minilm-l6").feature_extraction(["a cat", "a kitten"], normalize=True, truncate=True)
    expected = bothways.pipeline(
        "feature-extraction", included.named("minilm-l6").predictor, pooling="mean", normalize=True
    )
    assert one.shape == (384,)
    np.testing.assert_allclose(many, expected(["a cat", "a kitten"]), atol=2e-3)


def test_sentence_similarity(live):
    found = hub(live, "minilm-l6").sentence_similarity("a cat", ["a kitten", "a train"])
    assert found[0] > found[1]


def test_health_check(live):
    assert InferenceClient(base_url=f"{live.url}/models/sentiment", provider="hf-inference").health_check()


def test_options_of_the_older_api_are_accepted(client):
    found = client.post("/models/ner", json={"inputs": "Berlin", "options": {"wait_for_model": True}})
    assert found.json()[0]["word"] == "Berlin"


@pytest.mark.parametrize("model", ["sentiment", "ner", "zero-shot"])
def test_a_list_gives_a_list(client, model):
    parameters = {"candidate_labels": ["a", "b"]} if model == "zero-shot" else {}
    one = client.post(f"/models/{model}", json={"inputs": "Berlin is great", "parameters": parameters}).json()
    two = client.post(f"/models/{model}", json={"inputs": ["Berlin is great"] * 2, "parameters": parameters}).json()
    assert len(two) == 2
    assert len(two[0]) == len(one[0] if model == "sentiment" else one)


@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("nobody", {"inputs": "a"}, 404, "no model of this name is served"),
        ("sentiment", {"inputs": 5}, 422, "inputs.0: Input should be a valid string"),
        ("sentiment", {"inputs": None}, 422, "inputs: found null, expected one input or a list of them"),
        ("sentiment", {"parameters": {}}, 422, "inputs: Field required"),
        (
            "sentiment",
            {"inputs": "a", "parameters": {"top_k": -1}},
            422,
            "top_k: Input should be greater than or equal",
        ),
        ("sentiment", {"inputs": "a", "parameters": {"top": 1}}, 422, "top: Extra inputs are not permitted"),
        ("sentiment", {"inputs": "a", "parameters": []}, 422, "parameters: Input should be an object"),
        ("question-answering", {"inputs": "a"}, 422, "inputs.0: "),
        ("question-answering", {"inputs": {"question": "a"}}, 422, "inputs.0.context: Field required"),
        ("zero-shot", {"inputs": "a"}, 422, "candidate_labels: Field required"),
        ("minilm-l6", {"inputs": "a", "truncation_direction": "left"}, 422, "truncation_direction: expected 'right'"),
        ("minilm-l6", {"inputs": "a", "prompt_name": "query"}, 422, "prompt_name: expected None"),
    ],
)
def test_a_wrong_request_is_a_plain_message(client, model, body, status, message):
    found = client.post(f"/models/{model}", json=body)
    assert found.status_code == status
    assert message in found.json()["error"]


def test_the_client_shows_our_message(live):
    with pytest.raises(HfHubHTTPError, match="there is no mask in the text"):
        hub(live, "fill-mask").fill_mask("no mask")
