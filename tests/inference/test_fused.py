"""Fused layers: the numbers of the plain ones, in every family and head, alone and among others."""

from __future__ import annotations

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
import torch

from bothways.batch import make_batch
from bothways.errors import BothwaysError
from bothways.hardware import multiplies_bf16, multiplies_bytes
from bothways.inference.engines import fused
from bothways.inference.engines.fused import FusedEngine, open_fused_engine, why_not_fused
from bothways.inference.engines.torch import TorchEngine
from bothways.inference.onnx.export import input_ranges
from bothways.progress import Reporter
from tests.inference.onnx.test_build import CASES, model_of
from tests.inference.test_alone import assert_alone_as_among_many, assert_threads_agree, windows_of
from tests.tiny import write_trained

ABLE = {"bf16": multiplies_bf16(), "int8-static": multiplies_bytes()}
TOLERANCE = {"bf16": 0.06, "int8-static": 0.15}  # of the root mean square of the logits in fp32


@pytest.fixture(params=["bf16", "int8-static"])
def precision(request) -> str:
    if not ABLE[request.param]:
        pytest.skip(f"this processor has no products for {request.param}")
    return request.param


def engines(family: str, head: str, precision: str, workers: int = 1) -> tuple[TorchEngine, FusedEngine, list]:
    """The same model in plain fp32 and in fused layers, and windows of all lengths."""
    windows = windows_of(family, head)
    ranges = input_ranges(model_of(family, head), [make_batch(windows)])
    made = FusedEngine(model_of(family, head), precision, ranges, workers=workers, max_tokens=512)
    return TorchEngine(model_of(family, head)), made, windows


@pytest.mark.parametrize(("family", "head"), CASES)
def test_fused_layers_give_the_numbers_of_plain_ones(family: str, head: str, precision: str):
    plain, made, windows = engines(family, head, precision)
    expected, found = (engine.run(make_batch(windows)) for engine in (plain, made))
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    off = np.sqrt(np.square(found - expected).mean()) / np.sqrt(np.square(expected).mean())
    assert off < TOLERANCE[precision]


@pytest.mark.parametrize(("family", "head"), CASES)
def test_a_window_alone_is_answered_as_among_64(family: str, head: str, precision: str, monkeypatch):
    monkeypatch.setattr(fused, "SHORT", 12)  # both ways of attention are gone, together the second one
    _, made, windows = engines(family, head, precision)
    assert_alone_as_among_many(windows, made.run, 0.1)


def test_threads_run_batches_at_once_and_pytorch_keeps_its_own_threads(precision: str):
    _, made, windows = engines("bert", "classify", precision, workers=2)
    before = torch.get_num_threads()
    assert_threads_agree(windows, made.run, 4)
    new: list[int] = []
    other = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), new) == (before, [before])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("fused"))


def opened(trained) -> FusedEngine:
    if not ABLE["bf16"]:
        pytest.skip("this processor has no bf16 products")
    made = open_fused_engine(trained, "classify", 2, "bf16", {}, Reporter(), workers=2, max_tokens=512)
    assert made is not None
    return made


def test_it_can_be_pickled_and_used_after_a_fork(trained):
    made, windows = opened(trained), windows_of("bert", "classify")
    batch = make_batch([window for window in windows if len(window.ids) <= 16])
    expected = made.run(batch)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).run(batch), expected)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put(made.run(batch)))
    child.start()
    np.testing.assert_array_equal(results.get(timeout=60), expected)
    child.join(60)


def test_it_can_be_opened_after_a_fork_of_a_process_that_used_pytorch_with_all_threads(trained):
    batch = make_batch([window for window in windows_of("bert", "classify") if len(window.ids) <= 16])
    expected = opened(trained).run(batch)
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # starts threads, which a fork does not copy
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def child() -> None:
        made = open_fused_engine(trained, "classify", 2, "bf16", {}, Reporter(), workers=1, max_tokens=512, threads=2)
        assert made is not None
        results.put(made.run(batch))

    process = context.Process(target=child)
    process.start()
    try:
        np.testing.assert_allclose(results.get(timeout=60), expected, atol=1e-3)
    finally:
        process.kill()


def test_a_model_in_memory_is_not_pickled(precision: str):
    with pytest.raises(BothwaysError, match="cannot be pickled; load a directory"):
        pickle.dumps(engines("bert", "classify", precision)[1])


def test_a_pytorch_without_the_operators_is_said_and_plain_layers_run(trained, monkeypatch, caplog):
    class Empty:
        def __getattr__(self, name: str):
            raise AttributeError(f"no {name}")

    monkeypatch.setattr(torch.ops, "mkldnn", Empty())
    monkeypatch.setattr(fused, "multiplies_bf16", lambda: True)
    assert open_fused_engine(trained, "classify", 2, "bf16", {}, Reporter(), workers=1, max_tokens=512) is None
    assert "has no fused layers (no _reorder_linear_weight), so " in caplog.text


def test_operators_that_give_wrong_numbers_are_not_used(monkeypatch, precision: str):
    right = fused._Bf16Product.__call__ if precision == "bf16" else fused._Int8Product.__call__
    monkeypatch.setattr(
        fused._Bf16Product if precision == "bf16" else fused._Int8Product,
        "__call__",
        lambda self, ready: right(self, ready) * 2,
    )
    assert "gave wrong numbers" in str(why_not_fused(precision, "gelu"))


def test_what_cannot_be_fused_is_named(monkeypatch):
    monkeypatch.setattr(fused, "multiplies_bytes", lambda: False)
    monkeypatch.setattr(fused, "multiplies_bf16", lambda: False)
    assert why_not_fused("bf16", "gelu") == "this processor has no bf16 products"
    assert why_not_fused("int8-static", "gelu") == "this processor has no exact 8-bit products (VNNI)"
    assert why_not_fused("bf16", "tanh") == "fused layers have no tanh"
