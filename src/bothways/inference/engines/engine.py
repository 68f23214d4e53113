"""The interface that every engine has, and what each of them can run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from bothways.batch import Batch
from bothways.errors import BothwaysError

READ_STEP = 16  # with a requested shape, the number of tokens the head reads is rounded up to a multiple of this


def onnx_inputs(batch: Batch, pad_id: int, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """A packed batch as the inputs of an ONNX model, in their order: (B, T) ids, mask, segment ids, (K,) positions.

    `shape` may request a larger (B, T); positions of padding are then appended after those that the batch reads.
    """
    ids, mask, type_ids = batch.padded(pad_id, shape)
    positions = batch.padded_head_positions(ids.shape[1])
    if shape is not None:
        read, windows = len(positions), len(ids)
        once = (batch.counts == 1).all()  # then each further window is read once, too
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


MAX_TOKENS = 384  # in a batch: what a core computes on then stays in its cache


TORCH_TOKENS = 2048  # the same for PyTorch, which has one batch at a time for all cores


COMPILED = (".short.so", ".long.so")  # the libraries of compiled layers, for short and for long windows
FUSED_TOKENS = 512  # and for its fused layers


UNBATCHED_FROM = (
    128  # tokens: a product with so many rows is full, and without padding the ONNX model takes the fast attention
)


ABLE: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("int8", "int8-static", "fp32"),  # no bf16: it has no such products on processors
    "openvino": ("int8-static", "bf16", "fp32"),  # int8 is made of operators that only ONNX Runtime has
    "torch": ("int8-static", "bf16", "fp32"),
}


class Engine(Protocol):
    """Runs batches of at most `max_tokens` tokens (or of one longer window), `workers` of them at a time.

    Windows of `unbatched_from` tokens and more are best run one by one.
    """

    unbatched_from: int
    workers: int

    @property
    def max_tokens(self) -> int:
        """The budget of a batch."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        ...

    @property
    def weights(self) -> Path | None:
        """The file that it reads, if it reads one."""
        ...

    def describe(self) -> str:
        """The engine, its precision and its threads, in a few words."""
        ...

    def open(self) -> None:
        """Open now what is otherwise opened with the first batches: a session for each worker."""
        ...

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the tokens it reads, in the batch's order."""
        ...


def finite_logits(engine: Engine, batch: Batch) -> np.ndarray:
    """The logits of a batch; raises `BothwaysError` if some are NaN or infinite: their scores mean nothing."""
    logits = engine.run(batch)
    if not np.isfinite(logits).all():
        raise BothwaysError(
            f"the model gave NaN or infinite numbers in {engine.describe()}, expected finite ones; run it in fp32 "
            "(precision 'fp32'), which holds the largest ones; if fp32 gives them too, the weights are damaged"
        )
    return logits
