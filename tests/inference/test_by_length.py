"""Short windows are run by one engine and long ones by another, alone and among others, and the second opens late."""

import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways
from bothways.batch import NEVER, Batch
from bothways.errors import CheckpointError, OptionError
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.engines.by_length import ByLength, part_for
from bothways.inference.engines.engine import Engine
from bothways.inference.engines.openvino import why_no_openvino
from bothways.inference.onnx.record import ExportRecord
from bothways.inference.plan import Plan, write_tuned
from bothways.inference.predictor import Predictor, load
from bothways.jobs.info import describe_model
from bothways.model.checkpoint import read_safetensors, write_safetensors
from bothways.serving.batcher import Batcher
from bothways.tasks import Embed
from bothways.text.tokenizer import Tokenizer
from tests.serving.fake import TOKENIZER, FakeEngine
from tests.tiny import GOOD, ROWS, write_trained

SHORT, LONG = "great film", "a lovely story and a joy to watch again"  # 4 and 10 or more tokens
FROM = 8
DIVIDED = Plan("onnxruntime", "int8", 1, 384, long=Plan("onnxruntime", "fp32", 2, 64), from_tokens=FROM)


class Named(FakeEngine):
    """A fake that writes its number into every vector."""

    def __init__(self, number: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.number = number

    def run(self, batch: Batch) -> np.ndarray:
        return super().run(batch) * 0 + self.number


def composed(short: Engine, long: Engine) -> tuple[ByLength, list[Engine]]:
    opened: list[Engine] = []

    def open_long() -> Engine:
        opened.append(long)
        return long

    return ByLength(short, open_long, DIVIDED, other_workers=long.workers), opened


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    run = write_trained(tmp_path_factory.mktemp("by_length"))
    bothways.export(run, precision="fp32", calibrate=ROWS)
    return run


@pytest.fixture
def copy(model, tmp_path) -> Path:
    shutil.copytree(model, tmp_path / "copy")
    return tmp_path / "copy"


def test_each_length_has_its_engine_and_its_budget():
    short, long = Named(1.0, workers=1, max_tokens=40), Named(2.0, workers=2, max_tokens=12, unbatched_from=11)
    engine, opened = composed(short, long)
    predictor = Predictor(Embed(max_length=32, stride=8, pooling="mean", normalize=False), TOKENIZER, engine)
    assert engine.workers == 2
    predictor([SHORT] * 3)
    assert opened == []
    assert "onnxruntime fp32, 2 x 64" in engine.describe()
    texts = [f"{text} {number}" for number in range(9) for text in (SHORT, LONG)]
    vectors = [one.vector[0] for one in predictor(texts)]
    assert vectors == [1.0, 2.0] * 9
    assert opened == [long]
    assert "onnxruntime fp32" not in engine.describe()
    assert max(batch.lengths[0] for batch in short.batches) < FROM <= min(batch.lengths[-1] for batch in long.batches)
    assert max(len(batch.lengths) for batch in short.batches) > 1
    assert {len(batch.lengths) for batch in long.batches} == {1}  # they have 11 tokens
    assert [predictor([text])[0].vector[0] for text in texts] == vectors


def test_a_window_of_from_tokens_is_long():
    short, long = FakeEngine(), FakeEngine()
    engine, _ = composed(short, long)
    assert part_for(engine, FROM - 1) is short
    assert part_for(engine, FROM) is long


def test_after_a_fork_no_lock_of_the_parent_is_waited_for():
    engine, _ = composed(FakeEngine(workers=1), FakeEngine(workers=1))
    predictor = Predictor(Embed(max_length=32, stride=8), TOKENIZER, engine)
    predictor([SHORT, LONG])
    for sessions in engine._sessions:
        sessions._users = [-1]  # of another thread, which a fork does not copy
        sessions.process = -1
    assert len(predictor([SHORT, LONG])) == 2


# A short and a long text, then the same in a process that is forked from the one that used OpenVINO.
FORKED = """
import os, pickle, sys
from bothways.inference.plan import Plan
from bothways.inference.predictor import load
long = Plan("openvino", "fp32", 1, 384)
plan = Plan("onnxruntime", "fp32", 2, 384, long=long, from_tokens=int(sys.argv[2]))
predictor = load(sys.argv[1], plan=plan)
texts, copied = sys.argv[3:], pickle.dumps(predictor)
expected = predictor.predict(texts)
assert "OpenVINO" in predictor.engine.describe()
child = os.fork()
if not child:
    for each in (predictor, pickle.loads(copied), load(sys.argv[1], plan=plan)):
        if each.predict(texts) != expected or "2 workers" not in each.engine.describe():
            os._exit(1)
        if "OpenVINO" in each.engine.describe():
            os._exit(2)
    if predictor.engine._sessions[1]._users != [None, None]:  # as many at once as that engine has workers
        os._exit(3)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("from_tokens", [FROM, 1])
def test_after_a_fork_the_other_engine_does_the_work_of_openvino(model, from_tokens):
    if why_no_openvino() is not None:
        pytest.skip(why_no_openvino())
    command = [sys.executable, "-c", FORKED, str(model), str(from_tokens), SHORT, LONG]
    subprocess.run(command, check=True, timeout=60)


def test_an_engine_for_all_windows_opens_no_other_one():
    def open_other() -> Engine:
        raise AssertionError

    engine = ByLength(FakeEngine(), open_other, replace(DIVIDED, from_tokens=1), other_workers=1)
    engine.open()
    assert len(Predictor(Embed(max_length=32, stride=8), TOKENIZER, engine)([SHORT, LONG])) == 2
    assert "onnxruntime" not in engine.describe()


def test_the_server_batches_each_length_for_its_engine():
    short, long = Named(1.0, workers=2, max_tokens=64), Named(2.0, workers=2, max_tokens=64)
    engine, _ = composed(short, long)
    engine.open()
    task = Embed(max_length=32, stride=8, pooling="mean", normalize=False)
    predictor = Predictor(task, TOKENIZER, engine)
    batcher = Batcher(engine, TOKENIZER)
    try:
        examples = [task.example(f"{text} {number}") for number in range(20) for text in (SHORT, LONG)]
        done = threading.Event()
        work = batcher.submit(task, examples, done.set)
        assert done.wait(30)
        found = [one.vector[0] for one in work.predictions]
    finally:
        batcher.close()
    assert found == [one.vector[0] for one in predictor.predict_examples(examples)] == [1.0, 2.0] * 20
    assert max(batch.lengths[0] for batch in short.batches) < FROM <= min(batch.lengths[-1] for batch in long.batches)


def test_no_engine_computes_more_batches_at_a_time_than_it_has_workers():
    running, most, lock = 0, 0, threading.Lock()

    class Counting(FakeEngine):
        def run(self, batch: Batch) -> np.ndarray:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.01)
            with lock:
                running -= 1
            return super().run(batch)

    engine, _ = composed(FakeEngine(workers=4), Counting(workers=1, max_tokens=12))
    predictor = Predictor(Embed(max_length=32, stride=8), TOKENIZER, engine)
    assert engine.workers == 4
    predictor([f"{LONG} {number}" for number in range(12)])
    assert most == 1


def test_an_engine_that_is_not_composed_runs_all_lengths():
    engine = FakeEngine(unbatched_from=NEVER)
    assert part_for(engine, 1) is part_for(engine, 500) is engine


def scores(predictor: Predictor, texts: list[str]) -> np.ndarray:
    return predictor.predict_proba(texts)


def test_a_divided_plan_answers_as_its_parts_do(model):
    predictor = load(model, plan=DIVIDED)
    texts = [*GOOD, SHORT, LONG, LONG + " again"]
    lengths = [len(Tokenizer.from_directory(model).encode(text).ids) for text in texts]
    int8, fp32 = (scores(load(model, plan=part), texts) for part in DIVIDED.parts())
    expected = np.where((np.array(lengths) >= FROM)[:, None], fp32, int8)
    np.testing.assert_allclose(scores(predictor, texts), expected, atol=1e-6)
    about = predictor.engine.describe()
    assert "int8, 1 workers" in about
    assert f"from {FROM} tokens ONNX Runtime" in about
    other = pickle.loads(pickle.dumps(load(model, plan=DIVIDED)))
    np.testing.assert_allclose(scores(other, texts), expected, atol=1e-6)


def test_a_remembered_divided_plan_is_used_while_both_parts_hold(copy, caplog):
    key, directory = tuned_key(load(copy).task), load(copy).model_directory
    assert directory is not None
    facts = [tuned_with(directory, ExportRecord.read(copy), part) for part in DIVIDED.parts()]
    write_tuned(copy, key, DIVIDED, facts[0], facts[1])
    assert isinstance(load(copy).engine, ByLength)
    assert not isinstance(load(copy, precision="int8").engine, ByLength)
    assert describe_model(copy)["engine"]["long"]["from_tokens"] == FROM
    write_tuned(copy, key, DIVIDED, facts[0], facts[1] | {"version": "0.1"})
    with caplog.at_level("WARNING", logger="bothways"):
        assert not isinstance(load(copy).engine, ByLength)
    assert "onnxruntime fp32, 2 x 64 tokens, was measured with another version of onnxruntime (0.1, now " in caplog.text


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_files_that_are_replaced_before_the_second_engine_opens_are_not_run(copy, engine):
    plan = Plan("onnxruntime", "int8", 1, 384, long=Plan(engine, "fp32", 1, 64), from_tokens=FROM)
    predictor = load(copy, plan=plan)
    predictor([SHORT])
    tensors, metadata = read_safetensors(copy / "model.safetensors")
    changed = {name: tensor + 1.0 for name, tensor in tensors.items()}
    write_safetensors(copy / "model.safetensors", changed, metadata)
    bothways.export(copy, precision="fp32")
    with pytest.raises(CheckpointError, match="were replaced since it was loaded; load it again"):
        predictor([LONG])


def test_both_parts_are_checked_when_the_model_is_loaded(copy):
    (copy / "onnx" / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="not there, though"):
        load(copy, plan=DIVIDED)
    wrong = Plan("onnxruntime", "int8", 1, 384, long=Plan("onnxruntime", "bf16", 1, 384))
    with pytest.raises(OptionError, match="onnxruntime does not run bf16"):
        load(copy, plan=wrong)
