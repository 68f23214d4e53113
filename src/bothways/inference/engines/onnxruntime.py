"""ONNX Runtime as an engine, the default for exported models."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bothways.batch import NEVER, Batch
from bothways.errors import CheckpointError
from bothways.hardware import cores, environment
from bothways.inference.engines.engine import MAX_TOKENS, UNBATCHED_FROM, onnx_inputs
from bothways.inference.engines.sessions import Sessions
from bothways.inference.onnx.record import ExportRecord, OnnxFile, OnnxPrecision, mapped

TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"
SLOWER_FUSED = ("SkipLayerNormFusion", "BiasGeluFusion")  # these are up to five times slower than their parts


MAX_SESSIONS = 8  # per model, each with a copy of the weights; more threads share sessions


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with telemetry disabled: since 1.29 its wheels report models and hardware to the vendor.

    An existing value of the variable, or an earlier import, takes precedence.
    """
    with environment(TELEMETRY_OFF, os.environ.get(TELEMETRY_OFF, "1")):  # read once, on import
        import onnxruntime
    return onnxruntime


class OnnxRuntimeEngine:
    """Runs an ONNX model in ONNX Runtime, with one session per concurrent batch.

    Threads that share a session also share its memory, which may be in another core's cache; they do so only beyond
    `MAX_SESSIONS`. Sessions are opened when needed: the first one at once, but after a fork or unpickling with the
    first batch, the second one when two batches first run concurrently. All have the same file content.
    """

    def __init__(
        self,
        export: ExportRecord,
        path: Path,
        precision: OnnxPrecision,
        pad_id: int,
        *,
        workers: int = 1,
        max_tokens: int = MAX_TOKENS,
        threads: int | None = None,
    ) -> None:
        onnxruntime = import_onnxruntime()
        self.workers, self.max_tokens = workers, max_tokens
        self.unbatched_from = UNBATCHED_FROM if precision == "int8" else NEVER
        self.parameters, self.weights = export.parameters, path
        self._pad_id = pad_id
        self._threads = max(1, (threads or cores()) // workers)
        self._about = (
            f"ONNX Runtime {onnxruntime.__version__}, {precision}, {workers} workers of {self._threads} thread(s)"
        )
        self._file = export.to_open(precision, path)
        self._sessions = Sessions(self._open, workers, MAX_SESSIONS)
        self._sessions.give(self._sessions.take())  # report errors in the file now

    def describe(self) -> str:
        """Return version, precision and threads."""
        return self._about

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._about}>"

    def open(self) -> None:
        """Open the sessions of all workers now."""
        self._sessions.open()

    def run(self, batch: Batch) -> np.ndarray:
        """Packed batch -> (K, L) logits at its head positions, in the batch's order."""
        sessions, place = self._sessions, None
        if sessions.process != os.getpid():  # after a fork, missing threads may hold locks
            sessions = self._sessions = Sessions(self._open, self.workers, MAX_SESSIONS)
        try:
            place = sessions.take()
            names = [each.name for each in sessions[place].get_inputs()]  # files of version 0.1 use other names
            values = dict(zip(names, onnx_inputs(batch, self._pad_id).values(), strict=True))
            logits: np.ndarray = sessions[place].run(None, values)[0]
        finally:
            if place is not None:
                sessions.give(place)
        return logits

    def __getstate__(self) -> dict[str, Any]:
        file = replace(self._file, path=self._file.path.absolute(), _seen=None)
        return {name: value for name, value in self.__dict__.items() if name != "_sessions"} | {"_file": file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._sessions = Sessions(self._open, self.workers, MAX_SESSIONS)

    def _open(self) -> Any:
        return open_session(self._file, threads=self._threads)


def open_session(file: OnnxFile, *, threads: int) -> Any:
    """Open an ONNX Runtime session; raises `CheckpointError` if the file cannot be read."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern = False  # helps only with repeated shapes; ours rarely repeat
    options.log_severity_level = 3

    def make(path: Path) -> Any:
        weights = {name: each for shared in file.shared for name, each in mapped(shared.path).items()}
        if weights:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
            options.add_external_initializers(list(weights), values)
        try:
            return onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOWER_FUSED)
            )
        except Exception as error:
            raise CheckpointError(f"{path}: ONNX Runtime cannot read it ({_line(error)})") from error

    return file.opened(make)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
