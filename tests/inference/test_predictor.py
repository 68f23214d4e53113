"""Answers come in order, alone as in a batch, as soon as they are ready; in threads and processes too."""

import copy
import gc
import math
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bothways
from bothways.data.examples import CandidateLabels, Example
from bothways.errors import BothwaysError, CheckpointError, DataError, OptionError
from bothways.inference.engines import openvino
from bothways.inference.engines.torch import TorchEngine
from bothways.inference.plan import Plan
from bothways.inference.predictor import Predictor, load
from bothways.model.encoder import initialize
from bothways.model.heads import TaskModel
from bothways.tasks import TASKS, Answer, Classify, Embed, Fill, NextSentence, Pairs, Tag, ZeroShot
from bothways.text.tokenizer import Tokenizer
from tests.serving.fake import fake_predictor
from tests.tiny import BAD, GOOD, ROWS, TINY, write_base, write_trained

TEXTS = [*GOOD, *BAD]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    run = write_trained(tmp_path_factory.mktemp("predictor"))
    bothways.export(run, precision="fp32", calibrate=ROWS)
    return run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads of PyTorch wait long for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def predictor(model) -> Predictor:
    return load(model, plan=Plan("onnxruntime", "fp32", 2, 384))


# Alone as in a batch, in fp32: every task.

LONG = " ".join(GOOD * 3)  # of several windows
NLI = ("entailment", "contradiction")
SHORT = {"max_length": 16, "stride": 4}
TASK_INPUTS: dict[str, tuple[Any, list[Any]]] = {
    "classify": (Classify(("a", "b", "c"), **SHORT), [*TEXTS, LONG]),
    "pairs": (Pairs(("a", "b"), **SHORT), [(text, LONG) for text in TEXTS]),
    "tag": (Tag(("O", "B-X", "I-X"), **SHORT), [*TEXTS, LONG]),
    "answer": (Answer(max_length=24, stride=4), [("who acted?", f"{text} {LONG}") for text in TEXTS]),
    "zero_shot": (
        ZeroShot(("film", "story"), nli=NLI, max_length=24, stride=4),
        [*TEXTS, LONG],
    ),
    "fill": (Fill(**SHORT), [f"{text} [MASK] end" for text in [*TEXTS, LONG]]),
    "next_sentence": (
        NextSentence(("is_next", "not_next"), **SHORT),
        [(text, LONG) for text in TEXTS],
    ),
    "embed": (Embed(max_length=16), [*TEXTS, LONG]),
}


def untrained(task: Any) -> Predictor:
    made = TaskModel(TINY, task.head, task.outputs)
    initialize(made, TINY, torch.Generator().manual_seed(3))
    with torch.no_grad():  # as if trained: an untrained head gives almost the same to everything
        for name, part in made.named_parameters():
            if name.startswith("head."):
                part.normal_(0, 0.5, generator=torch.Generator().manual_seed(4))
    return Predictor(task, Tokenizer.packaged("bert-base-uncased"), TorchEngine(made.eval()))


