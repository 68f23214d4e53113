"""The command that serves, as a process."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from bothways.cli import run
from bothways.cli import serving as module
from tests.cli.conftest import command, process

pytest.importorskip("fastapi")


class Server:
    """A server as a process; `lines` are the records of its log."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(command(["serve", *arguments, "--port", 0]), stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)  # so that the pipe is never full
        self.reader.start()
        until = time.monotonic() + 120
        while not any(line["event"] == "listening" for line in self.lines):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < until
            time.sleep(0.05)
        self.address = next(line["address"] for line in self.lines if line["event"] == "listening")

    def read(self):
        for line in self.process.stderr:
            self.lines.append(json.loads(line))

    def get(self, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json", **headers})
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(asked, timeout=30) as found:
                    return found.status, found.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except (ConnectionResetError, urllib.error.URLError):
                assert time.monotonic() < until
                time.sleep(0.1)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(60)
        self.reader.join(60)
        return self.process.returncode


@pytest.fixture
def serving():
    """Starts servers, and kills those that a test leaves."""
    started = []

    def start(*arguments):
        started.append(Server(arguments))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        server.reader.join(60)
        server.process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_stop(serving, model, number):
    server = serving(f"films={model}", "--threads", 1)
    status, body = server.get("/v1/classify", {"inputs": ["great film", "dull film"]})
    assert status == 200
    assert [one["output"]["label"] for one in json.loads(body)["results"]] == ["good", "bad"]
    assert server.get("/ready")[0] == 200
    assert server.stop(number) == 0
    events = [line["event"] for line in server.lines]
    assert events[0] == "listening"
    assert events[-1] == "stopped"
    assert "great film" not in str(server.lines)


def test_answers_are_those_of_the_command_predict(serving, model):
    server = serving(model, "--threads", 1)
    texts = ["a great film", "cold and tired", "well"]
    found = json.loads(server.get("/v1/classify", {"inputs": texts})[1])["results"]
    expected = [json.loads(line) for line in process(["predict", model, *texts]).stdout.splitlines()]
    for one, other in zip(found, expected, strict=True):
        assert one["output"]["label"] == other["label"]
        assert one["output"]["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_token_of_a_file(serving, model, tmp_path):
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    server = serving(f"films={model}", "--token-file", tmp_path / "token", "--threads", 1)
    assert server.get("/v1/models")[0] == 401
    token = {"Authorization": "Bearer a-token-of-some-length"}
    assert server.get("/v1/models", **token)[0] == 200
    assert server.get("/v1/models/films/reload", {}, **token)[0] == 200
    assert "a-token-of-some-length" not in str(server.lines)


def test_several_processes_share_a_port_and_their_metrics(serving, model):
    server = serving(f"films={model}", "--workers", 2, "--threads", 2)
    for _ in range(8):
        assert server.get("/v1/classify", {"inputs": "great film"})[0] == 200
    text = server.get("/metrics")[1]
    counted = re.findall(r'bothways_requests_total\{model="films",route="/v1/classify",status="200"\} ([\d.]+)', text)
    assert [float(one) for one in counted] == [8.0]
    server.process.send_signal(signal.SIGHUP)  # each is replaced by one with its models read again
    begin, until = time.time(), time.monotonic() + 100
    while any(json.loads(server.get("/v1/models/films")[1])["created"] < begin for _ in range(8)):
        assert time.monotonic() < until
        assert server.get("/v1/classify", {"inputs": "great film"})[0] == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-model"], "no model 'no-such-model': not a directory here"),
        (["a=x", "a=y"], "two models are called 'a'"),
        (["x", "--host", "0.0.0.0"], "there is no token"),
        (["x", "--timeout", "-1"], "timeout is -1"),
        (["x", "--token-file", "no-such-file"], "--token-file no-such-file: cannot be read"),
        (["no-such-model", "--workers", "2"], "no model 'no-such-model'"),
    ],
)
def test_mistakes_are_one_line(capfd, arguments, message):
    assert run(["serve", *arguments, "--offline", "--port", "0"]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_port_that_is_taken(capfd, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", str(model), "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is taken by another program" in capfd.readouterr().err


def test_without_the_extra_one_line_tells_how_to_install_it(capfd, monkeypatch):
    monkeypatch.setattr(module, "NEEDED", ("fastapi", "no_such_module"))
    assert run(["serve", "x"]) == 2
    assert capfd.readouterr().err == (
        "error: bothways serve needs FastAPI and uvicorn: pip install 'bothways[serve]'\n"
    )


def test_the_command_line_is_there_without_the_extra():
    code = (
        "import sys\n"
        "for name in ('fastapi', 'uvicorn', 'starlette', 'prometheus_client'): sys.modules[name] = None\n"
        "import bothways, bothways.cli\n"
        "sys.exit(bothways.cli.run(['serve', '--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--token-file" in done.stdout
