"""The routes under /v1: answers of pipeline(), for one input or many."""

from __future__ import annotations

import numpy as np
import pytest

import bothways
from bothways.errors import CheckpointError
from bothways.inference.attentions import AttentionModel, find_attentions

FILM = "a charming and often affecting journey"
CASES = {
    "classify": ("sentiment", "text-classification", ["dull", FILM], {"top_k": 2}),
    "tag": (
        "ner",
        "token-classification",
        ["Tim Cook lives in Cupertino.", "nobody"],
        {"aggregation_strategy": "first"},
    ),
    "answer": (
        "question-answering",
        "question-answering",
        [{"question": "Who?", "context": "It was designed by Gustave Eiffel."}] * 2,
        {"top_k": 2},
    ),
    "zero-shot": (
        "zero-shot",
        "zero-shot-classification",
        ["The match ended 2:1.", "The parliament voted."],
        {"candidate_labels": ["sports", "politics"], "multi_label": True},
    ),
    "fill": ("fill-mask", "fill-mask", ["The cat [MASK] on the mat.", "[MASK] and [MASK]."], {"top_k": 3}),
    "embed": ("minilm-l6", "feature-extraction", ["a cat", "a kitten"], {"pooling": "mean", "normalize": True}),
    "similarity": (
        "minilm-l6",
        "sentence-similarity",
        [{"source_sentence": "a cat", "sentences": ["a kitten", "a train"]}],
        {},
    ),
}


def rounded(value):
    if isinstance(value, float):
        return pytest.approx(value, abs=2e-3)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("route", CASES)
def test_answers_are_those_of_the_pipeline(client, included, route):
    model, kind, inputs, options = CASES[route]
    expected = bothways.pipeline(kind, included.named(model).predictor)(inputs, **options)
    expected = expected if isinstance(expected, list) and len(expected) == len(inputs) else [expected]
    found = client.post(f"/v1/{route}", json={"inputs": inputs, **options})
    assert found.status_code == 200, found.text
    body = found.json()
    assert body["model"] == model
    assert [one["output"] for one in body["results"]] == rounded(expected)
    assert [one["error"] for one in body["results"]] == [None] * len(inputs)
    assert body["tokens"] > 0
    assert 0 < body["seconds"] < 60


@pytest.mark.parametrize("route", CASES)
def test_one_input_is_answered_as_a_list_of_one(client, route):
    _, _, inputs, options = CASES[route]
    one = client.post(f"/v1/{route}", json={"inputs": inputs[0], **options}).json()
    many = client.post(f"/v1/{route}", json={"inputs": inputs[:1], **options}).json()
    assert one["results"] == rounded(many["results"])
    assert len(one["results"]) == 1


def test_a_long_text_is_read_in_windows_and_the_answer_says_so(client):
    body = client.post("/v1/classify", json={"inputs": ["good film. " * 2000, "good"]}).json()
    assert body["results"][0]["windows"] > 10
    assert body["results"][0]["truncated"] == 0
    assert body["results"][1]["windows"] == 1
    cut = client.post("/v1/classify", json={"inputs": "good film. " * 2000, "truncation": True}).json()
    assert cut["results"][0]["windows"] == 1
    assert cut["results"][0]["truncated"] > 3000


def test_an_empty_text_among_others_has_an_error(client):
    body = client.post("/v1/classify", json={"inputs": ["good", " "]}).json()
    assert body["results"][0]["error"] is None
    assert body["results"][1]["error"] == "the text is empty"
    assert body["results"][1]["output"]["label"] is None


def test_a_request_without_an_answer_is_an_error(client):
    found = client.post("/v1/tag", json={"inputs": ["", " "]})
    assert found.status_code == 422
    assert found.json()["error"] == "input 0: the text is empty"


def test_a_mask_that_is_missing_is_an_error(client):
    found = client.post("/v1/fill", json={"inputs": "no mask here"})
    assert found.status_code == 422
    assert "there is no mask in the text" in found.json()["error"]


def test_all_labels_come_with_null(client):
    body = client.post("/v1/classify", json={"inputs": "good", "top_k": None}).json()
    assert len(body["results"][0]["output"]) == 2


def test_notes_tell_what_an_option_did(client):
    body = client.post("/v1/fill", json={"inputs": "a [MASK]", "targets": ["cat", "bioluminescent"]}).json()
    assert "several tokens" in body["notes"][0]


def test_a_vector_for_each_token(client):
    body = client.post("/v1/embed", json={"inputs": "a cat", "pooling": "none"}).json()
    (tokens,) = body["results"][0]["output"]
    assert len(tokens) == 4
    assert len(tokens[0]) == 384


def test_the_vector_of_an_empty_sentence_is_null(client):
    inputs = {"source_sentence": "a cat", "sentences": ["", "a kitten"]}
    body = client.post("/v1/similarity", json={"inputs": inputs}).json()
    assert body["results"][0]["output"][0] is None
    assert body["results"][0]["output"][1] > 0.5


def test_models_with_versions_and_cards(client):
    body = client.get("/v1/models").json()
    assert [one["id"] for one in body["data"]][:2] == ["sentiment", "ner"]
    one = client.get("/v1/models/sentiment").json()
    assert one == body["data"][0]
    assert one["labels"] == ["NEGATIVE", "POSITIVE"]
    assert one["routes"] == ["/v1/classify"]
    assert one["bothways"] == bothways.__version__
    assert len(one["version"]) == 12
    assert "ONNX Runtime" in one["engine"]


