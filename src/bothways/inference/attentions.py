"""The attention probabilities of a model exported with `bothways export DIR --attentions`."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from bothways.errors import CheckpointError
from bothways.inference.engines.onnxruntime import open_session
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import ExportRecord, OnnxFile


class AttentionModel:
    """Computes attention probabilities in fp32; the first window opens the session.

    `layers` and `heads` are the encoder's.
    """

    def __init__(self, file: OnnxFile, *, layers: int, heads: int) -> None:
        self.layers, self.heads = layers, heads
        self._file = file
        self._session: Any = None
        self._lock = threading.Lock()

    def run(self, ids: np.ndarray, type_ids: np.ndarray) -> np.ndarray:
        """(T,) ids and type ids of a window -> (layers, H, T, T) probabilities, queries by keys.

        Windows are computed one at a time. Raises `CheckpointError` if the file is not the exported one.
        """
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": type_ids}
        with self._lock:
            self._session = self._session or open_session(self._file, threads=1)
            found: np.ndarray = self._session.run(
                None, {name: each[None].astype(np.int64) for name, each in given.items()}
            )[0]
        return found[0]


def find_attentions(model_directory: ModelDirectory) -> AttentionModel | None:
    """Return the attention model of a directory, or None if none was exported from its current weights."""
    try:
        export = ExportRecord.read(model_directory.path)
    except CheckpointError:  # reported when an engine is chosen
        return None
    file = None if export is None else export.attentions_to_open()
    if export is None or file is None or export.stale(model_directory.config) is not None:
        return None
    config = model_directory.config
    return AttentionModel(file, layers=config.num_hidden_layers, heads=config.num_attention_heads)
