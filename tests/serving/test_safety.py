"""Who may use a server, and what a browser may do with its answers."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from starlette.websockets import WebSocketDisconnect

from bothways.errors import OptionError
from bothways.serving.app import Access
from bothways.serving.guard import LOCAL_HOSTS
from bothways.serving.server import access_for, bound_socket, is_local, read_token

TOKEN = "a-token-of-some-length"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = [
    "<script>alert(1)</script>\"'>",
    "<img src=x onerror=alert(1)>",
    "</textarea><svg onload=alert(1)>",
    "\x00\x1b[2J",
]


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/v1/nothing"])
@pytest.mark.parametrize(
    "given", [{}, {"Authorization": TOKEN}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}]
)
def test_what_needs_the_token(serve, path, given):
    found = serve(access=Access(TOKEN)).get(path, headers=given)
    assert found.status_code == 401
    assert found.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in found.json()["error"]


def test_a_body_without_the_token_is_not_read(serve):
    client = serve(access=Access(TOKEN))

    def body():
        raise AssertionError("the body was read")
        yield b""

    assert client.post("/v1/embed", content=body()).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens(serve, scheme):
    client = serve(access=Access(TOKEN))
    found = client.post("/v1/embed", json={"inputs": "a"}, headers={"Authorization": f"{scheme} {TOKEN}"})
    assert found.status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/ready", "/page/app.js", "/page/style.css"])
def test_what_needs_no_token(serve, path):
    assert serve(access=Access(TOKEN)).get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/models", "/nothing", "/page/app.js"])
def test_headers_of_every_answer(serve, path):
    headers = serve().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_come_back_as_json_only(client, text):
    found = client.post("/v1/zero-shot", json={"inputs": text, "candidate_labels": [text, "b"]})
    assert found.headers["content-type"] == "application/json"
    assert found.json()["results"][0]["output"]["sequence"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_path_or_name_does_not_come_back(serve, text):
    client = serve()
    for found in (client.get(f"/{quote(text)}"), client.post("/v1/embed", json={"inputs": "a", "model": text})):
        assert found.status_code in (404, 422)
        assert text not in found.text


def test_cors_is_off_and_can_be_allowed_for_a_site(serve):
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    closed = serve()
    assert closed.options("/v1/embed", headers=asked).status_code == 405
    assert "access-control-allow-origin" not in closed.get("/v1/models", headers=asked).headers
    opened = serve(access=Access(origins=("https://example.org",)))
    found = opened.options("/v1/embed", headers=asked)
    assert found.headers["access-control-allow-origin"] == "https://example.org"
    other = opened.options("/v1/embed", headers=asked | {"Origin": "https://other.org"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example", 403), ("", 403)],
)
def test_the_host_header_must_name_this_server(serve, host, status):
    """Else the page of a site whose name was made to mean 127.0.0.1 could read answers."""
    client = serve(access=Access(hosts=LOCAL_HOSTS))
    found = client.get("/v1/models", headers={"Host": host})
    assert found.status_code == status
    if status == 403:
        assert "--allow-host" in found.json()["error"]


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 64])
def test_a_request_id_of_the_client_is_kept(serve, given):
    assert serve().get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["x" * 65, "a b", 'a"b', ""])
def test_a_request_id_that_is_none_is_replaced(serve, given):
    assert len(serve().get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]) == 32


def test_a_log_line_of_a_request(serve, caplog):
    caplog.set_level(logging.INFO)
    serve().post("/v1/embed", json={"inputs": ["a cat", "cat"]}, headers={"X-Request-ID": "mine"})
    record = next(record for record in caplog.records if record.message == "request")
    assert record.fields.pop("ms") >= 0
    assert record.fields == {
        "request_id": "mine",
        "method": "POST",
        "route": "/v1/embed",
        "status": 200,
        "client": "testclient",
        "model": "fake",
        "texts": 2,
        "tokens": 7,
    }


def test_probes_are_logged_only_if_wanted(serve, caplog):
    client = serve()
    for level, count in (("INFO", 0), ("DEBUG", 2)):
        caplog.clear()
        with caplog.at_level(level):
            client.get("/ready")
            client.get("/metrics")
        assert len([record for record in caplog.records if record.message == "request"]) == count


def test_websockets_are_refused(serve):
    with pytest.raises(WebSocketDisconnect), serve().websocket_connect("/v1/embed"):
        pass


def test_reload_needs_a_token(serve):
    found = serve().post("/v1/models/fake/reload")
    assert found.status_code == 403
    assert "--token-file" in found.json()["error"]
    several = serve(access=Access(TOKEN, reload=False)).post("/v1/models/fake/reload", headers=WITH_TOKEN)
    assert several.status_code == 403


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_addresses_are_local(host, local):
    assert is_local(host) == local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_a_public_address_needs_a_token_or_to_be_told_twice(tmp_path, host):
    with pytest.raises(OptionError, match="can be reached from other machines, and there is no token"):
        access_for(host, token_file=None, without_token=False)
    assert access_for(host, token_file=None, without_token=True).token is None
    (tmp_path / "token").write_text(TOKEN)
    assert access_for(host, token_file=tmp_path / "token", without_token=False).token == TOKEN


def test_a_local_server_takes_its_own_names_only():
    assert access_for("127.0.0.1", token_file=None, without_token=False).hosts == LOCAL_HOSTS
    more = access_for("127.0.0.1", token_file=None, without_token=False, allow_hosts=["Demo.example"])
    assert more.hosts == LOCAL_HOSTS | {"demo.example"}


@pytest.mark.parametrize("text", ["", "short", "two words of some length", "ünicode-token-of-some-length"])
def test_a_file_without_a_good_token_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match="expected one token of at least 16 characters"):
        read_token(tmp_path / "token")


def test_a_token_file_that_is_not_there(tmp_path):
    with pytest.raises(OptionError, match=r"nothing: cannot be read"):
        read_token(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    with pytest.raises(OptionError, match=r"binary: cannot be read"):
        read_token(tmp_path / "binary")


@pytest.mark.parametrize("origin", ["example.org", "*", "https://example.org/"])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(OptionError, match="expected scheme and host"):
        access_for("127.0.0.1", token_file=None, without_token=False, allow_origins=[origin])


def test_a_port_that_is_taken():
    with bound_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} of 127.0.0.1 is taken by another program"):
            bound_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "1.2.3.4.5"])
def test_a_host_that_is_none(host):
    with pytest.raises(OptionError, match="not an address of this machine"):
        bound_socket(host, 0)


def test_an_address_of_another_machine():
    with pytest.raises(OptionError, match=r"cannot listen at 192\.0\.2\.7"):
        bound_socket("192.0.2.7", 0)