def numbers(value: Any) -> list[float]:
    """All numbers of a prediction as JSON, in order."""
    if isinstance(value, dict):
        return [one for key in sorted(value) for one in numbers(value[key])]
    if isinstance(value, list | tuple):
        return [one for part in value for one in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_contract_below_is_held_to_every_task():
    assert set(TASK_INPUTS) == set(TASKS)


@pytest.mark.parametrize("name", TASK_INPUTS)
def test_a_text_alone_is_answered_as_in_a_batch(name):
    task, inputs = TASK_INPUTS[name]
    one = untrained(task)
    together, alone = one(inputs), [one([each])[0] for each in inputs]
    assert [each.error for each in together] == [None] * len(inputs)
    for first, second in zip(together, alone, strict=True):
        first, second = first.as_json(all_scores=True), second.as_json(all_scores=True)
        np.testing.assert_allclose(numbers(first), numbers(second), atol=2e-5)
        assert {key: value for key, value in first.items() if isinstance(value, str)} == {
            key: value for key, value in second.items() if isinstance(value, str)
        }


# Streams.


def finished(work: Callable[[], Any], seconds: float = 20) -> Any:
    """What `work` returns, on a thread, so that one that hangs fails the test and not the run."""
    found: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: found.put(work()), daemon=True).start()
    return found.get(timeout=seconds)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_queue_that_waits_for_the_answer_is_answered(model, workers):
    """Each input is there only when the one before it has its answer."""
    predictor = load(model, plan=Plan("onnxruntime", "fp32", workers, 384))
    texts: queue.Queue[str] = queue.Queue()

    def source() -> Iterator[str]:
        while True:
            yield texts.get()

    stream = predictor.stream(source())
    found = []
    for text in TEXTS:
        texts.put(text)
        found.append(finished(lambda: next(stream)).label)
    assert found == [one.label for one in predictor(TEXTS)]
    stream.close()


def test_an_answer_does_not_wait_for_inputs_that_are_slow(predictor):
    def source() -> Iterator[str]:
        yield from TEXTS
        time.sleep(3)
        yield "great film"

    began = time.monotonic()
    stream = predictor.stream(source())
    found = [next(stream) for _ in TEXTS]
    assert time.monotonic() - began < 2
    assert [one.label for one in found] == [one.label for one in predictor(TEXTS)]
    assert len(list(stream)) == 1


@pytest.mark.parametrize("fails_at", [0, 1, 12, 1500])
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_a_source_that_fails_gives_first_what_it_gave(predictor, fails_at, chunk):
    def source() -> Iterator[str]:
        for number in range(fails_at):
            yield f"great film {number}"
        raise ConnectionError("gone")

    found: list[Any] = []
    with pytest.raises(ConnectionError, match="gone"):
        found.extend(predictor.stream(source(), chunk=chunk))
    assert len(found) == fails_at


def test_a_wrong_item_is_an_error_in_its_own_row(predictor):
    inputs = ["great film", None, math.nan, "", 5, b"dull film", "dull film"]
    for source in (inputs, iter(inputs)):
        found = list(predictor.stream(source))
        assert [one.error is None for one in found] == [True, False, False, False, False, False, True]
        assert [found[0].label, found[-1].label] == ["good", "bad"]
        assert "found None, expected" in found[1].error
        assert found[3].error == "the text is empty"


@pytest.mark.parametrize("wrong", [None, math.nan, 5, b"x", {"text": "a"}, ("a", "b", "c")])
def test_a_wrong_item_of_a_call_is_said_with_its_place(predictor, wrong):
    with pytest.raises(DataError, match=r"^input 2 \(from 0\): found .*, expected"):
        predictor(["great film", "", wrong])


@pytest.mark.parametrize(
    "wrong", ["great film", b"great", None, 5, {"text": "great"}, {"great film"}, {"great": 1}.keys()]
)
def test_what_is_no_list_of_inputs_is_refused(predictor, wrong):
    if type(wrong).__name__ == "dict_keys":  # has an order
        assert len(predictor(wrong)) == 1
        return
    with pytest.raises(DataError, match="expected"):
        predictor(wrong)


def test_columns_arrays_tuples_and_generators_are_inputs(predictor):
    expected = [one.label for one in predictor(TEXTS)]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS}, index=range(7, 7 + len(TEXTS)))
    for inputs in (tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), frame["text"], iter(TEXTS)):
        assert [one.label for one in predictor(inputs)] == expected
    assert predictor([]) == []
    with pytest.raises(DataError, match="expected one of its columns"):
        predictor(frame)
    with pytest.raises(DataError, match="input 1"):
        predictor(pandas.Series(["great", pandas.NA]))


