"""Whatever a client sends: a plain message, the right status, and a server that goes on."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time

import pytest

from bothways.serving.app import Access
from bothways.serving.limits import Limits
from tests.serving.conftest import Live, fake_model
from tests.serving.fake import POISON

JSON = {"Content-Type": "application/json"}


def error_of(found):
    """The message of an error, which has the form of all errors."""
    body = found.json()
    assert set(body) == {"error", "request_id"}
    assert body["request_id"] == found.headers["x-request-id"]
    assert found.headers["content-type"] == "application/json"
    return body["error"]


def answers(client):
    return client.post("/v1/embed", json={"inputs": "a cat"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is not JSON"),
        (b"{", 400, "the body is not JSON"),
        (b"inputs=a", 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b'{"inputs": "\\ud800"}', 400, "the body is not JSON"),
        (b'{"inputs": NaN}', 422, "inputs"),
        (b"null", 422, "body: Input should be an object"),
        (b"[]", 422, "body: Input should be an object"),
        (b"{}", 422, "inputs: Field required"),
        (b'{"inputs": null}', 422, "inputs: found null, expected one input or a list of them"),
        (b'{"inputs": []}', 422, "inputs: List should have at least 1 item"),
        (b'{"inputs": [null]}', 422, "inputs.0: Input should be a valid string"),
        (b'{"inputs": 5}', 422, "inputs.0: Input should be a valid string"),
        (b'{"inputs": ["a", ["b"]]}', 422, "inputs.1: Input should be a valid string"),
        (b'{"inputs": {"text": "a"}}', 422, "inputs.0: Input should be a valid string"),
        (b'{"inputs": "a", "input": "b"}', 422, "input: Extra inputs are not permitted"),
        (b'{"inputs": "a", "model": 7}', 422, "model: Input should be a valid string"),
        (b'{"inputs": "a", "normalize": "perhaps"}', 422, "normalize: Input should be a valid boolean"),
        (b'{"inputs": "a", "max_length": 4}', 422, "max_length: Input should be greater than or equal to 32"),
        (b'{"inputs": "a", "max_length": 1000}', 422, "max_length: found windows of 1000"),
        (b'{"inputs": "a", "max_length": 32, "stride": 20}', 422, "expected an overlap of at most half a window"),
        (b'{"inputs": "a", "pooling": "pooler"}', 422, "pooling: Input should be 'mean', 'cls' or 'none'"),
        (b'{"inputs": " "}', 422, "input 0: the text is empty"),
    ],
)
def test_a_body_that_is_not_what_is_expected(serve, body, status, message):
    client = serve()
    found = client.post("/v1/embed", content=body, headers=JSON)
    assert found.status_code == status
    assert message in error_of(found)
    assert answers(client)


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("answer", {"inputs": {"question": "who?"}}, "inputs.0.context: Field required"),
        ("answer", {"inputs": "who?"}, "inputs.0: "),
        ("answer", {"inputs": {"question": "who?", "context": ""}}, "input 0: the context is empty"),
        ("answer", {"inputs": {"question": "who?", "context": "x"}, "doc_stride": 5000}, "doc_stride"),
        ("zero-shot", {"inputs": "a"}, "candidate_labels: Field required"),
        ("zero-shot", {"inputs": "a", "candidate_labels": []}, "candidate_labels: List should have at least 1 item"),
        ("zero-shot", {"inputs": "a", "candidate_labels": "x,y"}, "candidate_labels: Input should be a valid array"),
        ("zero-shot", {"inputs": "a", "candidate_labels": ["x", "x"]}, "a label is given twice"),
        ("zero-shot", {"inputs": "a", "candidate_labels": [" "]}, "a label is empty"),
        (
            "zero-shot",
            {"inputs": "a", "candidate_labels": [f"label {number}" for number in range(10_000)]},
            "found 10,000 candidate labels, expected at most 100",
        ),
        (
            "zero-shot",
            {"inputs": "a " * 40_000, "candidate_labels": [f"label {number}" for number in range(50)]},
            "found 4,000,000 characters to read (text x labels), expected at most 2,000,000",
        ),
        ("zero-shot", {"inputs": "a", "candidate_labels": ["x"], "hypothesis_template": "no place"}, "template"),
        ("classify", {"inputs": {"text": "a", "text_pair": "b"}}, "input 0: found "),
        ("classify", {"inputs": "a", "top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ("classify", {"inputs": "a", "top_k": 10**9}, "top_k: Input should be less than or equal to 100"),
        ("classify", {"inputs": "a", "function_to_apply": "tanh"}, "function_to_apply: Input should be 'softmax'"),
        ("tag", {"inputs": "a", "aggregation_strategy": "best"}, "aggregation_strategy: Input should be 'none'"),
        ("fill", {"inputs": "a [MASK]", "targets": []}, "targets: List should have at least 1 item"),
        ("fill", {"inputs": "[MASK] " * 10_000, "top_k": 100}, "characters to give back"),
        (
            "fill",
            {"inputs": "a [MASK]", "targets": ["\U0001f9a9"]},
            "input 0: the target '\U0001f9a9' is not a single",
        ),
        ("similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.0.sentences: List should have"),
        ("similarity", {"inputs": {"sentences": ["a"]}}, "inputs.0.source_sentence: Field required"),
        ("embed", {"inputs": ["a" * 15_000] * 2, "pooling": "none"}, "characters with a vector for each token"),
        ("tokenize", {"text": "a" * 100_001}, "expected at most 100,000 characters"),
        ("tokenize", {"text": ["a"]}, "text: Input should be a valid string"),
    ],
)
def test_what_a_route_does_not_take(client, route, body, message):
    found = client.post(f"/v1/{route}", json=body)
    assert found.status_code == 422
    assert message in error_of(found)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a"] * 11, "found 11 inputs, expected at most 10; send several requests"),
        (["a", "b" * 101], "found 101 characters in a text, expected at most 100; send parts of it"),
    ],
)
def test_limits_of_a_request(serve, inputs, message):
    client = serve(limits=Limits(max_texts=10, max_characters=100))
    found = client.post("/v1/embed", json={"inputs": inputs})
    assert found.status_code == 422
    assert message in error_of(found)


def test_a_message_shows_some_errors_of_many(client):
    found = client.post("/v1/classify", json={"inputs": [1] * 100})
    assert found.status_code == 422
    assert error_of(found).endswith("and 95 more")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_ten_megabytes_is_refused(serve, declared):
    client = serve()
    body = json.dumps({"inputs": "a" * 10_000_000}).encode()
    parts = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    found = client.post("/v1/embed", content=body if declared else parts, headers=JSON)
    assert found.status_code == 413
    assert "the body is larger than 4,194,304 bytes" in error_of(found)
    assert answers(client)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_a_body_that_is_not_said_to_be_json_is_refused(serve, kind):
    """A page of another site can send such a body without asking, and cannot send JSON."""
    client = serve()
    headers = {} if kind is None else {"Content-Type": kind}
    found = client.post("/v1/embed", content=b'{"inputs": "a"}', headers=headers)
    assert found.status_code == 415
    assert "Content-Type: application/json" in error_of(found)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/embed", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v2", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e%2fapp.py", 404),
        ("GET", "/page/__init__.py", 404),
        ("GET", "/models/fake", 405),
    ],
)
def test_a_path_that_is_not_there(serve, method, path, status):
    found = serve().request(method, path)
    assert found.status_code == status
    assert error_of(found) in ("not found", "method not allowed")


def test_a_poison_text_fails_alone_and_a_request_of_it_is_500(serve):
    client = serve()
    found = client.post("/v1/embed", json={"inputs": ["a cat", POISON]})
    assert found.status_code == 200
    assert [one["error"] for one in found.json()["results"]] == [
        None,
        "internal error: this text could not be computed",
    ]
    alone = client.post("/v1/embed", json={"inputs": POISON})
    assert alone.status_code == 500
    assert error_of(alone) == "input 0: internal error: this text could not be computed"
    assert answers(client)


def test_a_defect_of_a_route_is_500_without_details(serve, monkeypatch, caplog):
    client = serve()

    def broken():
        raise RuntimeError("secret text of a user")

    monkeypatch.setattr(client.model, "facts", broken)
    found = client.get("/v1/models/fake")
    assert found.status_code == 500
    assert error_of(found) == "internal error; the log of the server has more"
    record = next(record for record in caplog.records if record.message == "request failed")
    assert record.fields["error"] == "RuntimeError"
    assert "secret" not in str(vars(record))
    assert answers(client)


def test_logs_hold_no_texts(serve, caplog):
    caplog.set_level(logging.DEBUG)
    client = serve()
    client.post("/v1/embed", json={"inputs": ["a secret cat", POISON, ""]})
    client.post("/v1/embed", json={"inputs": ["a secret cat"], "secret": "secret"})
    client.post("/v1/embed", content=b'{"inputs": "secret', headers=JSON)
    client.get("/secret?secret=secret")
    shown = " ".join(str(vars(record)) for record in caplog.records if record.name.startswith("bothways"))
    assert "secret" not in shown
    assert POISON not in shown
    assert "'route': '/v1/embed'" in shown


def test_a_full_queue_is_429_with_retry_after(serve):
    client = serve(limits=Limits(max_texts=5, max_queue=10))
    model = client.model
    model.predictor.engine.gate.clear()
    waiting = threading.Thread(target=client.post, args=("/v1/embed",), kwargs={"json": {"inputs": ["a cat"] * 5}})
    waiting.start()
    while model.batcher.waiting < 5:
        time.sleep(0.01)
    found = client.post("/v1/embed", json={"inputs": ["a"]})
    assert found.status_code == 429
    assert error_of(found).startswith("5 texts are waiting; try again in")
    assert 1 <= int(found.headers["retry-after"]) <= 60
    model.predictor.engine.gate.set()
    waiting.join()
    assert answers(client)
    assert 'bothways_rejected_total{model="fake",reason="queue"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("seconds", [0.02, 0.2])
def test_a_deadline_is_504_and_the_request_leaves_the_queue(serve, seconds):
    client = serve()
    model = client.model
    model.predictor.engine.gate.clear()
    found = client.post("/v1/embed", json={"inputs": ["a"] * 100}, headers={"X-Request-Timeout": str(seconds)})
    assert found.status_code == 504
    assert error_of(found) == f"not computed within {seconds:g} s"
    assert model.batcher.waiting == 0
    model.predictor.engine.gate.set()
    assert answers(client)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "0"])
def test_a_deadline_that_is_none_is_400(serve, value):
    found = serve().post("/v1/embed", json={"inputs": "a"}, headers={"X-Request-Timeout": value})
    assert found.status_code == 400
    assert "X-Request-Timeout: expected seconds" in error_of(found)
    assert found.headers["content-type"] == "application/json"


def test_a_refused_deadline_leaves_nothing_in_the_queue(serve):
    client = serve()
    client.model.predictor.engine.gate.clear()
    assert client.post("/v1/embed", json={"inputs": "a"}, headers={"X-Request-Timeout": "soon"}).status_code == 400
    assert client.model.batcher.waiting == 0


def test_the_servers_own_time_limit_holds(serve):
    client = serve(limits=Limits(timeout=0.1))
    client.model.predictor.engine.gate.clear()
    found = client.post("/v1/embed", json={"inputs": "a"}, headers={"X-Request-Timeout": "1000"})
    assert found.status_code == 504
    assert error_of(found) == "not computed within 0.1 s"


def test_a_client_that_has_gone_leaves_the_queue(serve):
    client = serve()
    engine, batcher = client.model.predictor.engine, client.model.batcher
    engine.gate.clear()
    with Live(client.app) as live:
        connection = live.connect()
        connection.sendall(request_bytes(b'{"inputs": ["a cat", "a dog"]}'))
        while batcher.waiting < 2:
            time.sleep(0.01)
        connection.close()
        until = time.monotonic() + 10
        while batcher.waiting and time.monotonic() < until:
            time.sleep(0.01)
        assert batcher.waiting == 0
        engine.gate.set()
    assert 'reason="gone"} 1.0' in client.get("/metrics").text


def request_bytes(body, length=None):
    head = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def drip(connection, part):
    """Send a little, again and again."""
    for _ in range(100):
        connection.sendall(part)
        time.sleep(0.1)


def answer_of(connection):
    """All that a server sends until it closes the connection."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),  # nothing at all
        (b"POST /v1/emb", b""),  # a part of a header
        (request_bytes(b'{"inp', 100), b"408"),  # a part of a body
    ],
)
def test_a_slow_client_is_not_waited_for(serve, sent, expected):
    limits = Limits(read_timeout=0.5)
    client = serve(limits=limits)
    with Live(client.app, limits) as live, live.connect() as connection:
        begin = time.monotonic()
        connection.sendall(sent)
        found = answer_of(connection)
        assert expected in found
        assert bool(found) == bool(expected)
        assert 0.3 < time.monotonic() - begin < 10
        assert answers(client)


