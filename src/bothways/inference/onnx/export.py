"""Write the ONNX models of a trained model; `evaluation/accuracy_check.py` decides whether they are used."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Batch, make_batch
from bothways.errors import BothwaysError, CheckpointError, MissingDependencyError, OptionError
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import (
    ATTENTIONS,
    EXPORT,
    FILES,
    FOLDER,
    ExportRecord,
    OnnxModelRecord,
    OnnxPrecision,
    sample_of,
    shape_of,
)
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.model.families import READ_ONCE
from bothways.progress import Reporter
from bothways.storage import replacing
from bothways.text.tokenizer import Encoded

if TYPE_CHECKING:
    from bothways.inference.engines.torch import TorchEngine
    from bothways.model.heads import TaskModel

CLOSE = 1e-3  # tolerance for fp32 logits against PyTorch, relative to the largest logit
MAX_BYTES = 2**31 - 1  # of one ONNX file


def write_onnx_model(
    model_directory: ModelDirectory, precision: OnnxPrecision, batches: Sequence[Batch], reporter: Reporter
) -> ExportRecord:
    """Write the ONNX model of a model directory in one precision, and add it to the folder's record.

    `batches` of the model's own texts calibrate int8-static. An fp32 model is compared with the PyTorch modules.

    Raises `CheckpointError` for a directory without a trained head, `MissingDependencyError` without PyTorch or onnx.
    """
    engine = _engine(model_directory, reporter)
    from bothways.inference.onnx.build import build

    task, config, model, weights = model_directory.task, model_directory.config, engine.model, _weights(engine)
    if precision == "fp32" and sum(value.nbytes for value in weights.values()) > MAX_BYTES:
        raise BothwaysError("this model is larger than 2 GB in fp32, the limit of one ONNX file; export int8")
    ranges = input_ranges(model, batches) if precision == "int8-static" else None
    onnx_model = build(config, task.head, weights, precision, ranges=ranges)
    path = model_directory.path / FOLDER / FILES[precision]
    export = _record(model_directory, engine, path, reporter)
    content = onnx_model.SerializeToString()
    unchecked = None if precision == "fp32" else "its accuracy was not checked, as the export did not finish"
    export = export.with_model(precision, OnnxModelRecord(hashlib.sha256(content).hexdigest(), rejected=unchecked))
    export = export if ranges is None else replace(export, ranges=ranges)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        if precision == "fp32":
            _check(engine, OnnxRuntimeEngine(export, temporary, precision, config.pad_token_id), config, task.head)
    export.write()
    return export


def write_attentions_model(model_directory: ModelDirectory, reporter: Reporter) -> ExportRecord:
    """Write the ONNX model of the attention probabilities of all layers, and add it to the folder's record.

    Raises the same errors as `write_onnx_model`.
    """
    engine = _engine(model_directory, reporter)
    from bothways.inference.onnx.build import build_attentions

    weights = _weights(engine)
    if sum(value.nbytes for value in weights.values()) > MAX_BYTES:
        raise BothwaysError("this model is larger than 2 GB in fp32, the limit of one ONNX file: no attentions")
    path = model_directory.path / FOLDER / ATTENTIONS
    export = _record(model_directory, engine, path, reporter, any_head=True)
    content = build_attentions(model_directory.config, weights).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    export = replace(export, attentions=OnnxModelRecord(hashlib.sha256(content).hexdigest()))
    export.write()
    return export


def _engine(model_directory: ModelDirectory, reporter: Reporter) -> TorchEngine:
    """Open the model in PyTorch; raises `MissingDependencyError` without PyTorch or onnx."""
    for name in ("torch", "onnx"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"exporting needs {name}, which is not installed: pip install 'bothways[train]'"
            )
    from bothways.inference.engines.torch import open_torch_engine

    task = model_directory.task
    return open_torch_engine(model_directory.path, task.head, task.outputs, "fp32", reporter)


def _weights(engine: TorchEngine) -> dict[str, np.ndarray]:
    return {name: value.cpu().numpy() for name, value in engine.model.state_dict().items()}


def _record(
    model_directory: ModelDirectory, engine: TorchEngine, path: Path, reporter: Reporter, *, any_head: bool = False
) -> ExportRecord:
    """Return the record for the ONNX model at `path`; removes models of another head or other weights.

    With `any_head`, models of another head are kept: attentions depend only on the encoder.

    Raises `OptionError` if `path` exists but was not written by bothways.
    """
    task, before = model_directory.task, None
    with suppress(CheckpointError):  # a damaged record is written again
        before = ExportRecord.read(model_directory.path)
    weighed, shape = sample_of(model_directory.path / WEIGHTS), shape_of(model_directory.config)
    export = ExportRecord(model_directory.path, task.head, task.outputs, shape, weighed, engine.parameters)
    if path.exists() and not (model_directory.path / FOLDER / EXPORT).is_file():
        raise OptionError(f"{path} was not written by bothways, so it is not replaced; remove it, or copy the model")
    if before is not None:
        if replace(before, models={}, attentions=None, ranges={}) == export:
            return before
        if any_head and before.stale(model_directory.config) is None:
            return before
        reporter.note(f"removing the existing ONNX models: exported from other weights or for the head {before.head!r}")
        for other in before.files():
            other.unlink(missing_ok=True)
    return export


def _check(reference: TorchEngine, engine: OnnxRuntimeEngine, config: EncoderConfig, head: str) -> None:
    """Compare both engines on two windows of random tokens."""
    rng = np.random.default_rng(0)
    lengths = [min(length, config.max_length) for length in (24, 9)]
    windows = []
    for number, length in enumerate(lengths):
        zeros = np.zeros(length, np.int32)
        ids = rng.integers(0, config.vocab_size, length, dtype=np.int32)
        offsets, positions = np.zeros((length, 2), np.int32), np.arange(1 if head in READ_ONCE else length)
        windows.append(Encoded(ids, zeros, offsets, zeros, zeros.astype(np.int8), number, 0, head_positions=positions))
    batch = make_batch(windows)
    expected, found = reference.run(batch), engine.run(batch)
    off = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-9))
    if not off <= CLOSE:
        raise RuntimeError(f"the fp32 model differs from the PyTorch modules by {off:.2g} of the largest logit")


def input_ranges(model: TaskModel, batches: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """Return the input range of each linear layer: the mean minimum and maximum over batches.

    The mean limits the effect of outlier batches, and lost the least of the methods tried (docs/performance.md).
    """
    import torch

    from bothways.model.forward import forward

    extremes: dict[str, list[tuple[float, float]]] = {}  # of each batch
    now: dict[str, tuple[float, float]] = {}  # of the current batch, which may use a layer several times

    def watch(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            low, high = (float(value) for value in given[0].aminmax())
            before = now.get(name, (low, high))
            now[name] = min(low, before[0]), max(high, before[1])

        return hook

    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    hooks = [part.register_forward_pre_hook(watch(name)) for name, part in linear]
    try:
        with torch.inference_mode():
            for batch in batches:
                now.clear()
                forward(model, batch)
                for name, pair in now.items():
                    extremes.setdefault(name, []).append(pair)
    finally:
        for hook in hooks:
            hook.remove()
    means = {name: np.mean(pairs, axis=0) for name, pairs in extremes.items()}
    return {name: (float(low), float(high)) for name, (low, high) in means.items()}
