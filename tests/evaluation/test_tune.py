"""What wins is the fastest whose answers hold, or one about as fast with less memory; what was left out is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from bothways.data.examples import Example
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation import tune as module
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FOLDER, ExportRecord, OnnxModelRecord
from bothways.inference.plan import Plan, read_tuned, tuned_records
from bothways.model.config import EncoderConfig
from bothways.progress import Reporter
from bothways.tasks.classify import Classify, LabelPrediction
from bothways.text.tokenizer import Tokenizer

EXAMPLES = [Example((f"text {number}",)) for number in range(4)]
MB = 10**6


class Heard(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def model_directory(tmp_path) -> ModelDirectory:
    (tmp_path / FOLDER).mkdir()
    onnx_models = {"fp32": OnnxModelRecord("f"), "int8": OnnxModelRecord("i")}
    ExportRecord(tmp_path, "classify", 2, "c", "w", 5, onnx_models).write()  # type: ignore[arg-type]
    task = Classify(labels=("bad", "good"))
    return ModelDirectory(tmp_path, EncoderConfig(), task, Tokenizer.packaged("bert-base-uncased"))


def measured(monkeypatch, figures: dict[tuple[str, str], tuple[float, int] | str], label: str = "good") -> list[Plan]:
    """Let each engine and precision have its texts a second and its memory, or an error."""
    plans: list[Plan] = []

    def run(request: dict[str, Any], examples: Any) -> dict[str, Any]:
        plan = request["plan"]
        plans.append(plan)
        found = figures.get((plan.engine, plan.precision), "not here")
        if isinstance(found, str):
            raise BothwaysError(found)
        speed, memory = found
        answer = label if plan.precision == "int8" else "good"
        predictions = [LabelPrediction(answer, 0.9, {"good": 0.9, "bad": 0.1}) for _ in examples]
        return {"predictions": predictions, "texts_per_second": speed, "memory": memory}

    monkeypatch.setattr(module, "in_process", run)
    return plans


@pytest.mark.parametrize(
    ("fp32", "winner"),
    [
        ((100.0, 200 * MB), "int8"),
        ((196.0, 200 * MB), "int8"),  # about as fast, and no smaller
        ((196.0, 50 * MB), "fp32"),  # about as fast, and much smaller
        ((150.0, 50 * MB), "int8"),
        ((250.0, 900 * MB), "fp32"),
    ],
)
def test_the_fastest_wins_or_one_about_as_fast_with_less_memory(model_directory, monkeypatch, fp32, winner):
    measured(monkeypatch, {("onnxruntime", "fp32"): fp32, ("onnxruntime", "int8"): (200.0, 200 * MB)})
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert trials[0].plan.precision == winner
    key = tuned_key(model_directory.task)
    assert read_tuned(model_directory.path, key) == trials[0].plan
    record = tuned_records(model_directory.path)[key]
    assert record.items() >= tuned_with(ExportRecord.read(model_directory.path), trials[0].plan).items()
    assert record["onnx_model"] == {"int8": "i", "fp32": "f"}[winner]


def test_what_answers_otherwise_never_wins(model_directory, monkeypatch):
    measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB), ("onnxruntime", "int8"): (900.0, MB)}, label="bad")
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert trials[0].plan.precision == "fp32"
    assert [trial.stands for trial in trials if trial.plan.precision == "int8"] == [False]


def test_forms_that_were_not_exported_are_named(model_directory, monkeypatch):
    heard = Heard()
    plans = measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB)})
    module.tune_on(model_directory, EXAMPLES, heard)
    (line,) = [note for note in heard.notes if "not exported" in note]
    assert "int8-static" in line
    assert "bothways export" in line
    assert ("onnxruntime", "int8-static") not in {(plan.engine, plan.precision) for plan in plans}


def test_where_nothing_runs_the_last_reason_is_said(model_directory, monkeypatch):
    measured(monkeypatch, {})
    with pytest.raises(OptionError, match="nothing could run it; not here"):
        module.tune_on(model_directory, EXAMPLES, Heard())
    assert tuned_records(model_directory.path) == {}


def test_trials_are_shown_as_json(model_directory, monkeypatch):
    measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB)})
    for trial in module.tune_on(model_directory, EXAMPLES, Heard()):
        assert {"engine", "precision", "workers", "max_tokens"} < set(json.loads(json.dumps(trial.as_json())))


def test_a_directory_that_cannot_be_written_keeps_the_trials(model_directory, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise BothwaysError(f"{path}: no space")

    heard = Heard()
    measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB)})
    monkeypatch.setattr("bothways.inference.plan.write_text", full)
    assert module.tune_on(model_directory, EXAMPLES, heard)
    assert any("could not be remembered" in note for note in heard.notes)