def test_a_client_that_sends_drop_by_drop_is_not_waited_for(serve):
    limits = Limits(read_timeout=0.6)
    client = serve(limits=limits)
    with Live(client.app, limits) as live, live.connect() as connection:
        begin = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            drip(connection, b"X")
        assert time.monotonic() - begin < 8


def test_a_kept_connection_does_not_stay_for_blank_lines(serve):
    limits = Limits(read_timeout=0.6)
    client = serve(limits=limits)
    with Live(client.app, limits) as live, live.connect() as connection:
        connection.sendall(request_bytes(b'{"inputs": "a"}'))
        assert b"200 OK" in connection.recv(65_536)
        begin = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            drip(connection, b"\r\n")
        assert time.monotonic() - begin < 8


def test_a_client_that_does_not_read_is_not_waited_for(serve):
    limits = Limits(read_timeout=0.5, max_texts=1000, max_queue=4000)
    client = serve(limits=limits)
    body = json.dumps({"inputs": ["a cat sat on a mat"] * 900}).encode()
    with Live(client.app, limits) as live, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", live.port))
        for _ in range(60):
            connection.sendall(request_bytes(body))
            if live.server.server_state.connections and any(
                one.flow.write_paused for one in live.server.server_state.connections
            ):
                break
            time.sleep(0.1)
        until = time.monotonic() + 20
        while live.server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not live.server.server_state.connections


