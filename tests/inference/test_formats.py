"""Model directories of format 1 load as those of today."""

import json
import shutil

import pytest

import bothways
from bothways.inference.formats import SETTINGS_OF_FORMAT_1
from bothways.inference.plan import read_tuned
from bothways.tasks import TASKS, Answer, Tag
from tests.tiny import write_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("formats"))


def as_format_1(content: dict) -> dict:
    old = {new: name for name, new in SETTINGS_OF_FORMAT_1.items()}
    settings = {old.get(name, name): value for name, value in content["settings"].items()}
    settings["long"] = "cut" if settings.pop("truncation") else "window"
    return content | {"format": 1, "settings": settings}


def test_a_directory_of_format_1_gives_the_same_answers(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    settings, record = copy / "bothways.json", copy / "onnx" / "export.json"
    settings.write_text(json.dumps(as_format_1(json.loads(settings.read_text()))))
    models = json.loads(record.read_text())
    record.write_text(json.dumps(models | {"format": 1, "graphs": models.pop("models")}))
    before, now = bothways.load(copy), bothways.load(trained)
    assert before.task == now.task
    assert before.engine.describe() == now.engine.describe()
    assert before(["great film"]) == now(["great film"])


@pytest.mark.parametrize(
    "task",
    [
        Tag(("O", "B-PER"), max_length=20, stride=5, aggregation_strategy="max", truncation=True),
        Answer(handle_impossible_answer=True, max_answer_len=7, align_to_words=False),
    ],
    ids=lambda task: task.name,
)
def test_settings_of_format_1_have_the_names_of_today(task):
    from bothways.inference.formats import from_format_1

    content = {"format": 2, "task": task.name, "settings": task.as_json(), "facts": {}}
    found = from_format_1(as_format_1(content))
    assert found == content
    assert TASKS[task.name](**found["settings"]) == task


def test_a_plan_with_streams_has_as_many_workers(tmp_path):
    (tmp_path / "onnx").mkdir()
    plan = {"engine": "onnxruntime", "precision": "int8", "streams": 2, "max_tokens": 384}
    (tmp_path / "onnx" / "tuned.json").write_text(json.dumps({"here": {"plan": plan}}))
    assert read_tuned(tmp_path, "here").workers == 2
