"""The interface of all engines, and the precisions that each supports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from bothways.batch import Batch
from bothways.errors import BothwaysError

READ_STEP = 16  # with a requested shape, the number of tokens the head reads is rounded up to a multiple of this


def onnx_inputs(batch: Batch, pad_id: int, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Return a packed batch as inputs of an ONNX model, in order: (B, T) ids, mask, segment ids, (K,) positions.

    `shape` may request a larger (B, T); extra positions are then appended after those of the batch.
    """
    ids, mask, type_ids = batch.padded(pad_id, shape)
    positions = batch.padded_head_positions(ids.shape[1])
    if shape is not None:
        read, windows = len(positions), len(ids)
        once = (batch.counts == 1).all()  # then each extra window is read once, too
        rest = np.arange(len(batch.counts), windows) * ids.shape[1] if once else np.zeros(-read % READ_STEP, np.int64)
        positions = np.concatenate([positions, rest])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": type_ids,
        "head_positions": positions,
    }


Name = Literal["onnxruntime", "openvino", "torch"]


Precision = Literal["int8", "int8-static", "bf16", "fp32"]


MAX_TOKENS = 384  # per batch, so that the data of a core stays in its cache


TORCH_TOKENS = 2048  # the same for PyTorch, which runs one batch at a time on all cores


COMPILED = (".short.so", ".long.so")  # suffixes of the compiled libraries, for short and long windows
FUSED_TOKENS = 512  # the same for PyTorch's fused layers


UNBATCHED_FROM = 128  # tokens: products have enough rows, and without padding the ONNX model uses the fused attention


ABLE: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("int8", "int8-static", "fp32"),  # no bf16 products on CPUs
    "openvino": ("int8-static", "bf16", "fp32"),  # int8 uses operators of ONNX Runtime
    "torch": ("int8-static", "bf16", "fp32"),
}


class Engine(Protocol):
    """Runs batches of at most `max_tokens` tokens (or of one longer window), `workers` of them at a time.

    Windows of `unbatched_from` tokens or more run best one at a time.
    """

    unbatched_from: int
    workers: int

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens in a batch."""
        ...

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        ...

    @property
    def weights(self) -> Path | None:
        """The file of the weights, if any."""
        ...

    def describe(self) -> str:
        """Describe the engine, its precision and its threads briefly."""
        ...

    def open(self) -> None:
        """Open a session for each worker now, instead of with the first batches."""
        ...

    def run(self, batch: Batch) -> np.ndarray:
        """Packed batch -> (K, L) logits at its head positions, in the batch's order."""
        ...


def finite_logits(engine: Engine, batch: Batch) -> np.ndarray:
    """Return the logits of a batch; raises `BothwaysError` if any are NaN or infinite."""
    logits = engine.run(batch)
    if not np.isfinite(logits).all():
        raise BothwaysError(
            f"the model gave NaN or infinite numbers in {engine.describe()}, expected finite ones; run it in fp32 "
            "(precision 'fp32'), which has the largest range; if the problem remains, the weights are damaged"
        )
    return logits
