"""Run a PyTorch model on a packed batch in fp32 or bf16, for training and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from bothways.batch import Batch
from bothways.errors import BothwaysError, OptionError
from bothways.hardware import Device, multiplies_bf16
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.encoder import Encoder, Layer
from bothways.model.heads import TaskModel
from bothways.model.layout import Packed, Varlen, has_flash_attention, on_device

Precision = Literal["bf16", "fp32"]


def device_of(name: str) -> torch.device:
    """Return the PyTorch device: "auto" is a GPU if one is available, else the CPU; "cuda" requires a GPU.

    Raises `OptionError` if the GPU is not available or the name is unknown.
    """
    if name not in get_args(Device):
        raise OptionError(f"device is {name!r}, expected one of {', '.join(get_args(Device))}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        built = " (it was built without CUDA)" if torch.version.cuda is None and torch.version.hip is None else ""
        raise OptionError(f"device is 'cuda', but PyTorch finds no GPU here{built}; leave it out, or use 'cpu'")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Turn a GPU out-of-memory error into a `BothwaysError` with advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BothwaysError(f"the GPU has too little memory for {what}; {advice}") from error


def best_precision(device: torch.device | None = None) -> Precision:
    """Return bf16 if the CPU or GPU supports it natively, else fp32: emulated bf16 is slower than fp32."""
    if device is not None and device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if multiplies_bf16() else "fp32"


def set_precision(encoder: Encoder, precision: Precision) -> None:
    """Convert the large matrices of an encoder to `precision`; norms, embeddings, pooler and head stay fp32.

    On a GPU the norms of the layers are converted too: the kernel requires weights of the input's type. It computes
    mean and variance in fp32 either way.
    """
    kinds = (nn.Linear,) if encoder.embeddings.word.weight.device.type == "cpu" else (nn.Linear, nn.LayerNorm)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for module in encoder.modules():
        if isinstance(module, Layer):
            for part in module.children():
                if isinstance(part, kinds):
                    part.to(dtype)
    if encoder.embeddings.project is not None:
        encoder.embeddings.project.to(dtype)


def forward(model: TaskModel, batch: Batch, dropout: Dropout = NO_DROPOUT) -> torch.Tensor:
    """Packed batch -> (K, L) logits at its head positions, in the batch's order, fp32."""
    return model(*packed_inputs(batch, model.encoder), dropout)


def packed_inputs(
    batch: Batch, encoder: Encoder
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Packed | Varlen, torch.Tensor]:
    """Return the model inputs of a batch: (N,) ids, segment ids and positions, the layout, (K,) head positions."""
    device, heads = encoder.embeddings.word.weight.device, encoder.config.num_attention_heads
    half = next(encoder.layers.parameters()).dtype == torch.bfloat16
    flash = half and encoder.relative is None and has_flash_attention(device, encoder.config.hidden_size // heads)
    layout = (Varlen if flash else Packed).from_lengths(batch.lengths, heads, device)
    tokens = np.pad(np.stack([batch.ids, batch.type_ids, batch.positions]), ((0, 0), (0, layout.filler)))
    ids, type_ids, positions = on_device(tokens, device).unbind()
    return ids, type_ids, positions, layout, on_device(batch.head_positions, device)