def test_a_stream_with_a_chunk_reads_so_many_on_the_calling_thread(predictor):
    read: list[int] = []
    threads: set[int] = set()

    def source() -> Iterator[str]:
        for number in range(10):
            read.append(number)
            threads.add(threading.get_ident())
            yield f"great film {number}"

    stream = predictor.stream(source(), chunk=3)
    next(stream)
    assert len(read) == 3
    assert len(list(stream)) == 9
    assert threads == {threading.get_ident()}
    for wrong in (0, -1, 2.5, True, "3"):
        with pytest.raises(OptionError, match="chunk is"):
            predictor.stream(TEXTS, chunk=wrong)
    with pytest.raises(DataError, match="expected a list or an iterator of texts"):
        predictor.stream("great film")


def test_streams_give_what_lists_give(predictor):
    texts = [f"{text} {number}" for number in range(200) for text in TEXTS]
    expected = [one.label for one in predictor(texts)]
    assert [one.label for one in predictor.stream(iter(texts))] == expected
    assert [one.label for one in predictor.stream(texts, chunk=100)] == expected
    assert list(predictor.stream(iter([]))) == []


def test_a_stream_that_is_left_stops_its_source_and_its_reader(model):
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 16))
    before, ended = threading.active_count(), threading.Event()

    def source() -> Iterator[str]:
        try:
            for number in range(10**9):
                yield f"great film {number}"
        finally:
            ended.set()

    stream = predictor.stream(source())
    next(stream)
    del stream
    gc.collect()
    assert ended.wait(5)
    time.sleep(0.2)
    assert threading.active_count() <= before + 2  # the workers stay with the predictor
    del predictor
    gc.collect()
    assert threading.active_count() <= before


