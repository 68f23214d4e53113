"""ONNX models are run as they were checked: which engine runs, what it answers, what is said when it cannot."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bothways
from bothways.batch import make_batch
from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.errors import BothwaysError, CheckpointError, DataError, MissingDependencyError, OptionError
from bothways.evaluation import accuracy_check
from bothways.evaluation.accuracy_check import check_accuracy
from bothways.evaluation.measure import in_process
from bothways.evaluation.tune import MARGIN
from bothways.hardware import cores, processor
from bothways.inference import choice as engines
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.engines import openvino
from bothways.inference.engines.onnxruntime import MAX_SESSIONS
from bothways.inference.engines.sessions import Sessions
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import EXPORT, FILES, FOLDER, ExportRecord, OnnxModelRecord
from bothways.inference.plan import Plan, read_tuned, write_tuned
from bothways.inference.plan_files import files_of, onnx_precision_of
from bothways.inference.predictor import Predictor, load
from bothways.jobs.info import describe_model
from bothways.model.checkpoint import read_safetensors, write_safetensors
from bothways.progress import Reporter
from bothways.tasks.classify import Classify
from tests.tiny import BAD, GOOD, ROWS, write_base, write_trained

TEXTS = [*GOOD, *BAD, " ".join(GOOD) * 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    run = write_trained(folder)
    for precision in ("fp32", "int8-static"):
        bothways.export(run, precision=precision, calibrate=ROWS)
    return run


@pytest.fixture
def copy(model, tmp_path) -> Path:
    shutil.copytree(model, tmp_path / "copy")
    return tmp_path / "copy"


class Heard(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def scores(predictor: Predictor, texts: list[str] = TEXTS) -> np.ndarray:
    return np.array([[one.scores[label] for label in predictor.task.labels] for one in predictor(texts)])


# Largest difference of a probability from that of PyTorch in fp32, on a model 32 numbers wide.
@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [
        ("onnxruntime", "fp32", 1e-5),
        ("onnxruntime", "int8", 0.05),
        ("onnxruntime", "int8-static", 0.1),
        ("openvino", "fp32", 1e-5),
        ("openvino", "bf16", 0.05),
        ("openvino", "int8-static", 0.1),
        ("torch", "bf16", 0.05),
    ],
)
def test_every_engine_answers_as_pytorch_in_fp32(model, engine, precision, tolerance):
    if engine == "openvino" and openvino.why_no_openvino() is not None:
        pytest.skip(openvino.why_no_openvino())
    reference = load(model, engine="torch", precision="fp32")
    plan = Plan(engine, precision, 2, 512)
    examples = [reference.task.example(text) for text in TEXTS]
    if engine == "openvino":  # in a separate process, as it has died in some
        predictions = in_process({"model": str(model), "plan": plan}, examples)["predictions"]
    else:
        other = load(model, plan=plan)
        assert f", {precision}, " in other.engine.describe()
        predictions = other.predict_examples(examples)
    found = np.array([[one.scores[label] for label in reference.task.labels] for one in predictions])
    assert np.abs(found - scores(reference)).max() <= tolerance


def test_the_int8_onnx_model_runs_where_nothing_is_asked_for(model):
    assert "int8" in load(model).engine.describe()
    assert "ONNX Runtime" in load(model).engine.describe()


def test_long_windows_run_in_openvino_where_its_model_is_accepted_and_it_is_faster(copy, monkeypatch):
    def engine_of(**wishes: str) -> str:
        return load(copy, **wishes).engine.describe()

    monkeypatch.setattr(engines, "openvino_is_faster", lambda: True)
    assert re.fullmatch(r"ONNX Runtime .*, int8, .*; from 128 tokens openvino int8-static, .*", engine_of())
    assert "openvino" not in engine_of(precision="int8") + engine_of(engine="onnxruntime")
    monkeypatch.setattr(engines, "LARGE", 1)
    assert re.fullmatch("OpenVINO .*, int8-static, [^;]*", engine_of())
    monkeypatch.setattr(engines, "openvino_is_faster", lambda: False)
    assert "openvino" not in engine_of()
    monkeypatch.setattr(engines, "openvino_is_faster", lambda: True)
    record = json.loads((copy / FOLDER / EXPORT).read_text())
    record["models"]["int8-static"]["rejected"] = "it was bad"
    (copy / FOLDER / EXPORT).write_text(json.dumps(record))
    assert "openvino" not in engine_of()


@pytest.mark.parametrize(
    ("bf16", "reason", "faster"), [(True, None, True), (True, "died", False), (False, None, False)]
)
def test_openvino_is_faster_where_it_runs_and_the_processor_has_bf16(monkeypatch, bf16, reason, faster):
    monkeypatch.setattr(engines, "multiplies_bf16", lambda: bf16)
    monkeypatch.setattr(engines, "why_no_openvino", lambda: reason)
    assert engines.openvino_is_faster() is faster


def test_fine_tuned_on_long_texts_or_large_the_model_for_openvino_is_exported_too(copy, monkeypatch):
    model_directory, exported = ModelDirectory.read(copy), {}
    examples = model_directory.task.read(ROWS, Columns())
    for longest, large in ((1, 10**9), (10**9, 1), (10**9, 10**9)):  # half of the tokens are in such windows, or not
        for faster in (True, False):
            shutil.rmtree(copy / FOLDER)
            monkeypatch.setattr(accuracy_check, "UNBATCHED_FROM", longest)
            monkeypatch.setattr(accuracy_check, "LARGE", large)
            monkeypatch.setattr(accuracy_check, "openvino_is_faster", lambda faster=faster: faster)
            assert accuracy_check.export_accepted(model_directory, examples, Reporter(quiet=True)).startswith("int8, ")
            exported[longest, large, faster] = set(ExportRecord.read(copy).models)
    assert exported.pop((1, 10**9, True)) == exported.pop((10**9, 1, True)) == {"int8", "int8-static"}
    assert all(models == {"int8"} for models in exported.values())


def test_an_int8_static_export_that_fails_leaves_the_int8_model(copy, monkeypatch):
    model_directory, heard = ModelDirectory.read(copy), Heard()
    shutil.rmtree(copy / FOLDER)
    write = accuracy_check.write_onnx_model

    def failing(directory, precision, *rest):
        if precision == "int8-static":
            raise BothwaysError("no space left")
        return write(directory, precision, *rest)

    monkeypatch.setattr(accuracy_check, "write_onnx_model", failing)
    monkeypatch.setattr(accuracy_check, "UNBATCHED_FROM", 1)
    monkeypatch.setattr(accuracy_check, "openvino_is_faster", lambda: True)
    examples = model_directory.task.read(ROWS, Columns())
    assert accuracy_check.export_accepted(model_directory, examples, heard).startswith("int8, ")
    assert "no int8-static ONNX model for OpenVINO: no space left" in heard.lines
    assert set(ExportRecord.read(copy).models) == {"int8"}


def test_fp32_answers_once_for_all_precisions_that_are_checked(copy, monkeypatch):
    opened = []
    monkeypatch.setattr(
        accuracy_check,
        "open_engine",
        lambda *given, **wishes: opened.append(wishes) or engines.open_engine(*given, **wishes),
    )
    model_directory = ModelDirectory.read(copy)
    examples = model_directory.task.read(ROWS, Columns())
    export = accuracy_check.CheckedExport(model_directory, examples, Reporter(quiet=True))
    records = [export(precision).models[precision] for precision in ("int8", "int8-static")]
    assert [record.agreement for record in records] == pytest.approx([1, 1], abs=0.1)
    assert len(opened) == 1


def relabeled(run: Path, onnx_precision: str = "int8") -> bytes:
    """The ONNX model of the same model with its two outputs swapped."""
    import onnx

    model = onnx.load(run / FOLDER / FILES[onnx_precision])
    model.graph.node.append(onnx.helper.make_node("Gather", ["logits", "swap"], ["swapped"], axis=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "swap"))
    output = model.graph.output[0].name
    model.graph.node[-1].input[0] = output
    model.graph.output[0].name = "swapped"
    return model.SerializeToString()


def replaced(path: Path, content: bytes) -> None:
    path.with_name("new").write_bytes(content)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("replace_it", [replaced, Path.write_bytes])
@pytest.mark.parametrize("onnx_precision", ["int8", "fp32"])
def test_an_onnx_model_that_is_replaced_while_it_is_served_is_not_run(copy, onnx_precision, replace_it):
    predictor = load(copy, plan=Plan("onnxruntime", onnx_precision, 2, 16))
    texts = [f"{text} {number}" for number in range(40) for text in (GOOD[0], BAD[0])]
    expected = load(copy, plan=Plan("onnxruntime", onnx_precision, 1, 16)).predict(texts)
    assert predictor.predict(GOOD[:1]) == ["good"]  # one session is open
    replace_it(copy / FOLDER / FILES[onnx_precision], relabeled(copy, onnx_precision))
    assert predictor.predict(texts) == expected
    (copy / FOLDER / FILES[onnx_precision]).unlink()
    assert predictor.predict(texts) == expected
    with pytest.raises(CheckpointError):
        load(copy, plan=Plan("onnxruntime", onnx_precision, 2, 16))


def test_weights_that_are_replaced_while_they_are_served_change_nothing(copy):
    predictor = load(copy, engine="torch", precision="fp32")
    expected = scores(predictor)
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    changed = {name: tensor + 1.0 for name, tensor in tensors.items()}
    write_safetensors(copy / "model.safetensors", changed, metadata)
    np.testing.assert_array_equal(scores(predictor), expected)


def test_a_tuned_plan_gives_way_to_what_is_asked_for_and_holds_where_it_fits(copy):
    write_tuned(copy, tuned_key(load(copy).task), Plan("onnxruntime", "fp32", 1, 77), {})
    assert load(copy, engine="onnxruntime").engine.max_tokens == 77
    assert load(copy, precision="fp32").engine.max_tokens == 77
    assert load(copy, precision="int8").engine.max_tokens != 77
    assert "PyTorch" in load(copy, engine="torch").engine.describe()


@pytest.mark.parametrize(
    ("name", "value", "measured_with"),
    [
        ("version", "1.0", "measured with another version of onnxruntime (1.0, now "),
        ("onnx_model", "0" * 64, "measured with another ONNX model, so"),
    ],
)
def test_a_plan_that_was_tuned_with_another_engine_or_onnx_model_is_not_followed(copy, name, value, measured_with):
    key, plan = tuned_key(load(copy).task), Plan("onnxruntime", "fp32", 1, 77)
    measured = tuned_with(load(copy).model_directory, ExportRecord.read(copy), plan)
    write_tuned(copy, key, plan, measured)
    assert load(copy).engine.max_tokens == 77
    write_tuned(copy, key, plan, measured | {name: value})
    heard = Heard()
    assert load(copy, reporter=heard).engine.max_tokens != 77
    (line,) = [line for line in heard.lines if measured_with in line]
    assert line.endswith(f"onnxruntime int8 is used instead; run bothways tune {copy} FILE")
    heard = Heard()
    load(copy, precision="int8", reporter=heard)  # what was asked for is used, tuned or not
    assert heard.lines == []


def test_a_plan_of_pytorch_is_of_its_weights(copy):
    plan = Plan("torch", "fp32", 1, 2048)
    measured = tuned_with(load(copy).model_directory, ExportRecord.read(copy), plan)
    assert (len(measured["weights"]), measured["onnx_model"]) == (64, None)
    write_tuned(copy, tuned_key(load(copy).task), plan, measured)
    assert "PyTorch" in load(copy).engine.describe()
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    write_safetensors(copy / "model.safetensors", {name: tensor + 1 for name, tensor in tensors.items()}, metadata)
    heard = Heard()
    load(copy, reporter=heard)
    assert any("measured with other weights" in line for line in heard.lines)


def test_a_static_plan_of_pytorch_is_of_its_weights_and_of_its_onnx_model(copy):
    export = ExportRecord.read(copy)
    plan = Plan("torch", "int8-static", 2, 384)
    assert onnx_precision_of(plan) == "int8-static"
    found = files_of(load(copy).model_directory, export, plan)
    assert found == {"onnx_model": export.models["int8-static"].sha256, "weights": export.weights}


def test_plans_of_other_processors_are_not_used_and_a_line_says_so(copy):
    key = tuned_key(load(copy).task)
    other = f"Another CPU, 9 cores{key.removeprefix(processor())}"
    write_tuned(copy, other, Plan("onnxruntime", "fp32", 1, 77), {})
    heard = Heard()
    assert ", int8, " in load(copy, reporter=heard).engine.describe()
    assert heard.lines == [
        "the tuned plans here are for other processors (Another CPU, 9 cores); onnxruntime int8 is used instead; "
        f"run bothways tune {copy} FILE"
    ]
    write_tuned(copy, key, Plan("onnxruntime", "fp32", 1, 77), {})
    heard = Heard()
    assert load(copy, reporter=heard).engine.max_tokens == 77
    assert heard.lines == []


def test_logits_that_are_not_finite_are_an_error_and_not_scores(copy):
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"].sign() * 3e38  # the sums overflow
    write_safetensors(copy / "model.safetensors", tensors, metadata)
    predictor = load(copy, engine="torch", precision="bf16")
    with pytest.raises(BothwaysError, match=r"NaN or infinite numbers in PyTorch .*, bf16, .*precision 'fp32'"):
        predictor(TEXTS)
    with pytest.raises(BothwaysError, match="NaN or infinite"):
        in_process({"model": str(copy), "plan": Plan("torch", "bf16", 1, 2048)}, [Example(("a",))])


def test_a_rejected_onnx_model_that_is_asked_for_runs_with_a_line(copy):
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    raw["models"]["int8"]["rejected"] = "its accuracy fell"
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    for asked in ({"precision": "int8"}, {"plan": Plan("onnxruntime", "int8", 1, 64)}):
        heard = Heard()
        assert ", int8, " in load(copy, reporter=heard, **asked).engine.describe()
        assert any(
            "was rejected (its accuracy fell); it is used because it was requested" in line for line in heard.lines
        )


def test_python_users_see_why_a_slower_engine_runs(copy, caplog):
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    raw["models"]["int8"]["rejected"] = "its accuracy fell"
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    with caplog.at_level("WARNING", logger="bothways"):
        load(copy)
    assert "the int8 ONNX model is not used: its accuracy fell" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": Plan("onnx", "int8", 1, 64)}, "engine 'onnx' is not one of onnxruntime, openvino, torch"),
        ({"plan": Plan("onnxruntime", "int4", 1, 64)}, "precision 'int4' is not one of"),
        ({"plan": Plan("onnxruntime", "bf16", 1, 64)}, "onnxruntime does not run bf16"),
        ({"plan": Plan("onnxruntime", "int8", 1, 64), "engine": "torch"}, "engine is 'torch', and the plan says"),
        ({"plan": Plan("onnxruntime", "int8", 1, 64), "precision": "fp32"}, "precision is 'fp32', and the plan says"),
        ({"threads": 0}, "threads is 0, expected a whole number from 1"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"threads": "2"}, "threads is '2'"),
        ({"threads": True}, "threads is True"),
        ({"device": "gpu"}, "device 'gpu' is not one of auto, cpu, cuda"),
        ({"device": "cuda", "engine": "onnxruntime"}, "device 'cuda' is for PyTorch"),
        ({"device": "cuda", "precision": "int8"}, "torch does not run int8"),
    ],
)
def test_options_that_contradict_each_other_are_refused(model, options, message):
    with pytest.raises(OptionError, match=message):
        load(model, **options)


def test_a_gpu_that_is_not_there_is_said(model):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(OptionError, match="PyTorch finds no GPU here"):
        load(model, device="cuda")
    for device in ("auto", "cpu"):
        assert "ONNX Runtime" in load(model, device=device).engine.describe()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_can_be_said(model, threads):
    engine = load(model, threads=threads, precision="int8").engine
    assert engine.workers == min(threads, cores())
    assert engine.workers * engine._threads <= max(threads, 1)
    assert load(model, threads=1, plan=Plan("onnxruntime", "int8", 4, 64)).engine.workers == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_more_threads_than_cores_are_not_started(model, engine):
    heard = Heard()
    assert load(model, engine=engine, precision="fp32", threads=10**9, reporter=heard).predict(["great film"])
    assert f"threads is 1,000,000,000, and this process may use {cores()} core(s): {cores()} are used" in heard.lines


def test_pytorch_has_the_threads_that_are_said(model):
    import torch

    before = torch.get_num_threads()
    try:
        assert "fp32, 1 threads" in load(model, engine="torch", precision="fp32", threads=1).engine.describe()
    finally:
        torch.set_num_threads(before)


def test_many_streams_share_a_few_sessions(model, monkeypatch):
    import onnxruntime

    opened: list[object] = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, *rest, **named: opened.append(path) or make(path, *rest, **named)
    )
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 64, 8))
    texts = [f"great film {number}" for number in range(300)]
    expected = load(model, plan=Plan("onnxruntime", "fp32", 1, 8)).predict(texts)
    opened.clear()
    run = predictor.engine.run
    predictor.engine.run = lambda batch: time.sleep(0.01) or run(batch)
    assert predictor.predict(texts) == expected
    assert len(opened) <= MAX_SESSIONS


def test_a_thread_that_lost_its_place_gets_it_back():
    sessions = Sessions(object, places=1, most=8)
    sessions.take()  # and an interrupt before it could be given back
    assert sessions.take() == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sessions.take)
        time.sleep(0.05)
        assert not waiting.done()
        sessions.give(0)
        assert waiting.result(timeout=5) == 0


def test_an_open_session_is_taken_while_another_is_opened():
    made: list[int] = []
    gate = threading.Event()

    def make() -> int:
        if made:
            gate.wait(10)
        made.append(1)
        return len(made)

    sessions = Sessions(make, places=2, most=8)
    first = sessions.take()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(sessions.take)
        time.sleep(0.05)
        sessions.give(first)
        assert pool.submit(sessions.take).result(timeout=5) == first
        gate.set()
        assert slow.result(timeout=5) != first


def without(monkeypatch, package: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )


def test_without_pytorch_a_stale_onnx_model_is_called_stale(copy, monkeypatch):
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    changed = {"classifier.weight": tensors["classifier.weight"] + 1.0}
    write_safetensors(copy / "model.safetensors", tensors | changed, metadata)
    without(monkeypatch, "torch")
    with pytest.raises(MissingDependencyError, match=r"belong to another model than config\.json.*needs PyTorch"):
        load(copy)


def test_a_plan_for_an_onnx_model_that_was_not_exported_names_that_onnx_model(copy):
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    del raw["models"]["int8-static"]
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="no ONNX model for onnxruntime int8-static; exported models"):
        load(copy, plan=Plan("onnxruntime", "int8-static", 2, 512))


def test_where_8_bit_products_may_saturate_fp32_comes_first(copy, monkeypatch):
    monkeypatch.setattr(engines, "multiplies_bytes", lambda: False)
    heard = Heard()
    assert ", fp32, " in load(copy, reporter=heard).engine.describe()
    assert heard.lines == []
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    raw["models"] = {"int8": raw["models"]["int8"]}
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    assert ", int8, " in load(copy, reporter=heard).engine.describe()
    assert any("not seem to support exact int8 products" in line and "--precision fp32" in line for line in heard.lines)


def test_the_trial_of_openvino_runs_nothing_of_the_current_directory(tmp_path, monkeypatch):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "openvino", "json"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w'); raise SystemExit(1)")
    before = openvino.why_no_openvino()
    assert not (tmp_path / "was-run").exists()
    assert before is None or "signal" in before
    assert (tmp_path / "cache" / "bothways" / "openvino.json").is_file()


def test_a_user_without_a_home_can_try_openvino(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(openvino, "_PROBE", "")
    assert openvino.why_no_openvino() is None or importlib.util.find_spec("openvino") is None


def test_a_trial_that_fails_for_another_reason_is_not_remembered(tmp_path, monkeypatch):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino, "_PROBE", "raise ImportError('broken for now')")
    assert "broken for now" in str(openvino.why_no_openvino())
    monkeypatch.setattr(openvino, "_PROBE", "")
    assert openvino.why_no_openvino() is None


def test_a_model_by_name_is_copied_before_it_is_exported(copy, tmp_path, monkeypatch):
    from bothways.jobs import export as jobs
    from bothways.jobs.tune import tune

    shutil.rmtree(copy / FOLDER)
    before = sorted(path.name for path in copy.iterdir())
    monkeypatch.setattr(jobs, "find_model", lambda _: copy)
    with pytest.raises(OptionError, match=r"not modified; export a copy instead: bothways export a-name --out DIR"):
        bothways.export("a-name", precision="fp32")
    with pytest.raises(OptionError, match="not modified"):
        tune("a-name", ROWS)
    bothways.export("a-name", precision="fp32", out=tmp_path / "own")
    assert ", fp32, " in load(tmp_path / "own").engine.describe()
    assert sorted(path.name for path in copy.iterdir()) == before
    with pytest.raises(OptionError, match="is there already, expected a new directory"):
        bothways.export("a-name", precision="fp32", out=tmp_path / "own")


def test_what_is_known_of_a_model(copy, tmp_path):
    write_tuned(copy, tuned_key(load(copy).task), Plan("onnxruntime", "fp32", 1, 77), {"texts_per_second": 5.0})
    known = describe_model(copy)
    assert json.loads(json.dumps(known)) == known
    assert (known["task"], known["labels"], known["settings"]["max_length"]) == ("classify", ["bad", "good"], 16)
    assert set(known["exports"]) == {"fp32", "int8", "int8-static"}
    assert known["exports"]["int8"]["value"] == 1.0
    assert known["engine"] == {"engine": "onnxruntime", "precision": "fp32", "workers": 1, "max_tokens": 77}
    assert [plan["here"] for plan in known["tuned"]] == [True]
    assert known["made"]["n_train"] == len(ROWS)
    assert known["problems"] == []
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    write_safetensors(copy / "model.safetensors", {name: tensor + 1 for name, tensor in tensors.items()}, metadata)
    assert any("belong to another model" in note for note in describe_model(copy)["notes"])
    bare = describe_model(write_base(tmp_path / "base"))
    assert bare["task"] is None
    assert "no trained head" in bare["problems"][0]


def test_streams_and_batches_change_nothing(model):
    single = load(model, plan=Plan("onnxruntime", "fp32", 1, 8))
    double = load(model, plan=Plan("onnxruntime", "fp32", 2, 4096))
    assert (single.engine.workers, double.engine.workers) == (1, 2)
    np.testing.assert_allclose(scores(single), scores(double), atol=1e-5)


def test_a_rejected_onnx_model_is_not_used_and_a_line_says_so(copy):
    record = copy / FOLDER / EXPORT
    raw = json.loads(record.read_text())
    raw["models"]["int8"]["rejected"] = "its accuracy fell"
    record.write_text(json.dumps(raw))
    heard = Heard()
    assert "fp32" in load(copy, reporter=heard).engine.describe()
    assert any("int8 ONNX model is not used: its accuracy fell" in line for line in heard.lines)
    assert ", fp32, " in load(copy, engine="onnxruntime").engine.describe()
    assert ", int8, " in load(copy, precision="int8").engine.describe()  # whoever asks for it gets it


@pytest.mark.parametrize("part", ["classifier.weight", "bert.pooler.dense.bias", "bert.embeddings.LayerNorm.weight"])
def test_onnx_models_of_other_weights_are_not_used_and_a_line_says_so(copy, part):
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    write_safetensors(copy / "model.safetensors", tensors | {part: tensors[part] + 1.0}, metadata)
    heard = Heard()
    assert "PyTorch" in load(copy, reporter=heard).engine.describe()
    assert any("belong to another model" in line and "bothways export" in line for line in heard.lines)


def test_an_onnx_model_without_weights_must_be_of_the_config(copy):
    (copy / "model.safetensors").unlink()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    with pytest.raises(CheckpointError, match=r"belong to another model than config\.json"):
        load(copy)


def test_an_onnx_model_whose_check_was_interrupted_is_not_used(copy, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "predict_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bothways.export(copy, precision="int8", calibrate=ROWS)
    monkeypatch.undo()
    heard = Heard()
    assert ", fp32, " in load(copy, reporter=heard).engine.describe()
    assert any("was not checked" in line for line in heard.lines)


def test_a_damaged_record_is_mended_by_the_command_that_its_message_names(copy):
    (copy / FOLDER / EXPORT).write_text("[]")
    with pytest.raises(CheckpointError, match="bothways export"):
        load(copy)
    bothways.export(copy, precision="int8", calibrate=ROWS)
    assert ", int8, " in load(copy).engine.describe()


def test_an_onnx_model_of_others_is_not_replaced(copy):
    (copy / FOLDER / EXPORT).unlink()
    with pytest.raises(OptionError, match="was not written by bothways"):
        bothways.export(copy, precision="fp32")


def test_there_must_be_something_to_judge_on(copy):
    with pytest.raises(DataError, match="no text that embed can process"):
        bothways.export(copy, precision="int8", calibrate=[{"text": " "}], task="embed")
    with pytest.raises(OptionError, match="uses the ONNX model of pairs"):
        bothways.export(copy, precision="int8", calibrate=ROWS, task="zero_shot")


def test_a_plan_for_one_head_is_not_followed_by_another(copy):
    write_tuned(copy, tuned_key(load(copy, task="embed").task), Plan("torch", "fp32", 1, 512), {})
    assert ", int8, " in load(copy).engine.describe()


@pytest.mark.parametrize("record", ["[]", '{"%s": {"plan": {"engine": "onnxruntime", "workers": 0}}}', "{"])
def test_a_senseless_plan_is_a_line_and_counts_as_none(copy, record):
    key = tuned_key(load(copy).task)
    (copy / FOLDER / "tuned.json").write_text(record.replace("%s", key))
    heard = Heard()
    assert ", int8, " in load(copy, reporter=heard).engine.describe()
    (line,) = heard.lines
    assert re.search(r"tuned\.json is damaged.*; onnxruntime int8 is used instead; run bothways tune", line)
    write_tuned(copy, key, Plan("onnxruntime", "fp32", 1, 64), {})
    assert ", fp32, " in load(copy).engine.describe()


def test_an_onnx_model_is_served_without_the_weights_it_was_made_of(copy):
    expected = scores(load(copy))
    (copy / "model.safetensors").unlink()
    np.testing.assert_array_equal(scores(load(copy)), expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"different"), "hash differs"),
        (Path.unlink, "not there, though export.json names it"),
    ],
)
def test_a_damaged_or_missing_onnx_model_is_said_in_one_line(copy, damage, message):
    damage(copy / FOLDER / "model_int8.onnx")
    with pytest.raises(CheckpointError, match=message) as raised:
        load(copy)
    assert "bothways export" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_record_is_said_in_one_line(copy):
    (copy / FOLDER / EXPORT).write_text('{"head": "classify"}')
    with pytest.raises(CheckpointError, match="damaged, or written by a newer bothways"):
        load(copy)


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("tensorflow", None, "engine 'tensorflow' is not one of onnxruntime, openvino, torch"),
        (None, "fp16", "precision 'fp16' is not one of"),
        ("onnxruntime", "bf16", "onnxruntime does not run bf16; it runs int8"),
        ("torch", "int8", "torch does not run int8; it runs int8-static, bf16, fp32"),
    ],
)
def test_what_no_engine_does_is_said(model, engine, precision, message):
    with pytest.raises(OptionError, match=message):
        load(model, engine=engine, precision=precision)


def test_an_onnx_model_that_was_not_exported_is_asked_for(copy):
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    del raw["models"]["int8-static"]
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    with pytest.raises(
        CheckpointError, match=r"exported models: fp32, int8 \(bothways export .* --precision int8-static"
    ):
        load(copy, precision="int8-static")


def test_without_openvino_the_extra_is_named_and_a_tuned_plan_is_replaced(copy, monkeypatch):
    monkeypatch.setattr(engines, "why_no_openvino", lambda: "OpenVINO died with signal 8 on this processor")
    with pytest.raises(MissingDependencyError, match="died with signal 8"):
        load(copy, engine="openvino")
    write_tuned(copy, tuned_key(load(copy).task), Plan("openvino", "int8-static", 2, 512), {})
    heard = Heard()
    assert "ONNX Runtime" in load(copy, reporter=heard).engine.describe()
    assert any("signal 8" in line and "a slower plan is used" in line for line in heard.lines)


def test_a_probe_that_dies_is_a_reason_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(openvino, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGFPE)")
    assert "died with signal 8" in openvino.why_no_openvino()
    monkeypatch.setattr(openvino, "_PROBE", "")
    assert "died with signal 8" in openvino.why_no_openvino()
    (remembered,) = json.loads((tmp_path / ".cache/bothways/openvino.json").read_text())
    assert processor() in remembered


def test_the_tuned_plan_of_this_processor_is_used(copy):
    write_tuned(copy, "another processor", Plan("onnxruntime", "fp32", 1, 99), {})
    assert read_tuned(copy, tuned_key(load(copy).task)) is None
    write_tuned(copy, tuned_key(load(copy).task), Plan("onnxruntime", "fp32", 1, 77), {"texts_per_second": 5.0})
    engine = load(copy).engine
    assert (engine.max_tokens, engine.workers) == (77, 1)
    assert "fp32" in engine.describe()
    (copy / FOLDER / "tuned.json").write_text("{")
    assert "int8" in load(copy).engine.describe()


def test_tuning_measures_what_there_is_and_remembers_the_winner(copy):
    trials = bothways.tune(copy, [{"text": text} for text in TEXTS])
    assert {(trial.plan.engine, trial.plan.precision) for trial in trials} >= {
        ("onnxruntime", "int8"),
        ("onnxruntime", "fp32"),
        ("torch", "fp32"),
    }
    assert read_tuned(copy, tuned_key(load(copy).task)) == trials[0].plan
    usable = [trial for trial in trials if trial.usable]
    fast = [trial.texts_per_second for trial in usable]
    assert fast[1:] == sorted(fast[1:], reverse=True)
    assert fast[0] >= (1 - MARGIN) * max(fast)
    assert all(0 < trial.milliseconds < 1000 * trial.cold_start < 60_000 for trial in usable)
    assert all(trial.memory > 10**7 for trial in usable)
    assert load(copy).engine.max_tokens == trials[0].plan.max_tokens


class OneTrial:
    """Stands for `tune_on`: what would be measured is kept."""

    def __init__(self, monkeypatch) -> None:
        self.exported: list[str] = []
        monkeypatch.setattr("bothways.jobs.tune.tune_on", self)

    def __call__(self, model_directory, *_: object, **__: object) -> list:
        export = ExportRecord.read(model_directory.path)
        self.exported = [] if export is None else [name for name, one in export.models.items() if one.rejected is None]
        return []


def test_tuning_exports_what_is_missing_calibrated_with_the_texts(copy, monkeypatch):
    seen, heard = OneTrial(monkeypatch), Heard()
    shutil.rmtree(copy / FOLDER)
    bothways.tune(copy, ROWS, reporter=heard)
    assert set(seen.exported) == {"fp32", "int8", "int8-static"}
    (line,) = [line for line in heard.lines if "exported to be measured" in line]
    assert re.search(r"onnx/model\.onnx \(fp32, [\d.]+ MB\), onnx/model_int8\.onnx \(int8, .*int8-static", line)
    export = ExportRecord.read(copy)
    assert export.models["int8-static"].examples == len(ROWS)
    heard = Heard()
    bothways.tune(copy, ROWS, reporter=heard)
    assert heard.lines == []


def test_tuning_without_export_measures_what_is_there(copy, monkeypatch):
    seen, heard = OneTrial(monkeypatch), Heard()
    shutil.rmtree(copy / FOLDER)
    bothways.tune(copy, ROWS, export=False, reporter=heard)
    assert seen.exported == []
    assert not (copy / FOLDER).exists()
    (line,) = heard.lines
    assert line.startswith("not exported, so not measured: fp32, int8, int8-static (bothways export")


def test_tuning_without_pytorch_says_so_in_one_line(copy, monkeypatch):
    seen, heard = OneTrial(monkeypatch), Heard()
    raw = json.loads((copy / FOLDER / EXPORT).read_text())
    del raw["models"]["int8"], raw["models"]["int8-static"]
    (copy / FOLDER / EXPORT).write_text(json.dumps(raw))
    monkeypatch.setattr("bothways.inference.onnx.export.importlib.util.find_spec", lambda _: None)
    bothways.tune(copy, ROWS, reporter=heard)
    assert seen.exported == ["fp32"]
    (line,) = heard.lines
    assert re.match("not exported, so not measured: int8, int8-static .*needs torch, which is not installed", line)


def test_tuning_does_not_replace_the_onnx_models_of_another_task(copy, monkeypatch):
    seen, heard = OneTrial(monkeypatch), Heard()
    bothways.tune(copy, [{"text": text} for text in TEXTS], task="embed", reporter=heard)
    assert set(seen.exported) == {"fp32", "int8", "int8-static"}  # of the head classify still
    assert any("would replace the ONNX models of the head 'classify'" in line for line in heard.lines)


def test_a_goal_of_tuning_is_one_of_two(copy):
    with pytest.raises(OptionError, match="goal is 'size', expected one of throughput, latency"):
        bothways.tune(copy, ROWS, goal="size")


def test_int8_needs_texts_to_be_checked_on(model):
    with pytest.raises(OptionError, match="give --calibrate FILE"):
        bothways.export(model, precision="int8")


def test_onnx_models_of_another_head_are_not_used(copy):
    heard = Heard()
    assert "PyTorch" in load(copy, task="embed", reporter=heard).engine.describe()
    assert any("have the head 'classify'" in line and "--task embed" in line for line in heard.lines)


def said(labels: str, scores_: float = 0.9):
    from bothways.tasks.classify import LabelPrediction

    return [LabelPrediction("good" if one == "g" else "bad", scores_, {"good": 0.5, "bad": 0.5}) for one in labels]


@pytest.mark.parametrize(
    ("predicted", "rejected"),
    [
        ("g" * 50 + "b" * 50, None),
        ("g" * 49 + "b" * 51, None),  # one answer's worth is chance
        ("g" * 48 + "b" * 52, "a drop of more than 0.5 points"),
        ("b" * 50 + "g" * 50, "0.0 % of its answers agree with fp32"),
    ],
)
def test_the_accuracy_check_lets_through_what_answers_as_well(predicted, rejected):
    task = Classify(labels=("bad", "good"))
    references = ["good"] * 50 + ["bad"] * 50
    examples = [Example((str(number),), reference) for number, reference in enumerate(references)]
    onnx_model = check_accuracy(OnnxModelRecord("hash"), task, examples, said("g" * 50 + "b" * 50), said(predicted))
    assert (onnx_model.rejected is None) == (rejected is None)
    if rejected is not None:
        assert rejected in onnx_model.rejected
    assert onnx_model.reference == 1.0
    assert (
        check_accuracy(OnnxModelRecord("hash"), task, examples, said("g" * 100), said(predicted), max_drop=1.0).rejected
        is None
    )
    without = [replace(example, reference=None) for example in examples]
    assert check_accuracy(OnnxModelRecord("hash"), task, without, said("gb"), said("gb")).metric is None


def test_identical_texts_are_computed_once_and_answered_in_order(model):
    predictor = load(model, precision="fp32")
    counted: list[int] = []
    engine = predictor.engine
    run = engine.run
    engine.run = lambda batch: counted.append(len(batch.lengths)) or run(batch)
    texts = ["great film", "dull film", "great film", "", "great film", "a joy to watch"]
    found = predictor(texts)
    assert sum(counted) == 3
    assert found[0] == found[2] == found[4]
    assert found[3].error is not None
    assert [one.label for one in found if one.error is None] == [one.label for one in predictor(texts) if not one.error]


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_what_is_encoded_first_changes_no_answer(model, monkeypatch, ahead):
    """Texts of several windows among them, and batches of both parts."""
    from bothways.inference import predictor as module

    texts = [*TEXTS, " ".join(GOOD * 4), "dull", " ".join(BAD * 9)]
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 24))
    alone = np.concatenate([scores(predictor, [text]) for text in texts])
    monkeypatch.setattr(module, "AHEAD", ahead)
    np.testing.assert_allclose(scores(predictor, texts), alone, atol=1e-5)


# The first batches of two threads at the same moment, in a process that switches between them as often as it can.
FIRST_BATCHES = """
import sys, threading
from bothways.batch import make_batch
from bothways.inference.predictor import load
from bothways.inference.engines import openvino
from bothways.inference.plan import Plan
sys.setswitchinterval(1e-6)
predictor = load(sys.argv[1], plan=Plan("openvino", "fp32", 2, 512))
batch = make_batch(predictor.task.encode([predictor.task.example("great film")], predictor.tokenizer))
together, inputs = threading.Barrier(2), openvino.onnx_inputs(batch, 0)
openvino.onnx_inputs = lambda *_: (together.wait(), inputs)[1]
threads = [threading.Thread(target=predictor.engine.run, args=(batch,)) for _ in range(2)]
for thread in threads:
    thread.start()
