"""OpenVINO as an engine: an extra, and first tried in a process of its own.

It does not list every processor that it runs on, and has died with a signal on some (docs/performance.md).
"""

from __future__ import annotations

import importlib.util
import json
import queue
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bothways.batch import NEVER, Batch
from bothways.errors import BothwaysError, CheckpointError
from bothways.processor import cores, multiplies_bf16, processor
from bothways.runtime.exports import Export, graph_inputs
from bothways.storage import write_text

REMEMBERED = Path(".cache") / "bothways" / "openvino.json"  # in the home directory
PROBE_SECONDS = 60
# A product with 8-bit inputs and one with bf16, compiled and run as the engine does.
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
    """Runs an exported graph in OpenVINO, a stream for each batch at a time."""

    def __init__(self, export: Export, precision: str, pad_id: int, *, streams: int, max_tokens: int) -> None:
        import openvino

        self.streams, self.max_tokens, self.alone = streams, max_tokens, NEVER
        self.parameters = export.parameters
        self.weights = export.file("int8-static" if precision == "int8-static" else "fp32")
        self._pad_id = pad_id
        quick = precision == "bf16" or (precision == "int8-static" and multiplies_bf16())
        hint = "bf16" if quick else "f32"  # always said, for OpenVINO makes bf16 of fp32 by itself
        threads = max(1, cores() // streams)
        version = openvino.__version__.split("-")[0]
        self._about = f"OpenVINO {version}, {precision}, {streams} streams of {threads} thread(s)"
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": max(streams, cores()),
            "INFERENCE_PRECISION_HINT": hint,
        }
        try:
            compiled = openvino.Core().compile_model(self.weights, "CPU", settings)
        except RuntimeError as error:
            raise CheckpointError(f"{self.weights}: OpenVINO cannot run it ({str(error).splitlines()[-1]})") from error
        # Two threads that hand over their first arrays at once wait for each other for ever: this is the first.
        openvino.Tensor(np.zeros(1, np.float32)).element_type.to_dtype()
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._free.put(compiled.create_infer_request())

    def describe(self) -> str:
        """Version, precision and threads."""
        return self._about

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order."""
        request = self._free.get()
        try:
            answers = request.infer(graph_inputs(batch, self._pad_id))
            logits: np.ndarray = next(iter(answers.values())).copy()  # the request writes over its own
        finally:
            self._free.put(request)
        return logits


def why_no_openvino() -> str | None:
    """Why OpenVINO cannot be used here, if it cannot; what a trial process found is remembered for this processor."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install 'bothways[openvino]'"
    from importlib.metadata import version  # slow to import, and most predictions do without OpenVINO

    key = f"{version('openvino')} on {processor()}"
    path = Path.home() / REMEMBERED
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or key not in known:
        found = _try()
        if found is not None and "did not answer" in found:
            return found  # a machine that is busy now may be free the next time
        known = (known if isinstance(known, dict) else {}) | {key: found}
        with suppress(OSError, BothwaysError):  # if it cannot be remembered, it is tried again the next time
            write_text(path, json.dumps(known, indent=2) + "\n")
    reason: str | None = known[key]
    return reason and f"{reason} (remembered in {path}; remove it to try again)"


def _try() -> str | None:
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"OpenVINO did not answer within {PROBE_SECONDS} seconds on this processor"
    if done.returncode < 0:
        return f"OpenVINO died with signal {-done.returncode} on this processor"
    if done.returncode:
        return f"OpenVINO failed on this processor ({(done.stderr.strip().splitlines() or ['no message'])[-1]})"
    return None
