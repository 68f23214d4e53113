"""PyTorch as an engine, in fp32 or bf16: the reference for the other engines."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from bothways.batch import NEVER, Batch
from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import cores
from bothways.model.checkpoint import load_model
from bothways.model.config import WEIGHTS
from bothways.model.forward import Precision, best_precision, device_of, enough_memory, forward, set_precision
from bothways.model.heads import TaskModel
from bothways.progress import Reporter


class TorchEngine:
    """Runs a PyTorch model on packed batches, one at a time with all threads."""

    unbatched_from = NEVER
    workers = 1

    def __init__(self, model: TaskModel, weights: Path | None = None) -> None:
        self.model, self.weights = model, weights
        first_process()

    @property
    def max_tokens(self) -> int:
        """Tokens per batch: enough for large products, on a CPU few enough to stay in cache."""
        return 2048 if self.model.encoder.embeddings.word.weight.device.type == "cpu" else 1 << 15

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        return sum(part.numel() for part in self.model.parameters())

    def describe(self) -> str:
        """Return version, precision and threads or device."""
        bits = "bf16" if any(part.dtype == torch.bfloat16 for part in self.model.parameters()) else "fp32"
        device = self.model.encoder.embeddings.word.weight.device
        where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
        return f"PyTorch {torch.__version__.split('+')[0]}, {bits}, {where}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe()}>"

    def open(self) -> None:
        """Do nothing: the model is already open."""

    def run(self, batch: Batch) -> np.ndarray:
        """Packed batch -> (K, L) logits at its head positions, in the batch's order."""
        heed_fork(self.model.encoder.embeddings.word.weight.device)
        what = f"a batch of {len(batch.lengths)} windows of up to {batch.lengths[0]} tokens"
        with torch.inference_mode(), enough_memory(what, "lower max_length, or predict on the CPU (device 'cpu')"):
            return forward(self.model, batch).cpu().numpy()


@cache
def first_process() -> int:
    """Return the id of the process that used PyTorch first; forked children inherit the cached value."""
    return os.getpid()


def heed_fork(device: torch.device) -> None:
    """Use one thread if this process was forked from one that used PyTorch: a fork does not copy the other threads,
    and waiting for them would hang. Raises `BothwaysError` for a GPU, which a forked process cannot use.
    """
    if first_process() == os.getpid():
        return
    if device.type != "cpu":
        raise BothwaysError(
            "the GPU was used before this process was forked, and cannot be used in it: load the model in each process "
            "and not before, or start the processes with 'spawn'"
        )
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def has_gpu() -> bool:
    """Whether PyTorch finds a GPU."""
    return torch.cuda.is_available()


def open_torch_engine(
    directory: Path,
    head: str,
    outputs: int,
    precision: Precision | None,
    reporter: Reporter,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> TorchEngine:
    """Open the trained model in a directory; device "auto" uses a GPU if one is available.

    The default `precision` is the best for the `device` ("cpu", "cuda" or "auto"). `threads` sets PyTorch's threads for
    the whole process; by default there are no more than the process has cores.

    Raises `OptionError` if the GPU is not available, and `CheckpointError` for a model that is not trained.
    """
    place = device_of(device)
    if threads is not None or torch.get_num_threads() > cores():
        torch.set_num_threads(threads or cores())
    heed_fork(place)
    model = trained_model(directory, head, outputs, reporter)
    model.to(place)
    set_precision(model.encoder, precision or best_precision(place))
    return TorchEngine(model, directory / WEIGHTS)


def trained_model(directory: Path, head: str, outputs: int, reporter: Reporter) -> TaskModel:
    """Load the model in a directory in fp32 on the CPU; raises `CheckpointError` if it is not trained."""
    model, report = load_model(directory, head, outputs, torch.Generator().manual_seed(0))
    if report.misfits:
        raise CheckpointError(
            f"{directory / WEIGHTS}: {report.misfits[0]} for the outputs that config.json names; correct id2label there"
        )
    if head == "pooled" and report.untrained_pooler:
        raise CheckpointError(
            f"{directory}: the pooler was never trained (its bias is exactly zero), so its vectors would be a random "
            "projection; choose the pooling mean or cls"
        )
    if report.head_is_new:
        raise CheckpointError(
            f"{directory}: {', '.join(report.new)} not in the checkpoint, so the head is untrained and its answers "
            "would be random; fine-tune the model first"
        )
    # Report only unused tensors and unknown config keys; a trained head is fine with an untrained pooler.
    for line in replace(report, untrained_pooler=False).lines()[1:]:
        reporter.note(line)
    return model