"""


def test_two_threads_may_begin_with_openvino_at_once(model):
    if openvino.why_no_openvino() is not None:
        pytest.skip(openvino.why_no_openvino())
    for _ in range(5):
        subprocess.run([sys.executable, "-c", FIRST_BATCHES, str(model)], check=True, timeout=60)


# Answers in batches of many sizes, twice: the shapes of some are made larger, to those that are there.
MANY_SHAPES = """
import sys
import numpy as np
from bothways.batch import make_batch
from bothways.inference.predictor import load
from bothways.inference.plan import Plan
predictor = load(sys.argv[1], plan=Plan("openvino", "fp32", 1, 512))
texts = ["great " * count for count in range(14, 0, -1) for _ in range(5)]
windows = predictor.task.encode([predictor.task.example(text) for text in texts], predictor.tokenizer)
shapes, larger = predictor.engine._shapes.fit, []
def fit(*shape):
    found = shapes(*shape)
    larger.append(found != shape)
    return found
predictor.engine._shapes.fit = fit
alone = np.concatenate([predictor.engine.run(make_batch([window])) for window in windows])
for size in (5, 7, 11, 13, 17, 70) * 2:
    for first in range(0, len(windows), size):
        some = windows[first : first + size]
        batch = make_batch(some)
        np.testing.assert_allclose(predictor.engine.run(batch), alone[first + batch.members], atol=1e-5)
