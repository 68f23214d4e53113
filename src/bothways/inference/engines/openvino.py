"""OpenVINO as an engine: an optional extra, first tested in a separate process.

OpenVINO does not list all supported processors, and crashed on some (docs/performance.md).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bothways.batch import NEVER, Batch
from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import cores, multiplies_bf16, processor
from bothways.inference.engines.engine import onnx_inputs
from bothways.inference.engines.sessions import Sessions
from bothways.inference.engines.shapes import Shapes
from bothways.inference.onnx.record import ExportRecord, OnnxPrecision
from bothways.storage import user_cache, write_text

PROBE_SECONDS = 60
# A product with 8-bit inputs, compiled and run like the engine's models, in fp32 and bf16.
_PROBE = """
import numpy as np, openvino as ov, openvino.opset13 as ops
given = ops.parameter([-1, 64], np.float32)
low, high = (ops.constant(np.float32(x)) for x in (-1, 1))
product = ops.matmul(ops.fake_quantize(given, low, high, low, high, 255), np.ones((64, 64), np.float32), False, False)
for hint in ("f32", "bf16"):
    made = ov.Core().compile_model(ov.Model([product], [given]), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    assert np.isfinite(made(np.ones((8, 64), np.float32))[0]).all()
"""


class OpenVinoEngine:
    """Runs an ONNX model in OpenVINO, with one stream per concurrent batch.

    It can be pickled; unpickling opens the ONNX model again. It raises `BothwaysError` after a fork: a fork does not
    copy its threads, and waiting for them would hang.
    """

    def __init__(
        self,
        export: ExportRecord,
        precision: str,
        pad_id: int,
        *,
        multiplications: int,
        workers: int,
        max_tokens: int,
        threads: int | None = None,
    ) -> None:
        """`multiplications` is the number per token in the linear layers."""
        import openvino

        onnx_precision: OnnxPrecision = "int8-static" if precision == "int8-static" else "fp32"
        self.workers, self.max_tokens, self.unbatched_from = workers, max_tokens, NEVER
        self.parameters, self.weights = export.parameters, export.file(onnx_precision)
        self._pad_id, self._threads = pad_id, max(workers, threads or cores())
        quick = precision == "bf16" or (precision == "int8-static" and multiplies_bf16())
        self._hint = "bf16" if quick else "f32"  # always set: by default OpenVINO runs fp32 models in bf16
        version = openvino.__version__.split("-")[0]
        self._about = f"OpenVINO {version}, {precision}, {workers} workers of {self._threads // workers} thread(s)"
        self._file = export.to_open(onnx_precision)
        self._compiled: Any = None
        self._multiplications = multiplications
        self._shapes = Shapes(multiplications)
        self._requests = Sessions(self._request, workers, workers)
        self._requests.give(self._requests.take())  # report errors in the file now

    def describe(self) -> str:
        """Return version, precision and threads."""
        return self._about

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._about}>"

    def open(self) -> None:
        """Create the requests of all workers now."""
        self._requests.open()

    def run(self, batch: Batch) -> np.ndarray:
        """Packed batch -> (K, L) logits at its head positions, in the batch's order."""
        _check_process()
        place = None
        try:
            place = self._requests.take()
            shape = self._shapes.fit(len(batch.lengths), int(batch.lengths[0]))
            answers = self._requests[place].infer(list(onnx_inputs(batch, self._pad_id, shape).values()))
            read = len(batch.head_positions)
            logits: np.ndarray = next(iter(answers.values()))[:read].copy()  # the request reuses its output buffer
        finally:
            if place is not None:
                self._requests.give(place)
        return logits

    def __getstate__(self) -> dict[str, Any]:
        file = replace(self._file, path=self._file.path.absolute(), _seen=None)
        return self.__dict__ | {"_file": file, "_compiled": None, "_requests": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._shapes = Shapes(self._multiplications)
        self._requests = Sessions(self._request, self.workers, self.workers)

    def _request(self) -> Any:
        """Create a request to the compiled model; the first call compiles it."""
        if self._compiled is None:
            _check_process()
            self._compiled = self._file.opened(self._compile)
        return self._compiled.create_infer_request()

    def _compile(self, path: Path) -> Any:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": self.workers,
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": self._hint,
        }
        try:
            compiled = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: OpenVINO cannot run it ({str(error).splitlines()[-1]})") from error
        # Two threads that pass their first arrays at the same time deadlock, so pass a first one here.
        openvino.Tensor(np.zeros(1, np.float32)).element_type.to_dtype()
        return compiled


@cache
def _first_process() -> int:
    """Return the id of the process that used OpenVINO first; forked children inherit the cached value."""
    return os.getpid()


def runs_here() -> bool:
    """Return whether OpenVINO can run in this process: it hangs in one that was forked from a process that used it."""
    return not _first_process.cache_info().currsize or _first_process() == os.getpid()


def _check_process() -> None:
    """Raise `BothwaysError` in a process that was forked from one that used OpenVINO."""
    if _first_process() != os.getpid():
        raise BothwaysError(
            "OpenVINO was used before this process was forked, and would hang in it: use OpenVINO after the fork only, "
            "not in the parent (or start the processes with 'spawn'), or use engine='onnxruntime', which supports fork"
        )


def why_no_openvino() -> str | None:
    """Return why OpenVINO cannot be used here, or None; the result of the trial is cached for this processor."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install 'bothways[openvino]'"
    from importlib.metadata import version  # slow to import, and rarely needed

    key = f"{version('openvino')}, numpy {version('numpy')}, on {processor()}"
    cache = user_cache()
    path = None if cache is None else cache / "openvino.json"
    try:
        known = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    if key not in known or not isinstance(known[key], str | None):
        found, lasting = _try()
        if path is None or not lasting:
            return found
        known[key] = found
        with suppress(OSError, BothwaysError):  # without a cache, the trial is repeated next time
            write_text(path, json.dumps(known, indent=2) + "\n")
    reason: str | None = known[key]
    return reason and f"{reason} (remembered in {path}; remove it to try again)"


def _try() -> tuple[str | None, bool]:
    """Return why OpenVINO fails here, or None, and whether the result is permanent: a timeout may not be.

    The process sees only installed packages, not the current directory.
    """
    places = {
        str(Path(found.origin).parent.parent)
        for found in map(importlib.util.find_spec, ("openvino", "numpy"))
        if found is not None and found.origin is not None
    }
    command = [sys.executable, "-I", "-c", f"import sys; sys.path += {sorted(places)!r}\n{_PROBE}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS, cwd=Path(sys.prefix)
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        if isinstance(error, OSError):
            return f"OpenVINO could not be tried on this processor ({error})", False
        return f"OpenVINO did not answer within {PROBE_SECONDS} seconds on this processor", False
    if done.returncode < 0:
        return f"OpenVINO died with signal {-done.returncode} on this processor", True
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"OpenVINO failed on this processor ({message})", False
    return None, True
