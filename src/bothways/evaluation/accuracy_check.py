"""The accuracy check: compares an int8 model with the fp32 model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from bothways.batch import Batch, budgeted, make_batch
from bothways.data.examples import Example
from bothways.errors import BothwaysError, DataError
from bothways.hardware import cores
from bothways.inference.choice import LARGE, open_engine, openvino_is_faster
from bothways.inference.engines.engine import MAX_TOKENS, UNBATCHED_FROM, Engine
from bothways.inference.engines.onnxruntime import OnnxRuntimeEngine
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.export import write_onnx_model
from bothways.inference.onnx.record import ExportRecord, OnnxModelRecord, OnnxPrecision
from bothways.inference.predictor import Predictor
from bothways.progress import Reporter
from bothways.tasks import Task, Trainable
from bothways.text.tokenizer import Encoded

MAX_DROP = 0.005  # of the task's metric: half a point
MIN_AGREEMENT = 0.9  # of the predictions
MAX_EXAMPLES = 2000  # enough to detect a drop of half a point
CALIBRATION = 256  # examples that calibrate int8-static
MIN_COSINE = 0.99  # of two vectors that count as the same prediction
SPREAD_SHARE = 0.1  # of the standard deviation: numbers within this distance count as the same prediction


class CheckedExport:
    """Exports a model and checks each precision except fp32 against the fp32 predictions.

    Uses at most `MAX_EXAMPLES` of the examples, evenly spaced. A rejected ONNX model stays in the folder and in the
    record, but is not used.
    """

    def __init__(
        self,
        model_directory: ModelDirectory,
        examples: Sequence[Example],
        reporter: Reporter,
        *,
        max_drop: float = MAX_DROP,
    ) -> None:
        usable = [example for example in examples if model_directory.task.problem(example) is None]
        self._examples = usable[:: -(-len(usable) // MAX_EXAMPLES) or 1]
        self._model_directory, self._reporter, self._max_drop = model_directory, reporter, max_drop

    def __call__(self, precision: OnnxPrecision) -> ExportRecord:
        """Write the ONNX model in a precision, and check its accuracy unless it is fp32.

        Raises `DataError` if no example can be checked.
        """
        task, examples, reporter = self._model_directory.task, self._examples, self._reporter
        if precision != "fp32" and not examples:
            raise DataError(
                f"found no text that {task.name} can process, so the accuracy of {precision} cannot be checked"
            )
        batches: list[Batch] = []
        if precision == "int8-static":
            windows = self._windows()
            groups = budgeted([len(window.ids) for window in windows], MAX_TOKENS)
            batches = [make_batch([windows[index] for index in group]) for group in groups]
        export = write_onnx_model(self._model_directory, precision, batches, reporter)
        if precision == "fp32":
            return export
        pad_id = self._model_directory.config.pad_token_id
        engine = OnnxRuntimeEngine(export, export.file(precision), precision, pad_id, workers=cores())
        predictions = self._predictions(engine)
        if task.head == "masked" and not any(prediction.masks for prediction in predictions):
            raise DataError(
                f"found no masked word ([MASK] or <mask>), so the accuracy of {precision} cannot be checked"
            )
        onnx_model = check_accuracy(
            export.models[precision], task, examples, self._reference, predictions, max_drop=self._max_drop
        )
        export = export.with_model(precision, onnx_model)
        export.write()
        state = "accepted" if onnx_model.rejected is None else f"REJECTED: {onnx_model.rejected}"
        tell = reporter.say if onnx_model.rejected is None else reporter.note
        tell(f"{precision} ONNX model {state} ({onnx_model.measured()})")
        return export

    def reads_long(self) -> bool:
        """Return whether at least half of the tokens are in windows of at least `UNBATCHED_FROM` tokens."""
        lengths = [len(window.ids) for window in self._windows()]
        return 2 * sum(length for length in lengths if length >= UNBATCHED_FROM) >= max(1, sum(lengths))

    @cached_property
    def _reference(self) -> list[Any]:
        """The fp32 predictions."""
        return self._predictions(
            open_engine(self._model_directory, Reporter(quiet=True), engine="torch", precision="fp32")
        )

    def _predictions(self, engine: Engine) -> list[Any]:
        predictor = Predictor(
            self._model_directory.task, self._model_directory.tokenizer, engine, self._model_directory
        )
        return predictor.predict_examples(self._examples, self._reporter)

    def _windows(self) -> list[Encoded]:
        """Return the windows of `CALIBRATION` examples."""
        some = self._examples[:: -(-len(self._examples) // CALIBRATION) or 1]
        return self._model_directory.task.encode(some, self._model_directory.tokenizer)


def export_accepted(model_directory: ModelDirectory, examples: Sequence[Example], reporter: Reporter) -> str:
    """Export an int8 model, or an fp32 model if int8 fails the accuracy check or there are no examples.

    Also export an int8-static model if the examples are long or the model is large, and OpenVINO is faster for them on
    this machine. Return a short description of the result.
    """
    export, rejected = CheckedExport(model_directory, examples, reporter), "it needs labeled texts to be checked on"
    if examples:
        onnx_model = export("int8").models["int8"]
        if onnx_model.rejected is None:
            if (model_directory.config.multiplications >= LARGE or export.reads_long()) and openvino_is_faster():
                try:
                    export("int8-static")
                except BothwaysError as error:
                    reporter.note(f"no int8-static ONNX model for OpenVINO: {error}")
            return f"int8, {onnx_model.measured()}"
        rejected = onnx_model.rejected
    try:
        export("fp32")
    except BothwaysError as error:
        return f"none; int8 was rejected: {rejected}; {error}"
    return f"fp32; int8 was rejected: {rejected}" if examples else f"fp32; no int8: {rejected}"


def check_accuracy(
    onnx_model: OnnxModelRecord,
    task: Task,
    examples: Sequence[Example],
    reference: Sequence[Any],
    predictions: Sequence[Any],
    *,
    max_drop: float = MAX_DROP,
) -> OnnxModelRecord:
    """Return the record of an ONNX model with its agreement and metric compared with fp32.

    The model is rejected if the metric drops by more than `max_drop` plus one example, or if fewer than `MIN_AGREEMENT`
    of the predictions agree. Examples without labels are checked for agreement only. With a `max_drop` of 1, every
    model is accepted.
    """
    agreement = float(np.mean(_same(task, reference, predictions)))
    onnx_model = replace(onnx_model, agreement=agreement, examples=len(examples), rejected=None)
    reasons = []
    if agreement < MIN_AGREEMENT:
        reasons.append(f"{100 * agreement:.1f} % of its answers agree with fp32, expected at least 90 %")
    if isinstance(task, Trainable) and all(example.reference is not None for example in examples):
        before, after = (_score(task, each, examples) for each in (reference, predictions))
        onnx_model = replace(onnx_model, metric=task.headline, reference=before, value=after)
        if before - after > max_drop + 1 / len(examples):
            reasons.append(
                f"its {task.headline} is {after:.4f} and that of fp32 {before:.4f}, "
                f"a drop of more than {100 * max_drop:g} points"
            )
    return replace(onnx_model, rejected="; ".join(reasons) if reasons and max_drop < 1 else None)


def _score(task: Trainable, predictions: Sequence[Any], examples: Sequence[Example]) -> float:
    references = [example.reference for example in examples if example.reference is not None]
    scores = task.score(predictions, references, rng=np.random.default_rng(0), resamples=2)
    return scores.metrics[task.headline].value


def _same(task: Task, reference: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
    """Return whether each pair of predictions agrees (N,)."""
    pairs = list(zip(reference, predictions, strict=True))
    if task.head in ("hidden", "pooled"):
        return np.array([_cosine(first.vector, second.vector) >= MIN_COSINE for first, second in pairs])
    if getattr(task, "kind", None) == "regression":
        numbers = np.array([(first.score, second.score) for first, second in pairs])
        return np.abs(numbers[:, 0] - numbers[:, 1]) <= SPREAD_SHARE * numbers[:, 0].std()
    return np.array([first.summary()[0] == second.summary()[0] for first, second in pairs])


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    if not first.size or not second.size:
        return float(first.size == second.size)
    return float(first.ravel() @ second.ravel() / (np.linalg.norm(first) * np.linalg.norm(second) + 1e-12))