ABANDONED = """
import sys, time
from bothways.inference.predictor import load
from bothways.inference.plan import Plan
predictor = load(sys.argv[1], plan=Plan("onnxruntime", "fp32", int(sys.argv[2]), 8))
run = predictor.engine.run
predictor.engine.run = lambda batch: time.sleep(0.004) or run(batch)
def endless():
    number = 0
    while True:
        number += 1
        yield f"great film {number}"
stream = predictor.stream(endless() if sys.argv[3] == "endless" else [f"a film {n}" for n in range(9000)], chunk=None)
print(next(stream).label, flush=True)
print(time.time(), flush=True)
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("source", ["endless", "list"])
def test_a_process_ends_at_once_when_a_stream_is_left(model, workers, source):
    command = [sys.executable, "-c", ABANDONED, str(model), str(workers), source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    label, ended = done.stdout.split()
    assert label in ("good", "bad")
    assert time.time() - float(ended) < 3
    assert done.stderr == ""


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt("no memory")])
def test_an_error_of_a_worker_is_raised_and_the_next_call_is_answered(model, error):
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 16))
    before = threading.active_count()

    def broken(batch: Any) -> Any:
        raise error

    texts = [f"great film {number}" for number in range(50)]
    predictor.engine.run = broken
    with pytest.raises(type(error), match="no memory"):
        predictor(texts)
    del predictor.engine.run
    assert [one.error for one in finished(partial(predictor, texts))] == [None] * 50
    error.__traceback__ = None  # it holds the predictor
    del predictor
    gc.collect()
    assert threading.active_count() <= before


def test_chunks_count_the_labels_of_zero_shot():
    task = ZeroShot(tuple(f"label {number}" for number in range(1000)), nli=NLI)
    example = Example(("a text of some length",))
    assert task.size(example) > 1000 * len(example.texts[0])
    assert Classify(("a", "b")).size(example) == len(example.texts[0])
    few = task.size(Example(("a text",), details=CandidateLabels(("x", "y"))))
    assert few < 200


# Answers alone.


def test_predict_and_predict_proba_give_labels_and_their_probabilities(predictor):
    assert predictor.labels == ("bad", "good")
    assert predictor.predict(TEXTS) == ["good"] * 6 + ["bad"] * 6
    found = predictor.predict_proba(TEXTS)
    assert found.shape == (12, 2)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert [predictor.labels[best] for best in found.argmax(1)] == predictor.predict(TEXTS)
    assert predictor.predict(["great film", ""]) == ["good", None]
    assert predictor.predict([]) == []
    assert predictor.predict_proba([]).shape == (0, 2)
    with pytest.raises(DataError, match=r"input 1 \(from 0\): the text is empty"):
        predictor.predict_proba(["great film", ""])


@pytest.mark.parametrize("name", TASK_INPUTS)
def test_predict_gives_plain_answers_for_every_task(name):
    task, inputs = TASK_INPUTS[name]
    one = untrained(task)
    answers = one.predict(inputs)
    kinds = {"tag": list, "answer": str, "fill": list, "embed": np.ndarray}
    assert all(isinstance(answer, kinds.get(name, str)) for answer in answers)
    if name in kinds:
        with pytest.raises(OptionError, match="predict_proba is for classes"):
            one.predict_proba(inputs)
    else:
        assert one.predict_proba(inputs).shape == (len(inputs), len(one.labels))


def test_predict_gives_sets_of_labels_and_numbers():
    several = untrained(Classify(("a", "b"), kind="multi", threshold=0.0))
    assert several.predict(["great film"])[0] in (("a", "b"), ("b", "a"))
    number = untrained(Classify(("score",), kind="regression"))
    assert isinstance(number.predict(["great film"])[0], float)
    with pytest.raises(OptionError, match="has numbers; use predict"):
        number.predict_proba(["great film"])
    with pytest.raises(OptionError, match="no labels of its own"):
        untrained(ZeroShot((), nli=NLI)).predict_proba(["great film"])


def test_a_predictor_is_shown_in_one_short_line(predictor):
    assert repr(predictor).startswith("<Predictor classify: bad, good; ")
    assert "ONNX Runtime" in repr(predictor)
    many = untrained(Classify(tuple(f"label {number}" for number in range(500))))
    assert "and 496 more" in repr(many)
    assert all(len(repr(one)) < 500 and "\n" not in repr(one) for one in (predictor, many, many.engine))


# Threads and processes.


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_threads_share_a_predictor(model, engine):
    predictor = load(model, engine=engine, precision="fp32")
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    expected = [one.label for one in predictor(texts)]
    with ThreadPoolExecutor(8) as pool:
        alone = finished(lambda: list(pool.map(lambda text: predictor([text])[0].label, texts)), 60)
        together = finished(lambda: list(pool.map(lambda _: [one.label for one in predictor(texts)], range(8))), 60)
    assert alone == expected
    assert all(one == expected for one in together)


def test_calls_start_no_threads_but_the_workers(model, monkeypatch):
    started, start = [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread) or start(thread))
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 16))
    used: set[int] = set()
    run = predictor.engine.run
    predictor.engine.run = lambda batch: used.add(threading.get_ident()) or run(batch)
    for text in TEXTS:
        predictor([text])
    assert (started, used) == ([], {threading.get_ident()})
    texts = [f"great film {number}" for number in range(50)]
    pipe = bothways.pipeline("text-classification", predictor)
    for _ in range(5):
        predictor(texts)
        pipe(texts)
        pipe(texts, top_k=1)
        predictor(texts[:1])
    assert len(started) == 2
    assert used <= {threading.get_ident(), *(thread.ident for thread in started)}
    del pipe, predictor
    gc.collect()
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_predictor_is_pickled_and_copied(model, engine):
    predictor = load(model, engine=engine, precision="fp32")
    predictor([f"{text} {number}" for number in range(30) for text in TEXTS])  # so that its workers are there
    expected = predictor.predict_proba(TEXTS)
    for other in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
        np.testing.assert_allclose(other.predict_proba(TEXTS), expected, atol=1e-6)
        assert other.engine.describe() == predictor.engine.describe()


def test_a_pickle_of_a_model_that_was_replaced_is_refused(model, tmp_path):
    import shutil

    place = shutil.copytree(model, tmp_path / "copy")
    kept = pickle.dumps(load(place, precision="fp32"))
    (place / "onnx" / "model.onnx").write_bytes(b"another model")
    with pytest.raises(CheckpointError, match="not the ONNX model that was exported here"):
        pickle.loads(kept)(TEXTS)


def answered(predictor: Predictor) -> list[str]:
    return [one.label for one in predictor(TEXTS)]


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_spawned_process_gets_a_predictor(model, engine):
    predictor = load(model, engine=engine, precision="fp32")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map_async(answered, [predictor]).get(timeout=120) == [answered(predictor)]


# A child by fork of a process that has predicted: it answers, or says why not, releases the model, ends, never hangs.
FORKED = """
import gc, os, signal, sys, time, warnings
from bothways.errors import BothwaysError
from bothways.inference.predictor import load
from bothways.inference.plan import Plan
warnings.simplefilter("ignore")
engine, streams, again = sys.argv[2], int(sys.argv[3]), sys.argv[4]
plan = Plan(engine, "fp32", streams, 16)
predictor = load(sys.argv[1], plan=plan)
texts = [f"great film {number}" for number in range(60)] + ["dull film"]
expected = [one.label for one in predictor(texts)]
time.sleep(0.3)  # the engine's threads have stopped spinning, and wait
child = os.fork()
if not child:
    code = 5
    try:
        if again == "loaded":
            predictor = load(sys.argv[1], plan=plan)
        found = [one.label for one in predictor(texts)]
        code = 0 if found == expected else 3
    except BothwaysError as error:
        print(error, flush=True)
        code = 4
    if again != "at the end":
        predictor = None
        gc.collect()
    sys.exit(code)
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        assert [one.label for one in predictor(texts)] == expected
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
os.kill(child, signal.SIGKILL)
sys.exit(9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("again", ["used", "loaded", "at the end"])
@pytest.mark.parametrize(
    ("engine", "workers"),
    [("onnxruntime", 1), ("onnxruntime", 2), ("torch", 1), ("openvino", 1), ("openvino", 2)],
)
def test_a_forked_process_answers_or_says_why_not(model, engine, workers, again):
    if engine == "openvino" and openvino.why_no_openvino() is not None:
        pytest.skip(openvino.why_no_openvino())
    command = [sys.executable, "-c", FORKED, str(model), engine, str(workers), again]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (4 if engine == "openvino" else 0, "")
    if engine == "openvino":
        assert "use OpenVINO after the fork only" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_stream_begun_before_a_fork_is_refused_after_it(model):
    predictor = load(model, plan=Plan("onnxruntime", "fp32", 2, 16))
    stream = predictor.stream([f"great film {number}" for number in range(3000)])
    next(stream)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        gc.disable()  # sessions that other tests opened without `Sessions` would wait for their threads
        try:
            for _ in stream:
                pass
        except BothwaysError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    try:
        deadline = time.monotonic() + 20
        while not os.waitpid(child, os.WNOHANG)[0]:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.02)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
    os.close(write)
    assert b"started before a fork" in os.read(read, 1000)
    stream.close()


def test_a_text_is_decoded_while_later_batches_are_computed():
    predictor, computed, decoded = fake_predictor(workers=1, max_tokens=8), [], []
    task, run = predictor.task, predictor.engine.run
    predictor.engine.run = lambda batch: (computed.append(len(decoded)), run(batch))[1]
    decode = task.decode
    object.__setattr__(task, "decode", lambda *given: (decoded.append(given[0]), decode(*given))[1])
    assert len(predictor([f"a longer text {number}" for number in range(5)])) == 5
    assert computed == [0, 1, 2, 3, 4]


def test_a_base_model_embeds(tmp_path):
    found = load(write_base(tmp_path / "base"), task="embed").predict(TEXTS)
    assert {one.shape for one in found} == {(32,)}
