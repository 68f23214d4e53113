"""PyTorch as an engine: the reference that the others are held against, fp32 or bf16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from bothways.batch import NEVER, Batch
from bothways.errors import CheckpointError
from bothways.model.checkpoint import load_model
from bothways.model.config import WEIGHTS
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.encoder import Encoder, Layer
from bothways.model.heads import TaskModel
from bothways.model.layout import Packed
from bothways.processor import multiplies_bf16
from bothways.terminal import Reporter

Precision = Literal["bf16", "fp32"]


def best_precision(device: torch.device | None = None) -> Precision:
    """bf16 where the processor, or the GPU, multiplies it directly, else fp32: emulated bf16 is slower than fp32."""
    if device is not None and device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if multiplies_bf16() else "fp32"


def set_precision(encoder: Encoder, precision: Precision) -> None:
    """Keep the large matrices of an encoder in `precision`; norms, embeddings, pooler and head stay fp32."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for module in encoder.modules():
        if isinstance(module, Layer):
            for part in module.children():
                if isinstance(part, nn.Linear):
                    part.to(dtype)
    if encoder.embeddings.project is not None:
        encoder.embeddings.project.to(dtype)


def forward(model: TaskModel, batch: Batch, dropout: Dropout = NO_DROPOUT) -> torch.Tensor:
    """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order, fp32."""
    device = model.encoder.embeddings.word.weight.device
    return model(*packed_inputs(batch, model.config.num_attention_heads, device), dropout)


def packed_inputs(
    batch: Batch, heads: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Packed, torch.Tensor]:
    """A batch as a model takes it: (N,) ids, segment ids and positions, where they lie, (K,) places that are read."""
    layout = Packed.from_lengths(batch.lengths, heads, device)
    ids, type_ids, positions = (
        torch.from_numpy(np.pad(part, (0, layout.filler))).to(device)
        for part in (batch.ids, batch.type_ids, batch.positions)
    )
    return ids, type_ids, positions, layout, torch.from_numpy(batch.reads).to(device)


class TorchEngine:
    """Runs a PyTorch model on packed batches, one at a time with all its threads; the reference for the others."""

    max_tokens = 2048  # a batch: enough to keep the products large, little enough to stay in cache
    alone = NEVER
    streams = 1

    def __init__(self, model: TaskModel, weights: Path | None = None) -> None:
        self.model, self.weights = model, weights

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(part.numel() for part in self.model.parameters())

    def describe(self) -> str:
        """Version, precision and threads."""
        bits = "bf16" if any(part.dtype == torch.bfloat16 for part in self.model.parameters()) else "fp32"
        device = self.model.encoder.embeddings.word.weight.device
        where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
        return f"PyTorch {torch.__version__.split('+')[0]}, {bits}, {where}"

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order."""
        with torch.inference_mode():
            return forward(self.model, batch).cpu().numpy()


def open_torch_engine(
    directory: Path, head: str, outputs: int, precision: Precision, reporter: Reporter
) -> TorchEngine:
    """The trained model in a directory, ready to run, on the GPU if there is one; an untrained head is refused."""
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
    # What was left over or not understood; what was loaded goes without saying, and a trained head knows its pooler.
    for line in replace(report, untrained_pooler=False).lines()[1:]:
        reporter.note(line)
    set_precision(model.encoder, precision)
    if torch.cuda.is_available():
        model.to("cuda")
    return TorchEngine(model, directory / WEIGHTS)
