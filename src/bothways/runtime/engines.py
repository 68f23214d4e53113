"""What runs a model: one small interface, three engines, and the choice among them."""

from __future__ import annotations

import importlib.util
import queue
import threading
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from bothways.batch import NEVER, Batch
from bothways.errors import CheckpointError, MissingDependencyError, OptionError
from bothways.model.config import WEIGHTS
from bothways.processor import cores, multiplies_bf16, multiplies_bytes, processor
from bothways.runtime.artifact import Artifact
from bothways.runtime.exports import Export, Form, Plan, graph_inputs, read_tuned
from bothways.runtime.openvino import OpenVinoEngine, why_no_openvino
from bothways.tasks import Task
from bothways.terminal import Reporter

Name = Literal["onnxruntime", "openvino", "torch"]
Precision = Literal["int8", "int8-static", "bf16", "fp32"]
MAX_TOKENS = 384  # in a batch: what a core computes on then stays in its cache
SLOWER_FUSED = ("SkipLayerNormFusion", "BiasGeluFusion")  # these take up to five times as long as their parts
ALONE = 128  # pieces: a product with so many rows is full, and without padding the graph takes the fast attention
ABLE: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("int8", "int8-static", "fp32"),  # no bf16: it has no such products on processors
    "openvino": ("int8-static", "bf16", "fp32"),  # int8 is made of operators that only ONNX Runtime has
    "torch": ("bf16", "fp32"),
}


class Engine(Protocol):
    """Runs batches of at most `max_tokens` tokens (or of one longer window), `streams` of them at a time.

    Windows of `alone` tokens and more are best run one by one.
    """

    max_tokens: int
    alone: int
    streams: int

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

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order."""
        ...


class OnnxRuntimeEngine:
    """Runs an exported graph in ONNX Runtime, in a session of its own for each batch at a time.

    Threads that share a session also share its memory, and so compute on what the other core's cache holds. The
    second session is opened when two batches are first run at once.
    """

    def __init__(
        self, export: Export, graph: Path, form: Form, pad_id: int, *, streams: int = 1, max_tokens: int = MAX_TOKENS
    ) -> None:
        import onnxruntime

        self.streams, self.max_tokens = streams, max_tokens
        self.alone = ALONE if form == "int8" else NEVER
        self.parameters, self.weights = export.parameters, graph
        self._pad_id = pad_id
        self._threads = max(1, cores() // streams)
        self._about = f"ONNX Runtime {onnxruntime.__version__}, {form}, {streams} streams of {self._threads} thread(s)"
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free.put(self._open())
        self._opened = 1

    def describe(self) -> str:
        """Version, precision and threads."""
        return self._about

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order."""
        session = self._take()
        try:
            logits: np.ndarray = session.run(None, graph_inputs(batch, self._pad_id))[0]
        finally:
            self._free.put(session)
        return logits

    def _take(self) -> Any:
        """A session that nobody uses."""
        with self._lock:
            if self._free.empty() and self._opened < self.streams:
                self._free.put(self._open())
                self._opened += 1
        return self._free.get()

    def _open(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.enable_mem_pattern = False  # it plans for shapes that come again; ours rarely do
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                self.weights,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(SLOWER_FUSED),
            )
        except Exception as error:
            raise CheckpointError(f"{self.weights}: ONNX Runtime cannot read it ({_line(error)})") from error


def open_engine(
    artifact: Artifact,
    reporter: Reporter,
    *,
    engine: Name | None = None,
    precision: Precision | None = None,
    plan: Plan | None = None,
) -> Engine:
    """The engine for a model directory.

    Without `engine` and `precision` the plan that `bothways tune` found fastest on this processor; without one the
    first that is there of an accepted int8 graph, an fp32 graph (both in ONNX Runtime), PyTorch in bf16 where the
    processor has it, PyTorch in fp32. With one of them, the first that fits. `plan` says all.

    Raises `OptionError` for what no engine can, `CheckpointError` for what was not exported,
    `MissingDependencyError` for what is not installed.
    """
    if engine is not None and engine not in ABLE:
        raise OptionError(f"engine {engine!r} is not one of {', '.join(ABLE)}")
    known = list(dict.fromkeys(each for able in ABLE.values() for each in able))
    if precision is not None and precision not in known:
        raise OptionError(f"precision {precision!r} is not one of {', '.join(known)}")
    if engine is not None and precision is not None and precision not in ABLE[engine]:
        raise OptionError(f"{engine} does not run {precision}; it runs {', '.join(ABLE[engine])}")
    unasked = engine is None and precision is None and plan is None
    export = _export_for(artifact, reporter)
    plans = _plans(artifact, export, reporter, plan.engine if plan else engine, plan.precision if plan else precision)
    if not plans:
        raise _nothing_fits(artifact, export, engine, precision)
    plan = plan or plans[0]
    if plan.engine == "torch":
        from bothways.model.engine import open_torch_engine

        opened = open_torch_engine(
            artifact.directory,
            artifact.task.head,
            artifact.task.outputs,
            "bf16" if plan.precision == "bf16" else "fp32",
            reporter,
        )
        if export is None and unasked:
            reporter.note(f"no graph for {artifact.task.name} in {artifact.directory}, so PyTorch runs it, more slowly")
        return opened
    assert export is not None
    pad_id = artifact.config.pad_token_id
    if plan.engine == "openvino":
        return OpenVinoEngine(export, plan.precision, pad_id, streams=plan.streams, max_tokens=plan.max_tokens)
    form: Form = "fp32" if plan.precision == "fp32" else "int8" if plan.precision == "int8" else "int8-static"
    return OnnxRuntimeEngine(export, export.file(form), form, pad_id, streams=plan.streams, max_tokens=plan.max_tokens)


