"""Which models are served, under which names; reloading."""

from __future__ import annotations

import shutil
import threading

import pytest

import bothways
from bothways.errors import CheckpointError, ModelNotFoundError, OptionError
from bothways.serving.app import Access
from bothways.serving.batcher import ClosedError
from bothways.serving.limits import Limits
from bothways.serving.models import Loading, Spec, open_model, specs_of
from tests.serving.conftest import fake_model
from tests.tiny import ROWS, write_base

TOKEN = "a-token-of-some-length"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("sentiment", "sentiment", "sentiment"),
        ("runs/7/", "7", "runs/7/"),
        ("reviews=runs/7", "reviews", "runs/7"),
        ("runs/lr=3/best", "best", "runs/lr=3/best"),
        ("hf:owner/some-model@v1", "some-model", "hf:owner/some-model@v1"),
    ],
)
def test_names(text, name, source):
    assert specs_of([text], [])[0] == Spec(name, source)


def test_tasks_of_models():
    specs = specs_of(["a=runs/1", "runs/b"], ["a=pairs", "b=fill-mask"])
    assert [spec.task for spec in specs] == ["pairs", "fill"]


@pytest.mark.parametrize(
    ("models", "tasks", "message"),
    [
        (["runs/a", "old/a"], [], "two models are called 'a'; give them names: first=DIRECTORY second=DIRECTORY"),
        (["runs/a b"], [], "'a b' cannot be the name of a model in an address; give it one: NAME=runs/a b"),
        (["runs/a"], ["b=pairs"], "--task b=pairs: expected NAME=TASK, with the name of a model: a"),
        (["runs/a"], ["pairs"], "--task pairs=: expected NAME=TASK"),
    ],
)
def test_names_that_are_wrong(models, tasks, message):
    with pytest.raises(OptionError, match=message):
        specs_of(models, tasks)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def films(tmp_path_factory, base):
    out = tmp_path_factory.mktemp("films") / "run"
    recipe = bothways.Recipe(epochs=2, batch_size=4, max_length=16, stride=4, precision="fp32")
    bothways.finetune("classify", ROWS, ROWS, base=base, out=out, recipe=recipe)
    return out


def test_an_encoder_without_a_head_is_served_for_its_vectors(base):
    served = open_model(Spec("tiny", str(base)), Loading(threads=1), Limits())
    assert served.facts()["routes"] == ["/v1/embed", "/v1/similarity", "/v1/embeddings"]
    served.batcher.close()


def test_all_sessions_are_open_when_a_model_is_ready(films):
    served = open_model(Spec("films", str(films)), Loading(threads=2, engine="onnxruntime"), Limits())
    assert None not in served.predictor.engine._sessions._made
    served.batcher.close()


def test_facts_of_a_model(films):
    served = open_model(Spec("films", str(films)), Loading(threads=1), Limits())
    facts = served.facts()
    assert facts["labels"] == ["bad", "good"]
    assert facts["max_length"] == 16
    assert facts["card"].startswith("---") or "#" in facts["card"]
    served.batcher.close()


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model 'nothing'"):
        open_model(Spec("nothing", "nothing"), Loading(offline=True), Limits())
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_model(Spec("empty", str(tmp_path / "empty")), Loading(), Limits())


def test_limits_out_of_range():
    with pytest.raises(OptionError, match="timeout is 0, expected a value from"):
        Limits(timeout=0)
    with pytest.raises(OptionError, match="expected a queue for two such requests"):
        Limits(max_texts=100, max_queue=150)


def test_reloading_reads_the_directory_again(serve, films, tmp_path):
    directory = tmp_path / "films"
    shutil.copytree(films, directory)

    def reopen(spec):
        return open_model(spec, Loading(threads=1), Limits())

    client = serve(reopen(Spec("films", str(directory))), reopen=reopen, access=Access(TOKEN))
    before = client.get("/v1/models/films", headers=WITH_TOKEN).json()
    (directory / "README.md").write_text("another card")
    found = client.post("/v1/models/films/reload", headers=WITH_TOKEN)
    assert found.status_code == 200
    assert found.json()["card"] == "another card"
    assert found.json()["version"] == before["version"]
    assert client.post("/v1/classify", json={"inputs": "great"}, headers=WITH_TOKEN).status_code == 200


def test_a_reload_that_fails_changes_nothing(serve, films, tmp_path):
    directory = tmp_path / "films"
    shutil.copytree(films, directory)

    def reopen(spec):
        return open_model(spec, Loading(threads=1), Limits())

    client = serve(reopen(Spec("films", str(directory))), reopen=reopen, access=Access(TOKEN))
    (directory / "config.json").write_text("{")
    found = client.post("/v1/models/films/reload", headers=WITH_TOKEN)
    assert found.status_code == 422
    assert "config.json" in found.json()["error"]
    assert client.post("/v1/classify", json={"inputs": "great"}, headers=WITH_TOKEN).status_code == 200


def test_reloading_under_load_loses_no_request(serve):
    client = serve(access=Access(TOKEN), reopen=lambda spec: fake_model(spec.name))
    statuses, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            statuses.append(client.post("/v1/embed", json={"inputs": ["a cat", "a"]}, headers=WITH_TOKEN).status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert client.post("/v1/models/fake/reload", headers=WITH_TOKEN).status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert len(statuses) > 20
    with pytest.raises(ClosedError):
        client.model.batcher.submit(client.model.predictor.task, [client.model.predictor.task.example("a")], int)


def test_one_reload_at_a_time(serve):
    gate = threading.Event()

    def reopen(spec):
        assert gate.wait(30)
        return fake_model(spec.name)

    client = serve(access=Access(TOKEN), reopen=reopen)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(client.post("/v1/models/fake/reload", headers=WITH_TOKEN).status_code)
    )
    thread.start()
    while "fake" not in client.models._reloading:
        pass
    second = client.post("/v1/models/fake/reload", headers=WITH_TOKEN)
    gate.set()
    thread.join()
    assert second.status_code == 409
    assert found == [200]


def test_options_are_remembered_up_to_a_number(serve):
    client = serve()
    for length in range(32, 232):
        client.post("/v1/embed", json={"inputs": "a", "max_length": 32, "stride": length % 8})
    info = client.model._pipeline.cache_info()
    assert info.currsize <= 64
    assert info.hits > 100
