"""Of what is about as fast as the fastest, what needs much less memory wins; each length has its own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bothways.data.examples import Example
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation import tune as module
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FOLDER, ExportRecord, OnnxModelRecord, shape_of
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
    ExportRecord(tmp_path, "classify", 2, shape_of(EncoderConfig()), "w", 5, onnx_models).write()  # type: ignore[arg-type]
    task = Classify(labels=("bad", "good"))
    return ModelDirectory(tmp_path, EncoderConfig(), task, Tokenizer.packaged("bert-base-uncased"))


def measured(monkeypatch, figures: dict[Any, Any], label: str = "good", ran_as: str = "") -> list[Plan]:
    """Let each engine and precision, or plan, have its texts a second and its memory, or an error.

    Texts a second are of all texts or, as a list, of short and of long ones; one text alone takes a second, or as long
    as a third figure says.
    """
    plans: list[Plan] = []

    def run(request: dict[str, Any], examples: Any) -> dict[str, Any]:
        plan = request["plan"]
        plans.append(plan)
        found = figures.get(plan, figures.get((plan.engine, plan.precision), "not here"))
        if plan.long is not None and plan not in figures:  # as fast as its parts
            (short, _), memory = found
            (_, long), more = figures[plan.long.engine, plan.long.precision]
            found = [short, long], memory + more
        if isinstance(found, str):
            raise BothwaysError(found)
        speeds, memory, *alone = found
        speeds = speeds if isinstance(speeds, list) else [speeds]
        milliseconds = alone[0] if alone else 1000.0
        answer = label if plan.precision == "int8" else "good"
        predictions = [LabelPrediction(answer, 0.9, {"good": 0.9, "bad": 0.1}) for _ in examples]
        return {
            "predictions": predictions,
            "texts_per_second": len(speeds) / sum(1 / speed for speed in speeds),
            "milliseconds": milliseconds,
            "memory": memory,
            "cold_start": 0.5,
            "engine": f"an engine, {ran_as or plan.precision}, 2 workers",
            "groups": [(speed, milliseconds) for speed in speeds],
        }

    monkeypatch.setattr(module, "in_process", run)
    monkeypatch.setattr(module, "why_no_openvino", lambda: "no OpenVINO here")
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr("bothways.inference.plan.cores", lambda: 2)
    return plans


@pytest.mark.parametrize(
    ("fp32", "winner"),
    [
        ((100.0, 50 * MB), "int8"),
        ((195.0, 250 * MB), "int8"),
        ((195.0, 150 * MB), "fp32"),  # within 3 % of the fastest, and much lighter
        ((195.0, 170 * MB), "int8"),  # not much lighter
        ((193.0, 50 * MB), "int8"),
        ((205.0, 900 * MB), "int8"),  # faster, but by less than 3 %
        ((207.0, 900 * MB), "fp32"),
    ],
)
def test_of_those_within_3_percent_of_the_fastest_a_much_lighter_one_wins(model_directory, monkeypatch, fp32, winner):
    measured(monkeypatch, {("onnxruntime", "fp32"): fp32, ("onnxruntime", "int8"): (200.0, 200 * MB)})
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert trials[0].plan.precision == winner
    key = tuned_key(model_directory.task)
    assert read_tuned(model_directory.path, key) == trials[0].plan
    record = tuned_records(model_directory.path)[key]
    export = ExportRecord.read(model_directory.path)
    assert record.items() >= tuned_with(model_directory, export, trials[0].plan).items()
    assert record["onnx_model"] == {"int8": "i", "fp32": "f"}[winner]
    assert (record["memory"], record["cold_start"], record["goal"]) == (trials[0].memory, 0.5, "throughput")
    assert "long" not in record


def test_for_latency_one_text_alone_decides(model_directory, monkeypatch):
    alone = Plan("onnxruntime", "int8", 1, 384)
    plans = measured(
        monkeypatch,
        {
            ("onnxruntime", "fp32"): (900.0, MB, 9.0),
            ("onnxruntime", "int8"): (500.0, 5 * MB, 5.0),
            alone: (100.0, 5 * MB, 3.0),
        },
    )
    trials = module.tune_on(model_directory, EXAMPLES, Heard(), goal="latency")
    assert trials[0].plan == alone
    assert [trial.milliseconds for trial in trials if trial.usable] == [3.0, 5.0, 9.0, 9.0]
    assert {plan.max_tokens for plan in plans if plan.engine == "onnxruntime"} == {384}
    assert {plan.workers for plan in plans if plan.engine == "onnxruntime"} == {1, 2}
    assert tuned_records(model_directory.path)[tuned_key(model_directory.task)]["goal"] == "latency"


SHORT_AND_LONG = [Example((f"text {number}" + " on and on" * (30 * (number % 2)),)) for number in range(40)]


def test_short_and_long_texts_have_their_own_plans_where_they_differ(model_directory, monkeypatch):
    figures = {("onnxruntime", "fp32"): ([100.0, 20.0], 90 * MB), ("onnxruntime", "int8"): ([200.0, 10.0], 50 * MB)}
    plans = measured(monkeypatch, figures)
    winner, *others = module.tune_on(model_directory, SHORT_AND_LONG, Heard())
    assert winner.plan.long is not None
    assert (winner.plan.precision, winner.plan.long.precision) == ("int8", "fp32")
    assert plans[-1] == winner.plan  # it was measured as a whole, too
    assert all(trial.plan.long is None for trial in others)
    key = tuned_key(model_directory.task)
    assert read_tuned(model_directory.path, key) == winner.plan
    record = tuned_records(model_directory.path)[key]
    assert (record["onnx_model"], record["long"]["onnx_model"]) == ("i", "f")
    assert record["long"]["from_tokens"] == 64


def test_one_plan_is_remembered_where_it_is_about_as_fast_for_each_length(model_directory, monkeypatch):
    figures = {("onnxruntime", "fp32"): ([100.0, 20.0], 90 * MB), ("onnxruntime", "int8"): ([200.0, 19.5], 95 * MB)}
    measured(monkeypatch, figures)
    trials = module.tune_on(model_directory, SHORT_AND_LONG, Heard())
    assert (trials[0].plan.precision, trials[0].plan.long) == ("int8", None)


@pytest.mark.parametrize(
    ("as_one", "problem"),
    [
        ("memory is short", "memory is short"),
        (([200.0, 19.0], 90 * MB), None),
        (([90.0, 20.0], 90 * MB), None),
        (([102.0, 20.0], 90 * MB), None),
    ],
)
def test_a_plan_of_two_that_fails_or_is_slower_as_a_whole_is_not_remembered(
    model_directory, monkeypatch, as_one, problem
):
    figures: dict[Any, Any] = {
        ("onnxruntime", "fp32"): ([100.0, 20.0], 90 * MB),
        ("onnxruntime", "int8"): ([200.0, 10.0], 50 * MB),
    }
    plans = measured(monkeypatch, figures)
    assert module.tune_on(model_directory, SHORT_AND_LONG, Heard())[0].plan == plans[-1]
    figures[plans[-1]] = as_one
    trials = module.tune_on(model_directory, SHORT_AND_LONG, Heard())
    assert trials[0].plan.long is None
    assert [trial.problem for trial in trials if trial.plan.long is not None] == [problem]


def test_batch_sizes_alone_do_not_divide_a_plan(model_directory, monkeypatch):
    plans = measured(
        monkeypatch,
        {
            ("onnxruntime", "fp32"): ([100.0, 20.0], 90 * MB),
            Plan("onnxruntime", "fp32", 2, 256): ([200.0, 10.0], 90 * MB),
        },
    )
    trials = module.tune_on(model_directory, SHORT_AND_LONG, Heard())
    assert all(plan.long is None for plan in plans)
    assert trials[0].plan.max_tokens == 384


@pytest.mark.parametrize(("long", "classes"), [(15, 1), (16, 2)])
def test_a_length_class_needs_enough_texts(model_directory, long, classes):
    examples = [Example(("text " + " on and on" * 30,))] * long + [Example(("text",))] * 20
    found = module.length_classes(model_directory, examples)
    assert len(found) == classes
    assert sorted(place for each in found for place in each) == list(range(len(examples)))


def test_what_answers_otherwise_never_wins(model_directory, monkeypatch):
    measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB), ("onnxruntime", "int8"): (900.0, MB)}, label="bad")
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert trials[0].plan.precision == "fp32"
    assert [trial.usable for trial in trials if trial.plan.precision == "int8"] == [False]


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
    assert any("could not be saved" in note for note in heard.notes)


def test_onnx_models_of_another_head_are_not_measured(model_directory, monkeypatch):
    heard = Heard()
    export = ExportRecord.read(model_directory.path)
    assert export is not None
    replace(export, head="hidden").write()
    plans = measured(monkeypatch, {("torch", "fp32"): (10.0, MB)})
    module.tune_on(model_directory, EXAMPLES, heard)
    assert {plan.engine for plan in plans} == {"torch"}
    assert any("have the head 'hidden'" in note for note in heard.notes)


def test_openvino_that_does_not_run_here_is_not_tried(model_directory, monkeypatch):
    plans = measured(monkeypatch, {("onnxruntime", "fp32"): (10.0, MB)})
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert "openvino" not in {plan.engine for plan in plans}
    assert {trial.problem for trial in trials if trial.plan.engine == "openvino"} == {"no OpenVINO here"}


def test_an_engine_that_ran_another_precision_is_not_used(model_directory, monkeypatch):
    measured(monkeypatch, {("torch", "bf16"): (900.0, MB), ("onnxruntime", "fp32"): (10.0, MB)}, ran_as="fp32")
    trials = module.tune_on(model_directory, EXAMPLES, Heard())
    assert trials[0].plan.engine == "onnxruntime"
    (problem,) = [trial.problem for trial in trials if (trial.plan.engine, trial.plan.precision) == ("torch", "bf16")]
    assert problem == "not supported here: an engine, fp32, 2 workers ran instead"


def compiling(monkeypatch, figures: dict[str, Any], compiled: dict[str, Any], error: str = "") -> list[str]:
    """As `measured`, where plans of PyTorch have other figures when they are compiled; what was compiled."""
    plans, done = measured(monkeypatch, figures), []
    run = module.in_process

    def in_process(request: dict[str, Any], examples: Any) -> dict[str, Any]:
        if "compile" not in request:
            return run(request, examples)
        if error:
            raise BothwaysError(error)
        plan = request["compile"]
        figures[plan.engine, plan.precision] = compiled[plan.precision]
        done.append(plan.precision)
        return {}

    monkeypatch.setattr(module, "in_process", in_process)
    monkeypatch.setattr(module, "remove_compiled", lambda *given: done.append(f"- {given[2].precision}"))
    assert not plans
    return done


def test_layers_of_pytorch_that_come_near_the_fastest_are_compiled(model_directory, monkeypatch):
    figures = {
        ("onnxruntime", "fp32"): (100.0, MB),
        ("onnxruntime", "int8"): (200.0, MB),
        ("torch", "bf16"): (160.0, 4 * MB),
    }
    done = compiling(monkeypatch, figures, {"bf16": (230.0, 4 * MB)})
    winner, *others = module.tune_on(model_directory, EXAMPLES, Heard())
    assert (winner.plan.engine, winner.plan.precision, winner.texts_per_second) == ("torch", "bf16", 230.0)
    assert 160.0 not in [trial.texts_per_second for trial in others]
    assert done == ["bf16"]


def test_compiled_layers_that_are_slower_or_do_not_win_are_removed(model_directory, monkeypatch):
    figures = {("onnxruntime", "fp32"): (100.0, MB), ("torch", "bf16"): (90.0, 4 * MB)}
    done = compiling(monkeypatch, dict(figures), {"bf16": (80.0, 4 * MB)})
    assert 90.0 in [trial.texts_per_second for trial in module.tune_on(model_directory, EXAMPLES, Heard())]
    assert done == ["bf16", "- bf16"]
    done = compiling(monkeypatch, dict(figures), {"bf16": (95.0, 4 * MB)})
    assert module.tune_on(model_directory, EXAMPLES, Heard())[0].plan.precision == "fp32"
    assert done == ["bf16", "- bf16"]


@pytest.mark.parametrize("speed", [70.0, 90.0])
def test_what_is_slow_or_not_wanted_or_fails_is_not_compiled(model_directory, monkeypatch, speed):
    figures = {("onnxruntime", "fp32"): (100.0, MB), ("torch", "bf16"): (speed, 4 * MB)}
    done = compiling(monkeypatch, figures, {"bf16": (800.0, MB)}, error="found no C++ compiler")
    heard = Heard()
    module.tune_on(model_directory, EXAMPLES, heard, compiling=speed < 75)
    module.tune_on(model_directory, EXAMPLES, heard, goal="latency")
    assert (done, heard.notes) == ([], [])
    if speed > 75:
        module.tune_on(model_directory, EXAMPLES, heard)
        assert heard.notes == ["torch bf16, 2 x 512 tokens was not compiled: found no C++ compiler"]