def tuned_key(task: Task) -> str:
    """What a measured plan holds for: this processor, and graphs with this head."""
    return f"{processor()}; {task.head} {task.outputs}"


def _export_for(artifact: Artifact, reporter: Reporter) -> Export | None:
    """The exported graphs, if they are for what the task asks."""
    export = Export.read(artifact.directory)
    task = artifact.task
    reason = export.stale(artifact.config) if export is not None else None
    if reason is not None and not (artifact.directory / WEIGHTS).is_file():
        raise CheckpointError(f"{reason}; put back what belongs together")
    if reason is not None:
        reporter.note(f"{reason}, so they are not used; bothways export {artifact.directory} makes others")
        return None
    if export is not None and (export.head, export.outputs) != (task.head, task.outputs):
        reporter.note(
            f"the graphs in {artifact.directory} answer with the head {export.head!r}, {task.name} asks for "
            f"{task.head!r}, so they are not used; bothways export {artifact.directory} --task {task.name} makes others"
        )
        return None
    return export


def _plans(
    artifact: Artifact, export: Export | None, reporter: Reporter, engine: str | None, precision: str | None
) -> list[Plan]:
    """What can be run here and fits, best first."""
    free = engine is None and precision is None
    tuned = read_tuned(artifact.directory, tuned_key(artifact.task)) if free else None
    graphs = [] if export is None else _usable(export, reporter, free=precision is None)
    found: list[tuple[str, str]] = [("onnxruntime", form) for form in graphs]
    if export is not None and "openvino" in (engine, tuned and tuned.engine):
        reason = why_no_openvino()
        if reason is not None and engine == "openvino":
            raise MissingDependencyError(reason)
        if reason is not None:
            reporter.note(f"{reason}; instead of the plan that was fastest, {tuned}, a slower one runs")
        else:
            able = {"int8-static": "int8-static", "bf16": "fp32", "fp32": "fp32"}
            found += [("openvino", kind) for kind, form in able.items() if form in graphs]
    has_weights = export is None or (artifact.directory / WEIGHTS).is_file()  # else the graph may be all there is
    if importlib.util.find_spec("torch") is not None and has_weights:
        found += [("torch", kind) for kind in (("bf16", "fp32") if multiplies_bf16() else ("fp32", "bf16"))]
    plans = [
        Plan(name, kind, 1 if name == "torch" else cores(), MAX_TOKENS)
        for name, kind in found
        if engine in (None, name) and precision in (None, kind)
    ]
    if tuned is not None and (tuned.engine, tuned.precision) in found:
        plans.insert(0, tuned)
    elif tuned is not None:
        reporter.note(
            f"the plan that was fastest, {tuned}, cannot be followed here any more; bothways tune finds another"
        )
    return plans


def _usable(export: Export, reporter: Reporter, *, free: bool) -> list[Form]:
    """The graphs to choose from, best first; where the user is `free` of wishes, not those that the gate rejected."""
    order: list[Form] = [form for form in ("int8", "fp32", "int8-static") if form in export.graphs]
    if not free:
        return order
    for form in order:
        if export.graphs[form].rejected is not None:
            reporter.note(f"the {form} graph is not used: {export.graphs[form].rejected}")
    order = [form for form in order if export.graphs[form].rejected is None]
    if order[:1] == ["int8"] and not multiplies_bytes():
        reporter.note(
            "this processor has no exact 8-bit products (VNNI): answers may be off, and slower than they could"
        )
    return order


def _nothing_fits(artifact: Artifact, export: Export | None, engine: str | None, precision: str | None) -> Exception:
    directory, there = artifact.directory, ", ".join(export.graphs) if export and export.graphs else "none"
    if export is not None and engine in (None, "torch") and precision in (None, "bf16", "fp32"):
        return MissingDependencyError(
            f"{directory}: what was asked for takes PyTorch (pip install 'bothways[train]') and {WEIGHTS}; "
            f"exported, and so able to run without both, are: {there}"
        )
    if engine in (None, "torch") and precision in (None, "bf16", "fp32"):
        return MissingDependencyError(
            f"{directory}: there is no exported graph for this task, so running it needs PyTorch "
            "(pip install 'bothways[train]'); where PyTorch is, bothways export writes a graph that runs without it"
        )
    form = precision if precision in ("int8", "int8-static") else "int8-static" if engine == "openvino" else "fp32"
    wanted = " ".join(each for each in (engine, precision) if each)
    return CheckpointError(
        f"{directory}: no graph that {wanted} could run; exported are: {there} "
        f"(bothways export {directory} --precision {form} makes one)"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