def test_too_many_connections_are_refused_and_the_rest_is_served(serve):
    limits = Limits(max_connections=5)
    client = serve(limits=limits)
    with Live(client.app, limits) as live:
        held = [live.connect() for _ in range(4)]
        time.sleep(0.2)
        with live.connect() as connection:
            connection.sendall(request_bytes(b'{"inputs": "a"}'))
            assert b"503" in answer_of(connection)
        for one in held[1:]:
            one.close()
        time.sleep(0.2)
        held[0].sendall(request_bytes(b'{"inputs": "a"}'))
        assert b"200 OK" in held[0].recv(65_536)
        held[0].close()


def test_bytes_that_are_not_http_are_refused(serve):
    client = serve()
    with Live(client.app) as live, live.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b"400" in answer_of(connection)
        assert answers(client)


def test_stopping_finishes_requests_in_flight(serve):
    client = serve(fake_model("other"))
    engine, batcher = client.model.predictor.engine, client.model.batcher
    engine.gate.clear()
    with Live(client.app) as live:
        connection = live.connect()
        connection.sendall(request_bytes(b'{"inputs": "a cat"}'))
        while not batcher.waiting:
            time.sleep(0.01)
        live.stop()
        time.sleep(0.3)
        with pytest.raises(OSError, match=r"refused|reset"):
            live.connect().recv(1)
        engine.gate.set()
        assert b"200 OK" in answer_of(connection)
        connection.close()


def test_a_token_is_not_shown():
    assert "secret" not in repr(Access("secret"))