assert 9 < sum(larger) < len(larger) - 9, sum(larger)
"""


def test_shapes_that_are_reused_change_no_answer(model):
    if openvino.why_no_openvino() is not None:
        pytest.skip(openvino.why_no_openvino())
    subprocess.run([sys.executable, "-c", MANY_SHAPES, str(model)], check=True, timeout=120)


def test_a_few_texts_are_shared_out_evenly_among_the_streams(model):
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 384))
    sizes: list[int] = []
    run = predictor.engine.run
    predictor.engine.run = lambda batch: sizes.append(len(batch.ids)) or run(batch)
    predictor([f"great film {number}" for number in range(100)])
    assert len(sizes) == 2
    assert max(sizes) < 1.2 * min(sizes)
    sizes.clear()
    predictor([f"great film {number}" for number in range(10)])  # too few to be divided
    assert len(sizes) == 1


def test_one_text_opens_one_session_and_many_one_a_stream(model, monkeypatch):
    import onnxruntime

    opened: list[str] = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, *rest, **named: opened.append(path) or make(path, *rest, **named)
    )
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 8))
    run = predictor.engine.run
    predictor(["great film"])
    assert len(opened) == 1
    with ThreadPoolExecutor(4) as pool:  # more than there are streams
        batch = make_batch(predictor.task.encode([predictor.task.example("great film")], predictor.tokenizer))
        answers = list(pool.map(lambda _: run(batch), range(64)))
    assert len(opened) == 2
    assert all(np.array_equal(one, answers[0]) for one in answers)


def test_a_generator_is_read_two_chunks_ahead_at_most(model, monkeypatch):
    from bothways.inference import predictor as module

    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(module, "FIRST_CHUNK", 2)
    predictor = load(model)
    read: list[int] = []
    examples = (read.append(number) or Example((f"text {number}",)) for number in range(100))
    stream = predictor.stream(examples)
    next(stream)
    assert len(read) <= 6
    assert len(list(stream)) == 99
    assert len(read) == 100


def test_leaving_a_stream_early_stops_the_work(model):
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 8))
    counted: list[int] = []
    run = predictor.engine.run
    predictor.engine.run = lambda batch: counted.append(1) or time.sleep(0.002) or run(batch)
    stream = predictor.stream(Example((f"text {number}",)) for number in range(4000))
    next(stream)
    stream.close()
    stopped = len(counted)
    time.sleep(0.1)
    assert len(counted) == stopped < 1000  # of about 2,000 batches; the first chunk has a quarter of them


HEAVY = ("torch", "onnx", "sklearn", "scipy", "pyarrow", "transformers", "matplotlib")


def test_a_prediction_imports_nothing_heavy_and_stays_small(model):
    code = (
        f"import sys, bothways; print(bothways.load({str(model)!r})(['great film'])[0].label); "
        "from bothways.evaluation.measure import peak_memory; "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules))); "
        "print(peak_memory() // 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    label, heavy, megabytes = done.stdout.split("\n")[:3]
    assert (label, heavy) == ("good", "[]")
    assert int(megabytes) < 150


def test_an_interrupted_prediction_ends_at_once_and_keeps_its_answers_apart(model, tmp_path):
    texts, output = tmp_path / "texts.txt", tmp_path / "answers.jsonl"
    texts.write_text("".join(f"a film of {number} parts and {number + 1} endings\n" for number in range(400_000)))
    # Whoever starts the tests may have told their processes to ignore interrupts, which a child inherits.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import bothways.cli as c; c.main()"
    command = [sys.executable, "-c", code, "predict", str(model), "--input", str(texts), "--output", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("interrupted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl.partial", "texts.txt"]


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_told_to_report_nothing_as_it_is_imported(tmp_path, given, expected):
    (tmp_path / "onnxruntime.py").write_text("import os\nseen = os.environ['ORT_DISABLE_TELEMETRY']\n")
    code = (
        "import os\n"
        "from bothways.inference.engines.onnxruntime import import_onnxruntime\n"
        "print(import_onnxruntime().seen, os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": str(tmp_path)} | ({} if given is None else {"ORT_DISABLE_TELEMETRY": given})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, str(given)]


def test_nothing_but_one_function_imports_onnx_runtime():
    root = Path(bothways.__file__).parent
    found = [
        path.name for path in root.rglob("*.py") if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.M)
    ]
    assert found == ["onnxruntime.py"]
