"""A text alone is answered as among others: what an engine computes for a window does not depend on its batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
import torch

import bothways
from bothways.batch import Batch, make_batch
from bothways.data.examples import Example
from bothways.evaluation.measure import in_process
from bothways.inference.engines.engine import onnx_inputs
from bothways.inference.engines.onnxruntime import SLOWER_FUSED
from bothways.inference.engines.openvino import why_no_openvino
from bothways.inference.engines.torch import TorchEngine
from bothways.inference.onnx.build import build
from bothways.inference.onnx.export import input_ranges
from bothways.inference.onnx.record import OnnxPrecision
from bothways.inference.plan import Plan
from bothways.inference.predictor import load
from bothways.model.families import READ_ONCE
from bothways.model.forward import set_precision
from bothways.text.tokenizer import Encoded
from tests.inference.onnx.test_build import CASES, config_of, model_of
from tests.tiny import ROWS, write_trained

MANY = 64
# Largest difference, in root mean squares of the logits. In fp32 only the order of sums changes; where that moves a
# number over the edge between two 8-bit or bf16 values, it changes by one step.
TOLERANCE = {"fp32": 1e-4, "int8": 0.05, "int8-static": 0.05, "bf16": 0.1}


def windows_of(family: str, head: str) -> list[Encoded]:
    """64 windows of all lengths up to the longest; the head reads one token of each, or several."""
    config, rng = config_of(family), np.random.default_rng(7)
    found = []
    for number in range(MANY):
        length = int(rng.integers(1, config.max_length + 1))
        ids = rng.integers(5, config.vocab_size, size=length).astype(np.int32)
        zeros = np.zeros(length, np.int32)
        reads = np.arange(1 if head in READ_ONCE else int(rng.integers(1, length + 1)))
        offsets = np.zeros((length, 2), np.int32)
        found.append(Encoded(ids, zeros, offsets, zeros, zeros.astype(np.int8), number, 0, head_positions=reads))
    return found


def assert_alone_as_among_many(windows: list[Encoded], run, tolerance: float) -> None:
    """`run` computes the logits of a batch."""
    batch = make_batch(windows)
    together = run(batch)
    for member, rows in zip(batch.members, np.split(together, np.cumsum(batch.counts)[:-1]), strict=True):
        alone = run(make_batch([windows[member]]))
        assert np.abs(alone - rows).max() <= tolerance * np.sqrt(np.square(together).mean()), len(windows[member].ids)


def assert_threads_agree(windows: list[Encoded], run, count: int) -> None:
    """`count` threads that run batches at once get what one thread gets."""
    batches = [make_batch(windows[start : start + 8]) for start in range(0, MANY, 8)] * 4
    expected = [run(batch) for batch in batches]
    with ThreadPoolExecutor(count) as pool:
        for logits, found in zip(expected, pool.map(run, batches), strict=True):
            np.testing.assert_array_equal(found, logits)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-static"])
@pytest.mark.parametrize(("family", "head"), CASES)
def test_an_onnx_model_answers_a_window_alone_as_among_64(family: str, head: str, precision: OnnxPrecision):
    model, windows = model_of(family, head), windows_of(family, head)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    graph = build(model.config, head, weights, precision, ranges=input_ranges(model, [make_batch(windows)]))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOWER_FUSED)
    )

    def run(batch: Batch) -> np.ndarray:
        return session.run(None, onnx_inputs(batch, model.config.pad_token_id))[0]

    assert_alone_as_among_many(windows, run, TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("family", "head"), CASES)
def test_pytorch_answers_a_window_alone_as_among_64(family: str, head: str, precision):
    model = model_of(family, head)
    set_precision(model.encoder, precision)
    with torch.inference_mode():
        assert_alone_as_among_many(windows_of(family, head), TorchEngine(model).run, TOLERANCE[precision])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = write_trained(tmp_path_factory.mktemp("alone"))
    for precision in ("fp32", "int8-static"):
        bothways.export(run, precision=precision, calibrate=ROWS)
    return run


# Largest difference of a probability.
@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [
        ("onnxruntime", "fp32", 1e-5),
        ("onnxruntime", "int8", 0.01),
        ("onnxruntime", "int8-static", 0.01),
        ("openvino", "fp32", 1e-5),
        ("openvino", "bf16", 0.02),
        ("openvino", "int8-static", 0.02),
        ("torch", "fp32", 1e-5),
        ("torch", "bf16", 0.02),
        ("torch", "int8-static", 0.02),
    ],
)
def test_a_trained_model_answers_a_text_alone_as_among_64(trained, engine, precision, tolerance):
    if engine == "openvino" and why_no_openvino() is not None:
        pytest.skip(why_no_openvino())
    texts = [
        f"{row['text']} {' '.join(ROWS[number % 5]['text'].split()[: number % 7])}"
        for number, row in enumerate(ROWS * 6)
    ][:MANY]
    together = {"model": str(trained), "plan": Plan(engine, precision, 1, 4096)}
    alone = {"model": str(trained), "plan": Plan(engine, precision, 1, 1)}  # a budget of one token: a window a batch
    examples = [Example((text,)) for text in texts]
    if engine == "openvino":  # in a separate process, as it has died in some
        first, second = (in_process(what, examples)["predictions"] for what in (together, alone))
    else:
        first, second = (load(trained, plan=what["plan"]).predict_examples(examples) for what in (together, alone))
    differences = [abs(one.scores["good"] - other.scores["good"]) for one, other in zip(first, second, strict=True)]
    assert max(differences) <= tolerance