def test_tokens_of_a_text(client):
    body = client.post("/v1/tokenize", json={"model": "fill-mask", "text": "The cat", "text_pair": "sat"}).json()
    assert [one["token"] for one in body["tokens"]] == ["[CLS]", "the", "cat", "[SEP]", "sat", "[SEP]"]
    assert [one["type_id"] for one in body["tokens"]] == [0, 0, 0, 0, 1, 1]
    assert [one["text"] for one in body["tokens"]] == [None, 0, 0, None, 1, None]
    assert (body["tokens"][2]["start"], body["tokens"][2]["end"]) == (4, 7)
    assert body["windows"] == 1


def test_attentions_of_a_pair(attentive):
    body = attentive.post("/v1/tokenize", json={"text": "a great film", "text_pair": "dull", "attentions": True}).json()
    found = np.array(body["attentions"])
    count = len(body["tokens"])
    assert found.shape == (2, 4, count, count)
    np.testing.assert_allclose(found.sum(-1), 1, atol=0.0005 * count)
    model = next(iter(attentive.app.state.service.models)).predictor
    encoded = model.tokenizer.encode("a great film", "dull")
    expected = find_attentions(model.model_directory).run(encoded.ids, encoded.type_ids)
    np.testing.assert_allclose(found, expected, atol=0.000501)
    assert len(str(body["attentions"][1][2][3][4])) <= 5
    assert attentive.post("/v1/tokenize", json={"text": "a great film"}).json()["attentions"] is None


def test_attentions_have_a_limit_that_the_models_tell(attentive, monkeypatch):
    tiny, fake = attentive.get("/v1/models").json()["data"]
    assert tiny["attentions"] == {"layers": 2, "heads": 4, "max_tokens": 32}  # what the model reads at once
    assert fake["attentions"] is None
    fits = {"text": "a " * 30, "attentions": True}
    assert attentive.post("/v1/tokenize", json=fits).status_code == 200
    found = attentive.post("/v1/tokenize", json=fits | {"text": "a " * 31})
    assert found.status_code == 422
    assert found.json()["error"] == "found 33 tokens for attentions, expected at most 32; send a shorter text"
    monkeypatch.setattr("bothways.serving.models.MOST_ATTENTIONS", 2 * 4 * 5**2)
    assert attentive.get("/v1/models/tiny").json()["attentions"]["max_tokens"] == 5
    assert attentive.post("/v1/tokenize", json=fits).status_code == 422


def test_a_model_without_attentions_says_how_to_get_them(attentive):
    found = attentive.post("/v1/tokenize", json={"model": "fake", "text": "a", "attentions": True})
    assert found.status_code == 422
    assert "bothways export DIR --attentions" in found.json()["error"]


def test_a_damaged_file_of_attentions_is_not_shown(attentive, monkeypatch):
    def damaged(*_):
        raise CheckpointError("/a/path")

    monkeypatch.setattr(AttentionModel, "run", damaged)
    found = attentive.post("/v1/tokenize", json={"text": "a", "attentions": True})
    assert found.status_code == 500
    assert "/a/path" not in found.json()["error"]
    assert "export it again" in found.json()["error"]


def test_a_model_that_is_not_asked_for_is_found_by_its_task(client):
    assert client.post("/v1/tokenize", json={"text": "a"}).json()["model"] == "sentiment"
    assert client.post("/v1/tag", json={"inputs": "a"}).json()["model"] == "ner"


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("classify", {"model": "nobody", "inputs": "a"}, "no model of this name is served; there are sentiment"),
        ("classify", {"model": "ner", "inputs": "a"}, "the model answers /v1/tag, not /v1/classify"),
        ("tokenize", {"model": "nobody", "text": "a"}, "no model of this name"),
    ],
)
def test_a_model_that_cannot_answer_is_404(client, route, body, message):
    found = client.post(f"/v1/{route}", json=body)
    assert found.status_code == 404
    assert message in found.json()["error"]


def test_a_task_that_no_model_has_is_404(serve):
    found = serve().post("/v1/classify", json={"inputs": "a"})
    assert found.status_code == 404
    assert "no model of this server supports /v1/classify" in found.json()["error"]


def test_health_and_readiness(serve):
    client = serve()
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    client.app.state.service.ready = False
    found = client.get("/ready")
    assert found.status_code == 503
    assert client.get("/health").status_code == 200


def test_a_thread_that_has_ended_is_no_secret(serve, monkeypatch):
    client = serve()
    monkeypatch.setattr(type(client.model.batcher), "alive", False)
    assert client.get("/health").status_code == 503
    assert client.get("/ready").status_code == 503


def test_metrics_count_requests_texts_and_batches(serve):
    client = serve()
    client.post("/v1/embed", json={"inputs": ["a cat", "cat"]})
    client.post("/v1/embed", json={"inputs": []})
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'bothways_requests_total{model="fake",route="/v1/embed",status="200"} 1.0' in text
    assert 'bothways_requests_total{model="",route="/v1/embed",status="422"} 1.0' in text
    assert 'bothways_requests_total{model="",route="other",status="404"} 1.0' in text
    assert 'bothways_texts_total{model="fake"} 2.0' in text
    assert 'bothways_tokens_total{model="fake"} 7.0' in text
    assert 'bothways_request_seconds_count{model="fake",route="/v1/embed"} 1.0' in text
    assert 'bothways_queue_texts{model="fake"} 0.0' in text


def test_numbers_that_mean_nothing_are_an_error_and_no_answer(serve, monkeypatch):
    client = serve()
    run = client.model.predictor.engine.run
    monkeypatch.setattr(client.model.predictor.engine, "run", lambda batch: run(batch) * float("nan"))
    found = client.post("/v1/embed", json={"inputs": "a cat"})
    assert found.status_code == 500
    assert "the model gave NaN or infinite numbers" in found.json()["error"]
