"""Compiled layers: the numbers of plain ones for short and long windows; what is damaged is not used."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.batch import make_batch
from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import multiplies_bf16, multiplies_bytes
from bothways.inference import choice, plan_files
from bothways.inference.engines import compiled
from bothways.inference.engines.compiled import CompiledLayers, compile_layers, libraries
from bothways.inference.engines.fused import FusedEngine
from bothways.inference.engines.torch import TorchEngine
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.export import input_ranges
from bothways.inference.onnx.record import FOLDER
from bothways.inference.plan import Plan, write_tuned
from bothways.inference.predictor import load
from bothways.progress import Reporter
from tests.inference.onnx.test_build import model_of
from tests.inference.test_alone import assert_alone_as_among_many, assert_threads_agree, windows_of
from tests.inference.test_fused import TOLERANCE
from tests.tiny import write_trained

BF16 = Plan("torch", "bf16", 2, 512)
pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or not (multiplies_bf16() and multiplies_bytes()),
    reason="compiling needs g++, and a processor with bf16 and exact 8-bit products",
)


# One head that reads one token of each window, one that reads all; relative positions; shared layers in 8 bits.
@pytest.mark.parametrize(
    ("family", "head", "precision"),
    [("bert", "classify", "int8-static"), ("mpnet", "classify", "bf16"), ("albert", "spans", "int8-static")],
)
def test_compiled_layers_give_the_numbers_of_plain_ones(family, head, precision, tmp_path, monkeypatch):
    windows = windows_of(family, head)
    ranges = input_ranges(model_of(family, head), [make_batch(windows)])
    compile_layers(model_of(family, head), precision, ranges, tmp_path / "cache" / "layers")
    layers = CompiledLayers(tmp_path / "cache" / "layers", 2)
    made = FusedEngine(model_of(family, head), precision, ranges, workers=2, max_tokens=512, compiled=layers)
    assert f"compiled, {precision}, 2 workers" in made.describe()
    expected = TorchEngine(model_of(family, head)).run(make_batch(windows))
    for flash_from in (10_000, 1):  # all windows in the one library, then in the other one
        monkeypatch.setattr(compiled, "FLASH_FROM", flash_from)
        off = made.run(make_batch(windows)) - expected
        assert np.sqrt(np.square(off).mean() / np.square(expected).mean()) < TOLERANCE[precision]
        assert_alone_as_among_many(windows, made.run, 0.1)
    if head == "classify":
        assert_threads_agree(windows, made.run, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A trained directory and a cache with its compiled layers."""
    directory, cache = write_trained(tmp_path_factory.mktemp("compiled")), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        plan_files.compile_plan(ModelDirectory.read(directory), BF16, Reporter())
    return directory, cache


def cached(trained, monkeypatch, tmp_path) -> tuple[Path, Path]:
    """The directory, and where its compiled layers are in a cache that may be changed."""
    directory, cache = trained
    shutil.copytree(cache, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = plan_files.compiled_layers(ModelDirectory.read(directory), None, BF16)
    assert path is not None
    return directory, path


def test_layers_in_the_cache_are_used_and_only_by_this_user(trained, monkeypatch, tmp_path):
    directory, path = cached(trained, monkeypatch, tmp_path)
    engine = load(directory, plan=BF16).engine
    assert "compiled, bf16" in engine.describe()
    assert path.parent.stat().st_mode & 0o077 == 0
    assert not list(directory.rglob("*.so"))  # a model directory holds no code
    batch = make_batch([window for window in windows_of("bert", "classify") if len(window.ids) <= 16])
    expected = engine.run(batch)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(engine)).run(batch), expected)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put(engine.run(batch)))
    child.start()
    np.testing.assert_array_equal(results.get(timeout=60), expected)
    child.join(60)


def test_other_weights_have_no_compiled_layers(trained, monkeypatch, tmp_path):
    directory, path = cached(trained, monkeypatch, tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert plan_files.compiled_layers(ModelDirectory.read(copy), None, BF16) != path
    assert "fused, bf16" in load(copy, plan=BF16).engine.describe()


def test_a_damaged_library_is_said_and_layers_that_are_not_compiled_run(trained, monkeypatch, tmp_path, caplog):
    directory, path = cached(trained, monkeypatch, tmp_path)
    short, _ = libraries(path)
    short.write_bytes(b"no library")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        CompiledLayers(path, 1)
    assert "fused, bf16" in load(directory, plan=BF16, reporter=Reporter()).engine.describe()
    assert "layers that are not compiled run instead" in caplog.text


def test_a_plan_whose_compiled_layers_are_gone_is_not_used(trained, monkeypatch, tmp_path, caplog):
    directory, path = cached(trained, monkeypatch, tmp_path)
    copy = shutil.copytree(directory, tmp_path / "copy")
    (copy / FOLDER).mkdir(exist_ok=True)
    model_directory = ModelDirectory.read(copy)
    facts = choice.tuned_with(model_directory, None, BF16)
    assert facts["compiled layers"] == path.name
    write_tuned(copy, choice.tuned_key(model_directory.task), BF16, facts)
    assert choice.choose(model_directory, Reporter())[1] == BF16
    plan_files.remove_compiled(model_directory, None, BF16)
    assert not list(path.parent.iterdir())
    assert choice.tuned_with(model_directory, None, BF16)["compiled layers"] is None
    assert choice.choose(model_directory, Reporter())[1] != BF16
    assert "are not in the cache of this user; onnxruntime int8 is used instead; run bothways tune" in caplog.text


def test_libraries_that_were_not_used_for_long_are_removed_when_others_are_made(trained, monkeypatch, tmp_path):
    directory, path = cached(trained, monkeypatch, tmp_path)
    old, new = path.with_name("old.short.so"), path.with_name("new.short.so")
    for other in (old, new, *libraries(path)):
        other.touch()
    long_ago = time.time() - plan_files.KEPT_SECONDS - 60
    for other in (old, *libraries(path)):
        os.utime(other, (long_ago, long_ago))
    assert "compiled" in load(directory, plan=BF16).engine.describe()  # in use, so they are kept
    monkeypatch.setattr(compiled, "compile_layers", lambda *_: None)
    plan_files.compile_plan(ModelDirectory.read(directory), BF16, Reporter(quiet=True))
    assert set(path.parent.iterdir()) == {new, *libraries(path)}


def test_without_a_compiler_the_reason_is_said(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BothwaysError, match="found no C\\+\\+ compiler"):
        compile_layers(model_of("bert", "classify"), "bf16", {}, tmp_path / "layers")
    assert not list(tmp_path.iterdir())


def test_wrong_numbers_are_not_kept(monkeypatch, tmp_path):
    right = compiled.EagerLayers.__call__
    monkeypatch.setattr(compiled.EagerLayers, "__call__", lambda self, *given: right(self, *given) * 2)
    monkeypatch.setattr(compiled, "_compile", lambda _, library: library.write_bytes(b""))
    monkeypatch.setattr(compiled, "_Library", lambda *_: FakeLibrary())
    with pytest.raises(BothwaysError, match="gave wrong numbers"):
        compile_layers(model_of("bert", "hidden"), "bf16", {}, tmp_path / "cache" / "layers")
    assert not list((tmp_path / "cache").iterdir())


class FakeLibrary:
    """Gives what went in."""

    def run(self, given: list[torch.Tensor]) -> torch.Tensor:
        return given[0].reshape(-1, given[0].shape[-1])[given[2]]
