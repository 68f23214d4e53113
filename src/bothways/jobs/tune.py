"""Finds the best engine and settings for a model on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from bothways.data.examples import Example
from bothways.data.tables import Columns, Source
from bothways.errors import BothwaysError, DataError, OptionError
from bothways.evaluation.accuracy_check import MAX_DROP, MAX_EXAMPLES, CheckedExport
from bothways.evaluation.tune import Goal, Trial, tune_on
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FOLDER, ONNX_PRECISIONS, ExportRecord, OnnxPrecision
from bothways.inference.plan_files import export_for
from bothways.jobs.export import exportable
from bothways.jobs.sources import columns_for, named
from bothways.progress import Reporter
from bothways.tasks import Trainable

TUNE_CHARACTERS = 150_000  # so that the slowest plan takes seconds, not minutes


def tune(
    model: str | Path,
    data: Source,
    *,
    task: str | None = None,
    columns: Columns | None = None,
    max_drop: float = MAX_DROP,
    goal: Goal = "throughput",
    export: bool = True,
    compiling: bool = True,
    reporter: Reporter | None = None,
) -> list[Trial]:
    """Find the best plan for this model, machine and texts; later predictions use it.

    `goal` "throughput" maximizes texts/s, "latency" minimizes the time of a single text. Unless `export` is False,
    missing ONNX models are exported first; these texts calibrate int8-static and check the accuracy of both int8
    models. Unless `compiling` is False, for throughput, the layers of PyTorch are compiled if it is close to the
    fastest, which takes a minute or two and needs a C++ compiler. Plans that fail the accuracy check against fp32 (with
    labels, a drop of more than `max_drop`) are not used.

    Raises `DataError` for a file that does not fit the model, `OptionError` if nothing runs.
    """
    if goal not in get_args(Goal):
        raise OptionError(f"goal is {goal!r}, expected one of {', '.join(get_args(Goal))}")
    model_directory = exportable(model, task)
    columns = columns_for(model_directory, columns)
    reporter, labeled = reporter or Reporter(quiet=True), isinstance(model_directory.task, Trainable)
    try:
        examples = model_directory.task.read(data, columns, labeled=labeled)
        if isinstance(model_directory.task, Trainable):
            model_directory.task.check(examples)
    except DataError as error:
        examples = model_directory.task.read(data, columns, labeled=False)
        reporter.note(
            f"no labels to check accuracy with ({error}): engines are checked by their agreement with fp32 only"
        )
    examples = [example for example in examples if model_directory.task.problem(example) is None]
    if not examples:
        raise DataError(f"{named(data)}: no text to measure with")
    examples = examples[:: -(-len(examples) // MAX_EXAMPLES)]
    while len(examples) > 1 and sum(len(text) for example in examples for text in example.texts) > TUNE_CHARACTERS:
        examples = examples[::2]
    _export_missing(model_directory, examples, reporter, max_drop=max_drop, export=export)
    return tune_on(model_directory, examples, reporter, max_drop=max_drop, goal=goal, compiling=compiling)


def _export_missing(
    model_directory: ModelDirectory,
    examples: Sequence[Example],
    reporter: Reporter,
    *,
    max_drop: float,
    export: bool,
) -> None:
    """Export missing ONNX models; report exported models and models that are not measured."""
    record, _ = export_for(model_directory)
    models = {} if record is None else record.models
    for name, onnx_model in models.items():
        if onnx_model.rejected is not None:
            reporter.note(f"the {name} ONNX model is not measured: {onnx_model.rejected}")
    missing = [name for name in ONNX_PRECISIONS if name not in models]
    if not missing:
        return
    others = ExportRecord.read(model_directory.path)
    reasons: dict[str, list[OnnxPrecision]] = {}
    if not export:
        by_hand = f"bothways export {model_directory.path} --precision P writes it (with --calibrate FILE for int8)"
        reasons[by_hand] = missing
    elif record is None and others is not None and others.stale(model_directory.config) is None:
        reasons[f"it would replace the ONNX models of the head {others.head!r}"] = missing
    else:
        written, checked = [], CheckedExport(model_directory, examples, reporter, max_drop=max_drop)
        for name in missing:
            try:
                made = checked(name)
            except BothwaysError as error:
                reasons.setdefault(str(error), []).append(name)
                continue
            file = made.file(name)
            written.append(f"{FOLDER}/{file.name} ({name}, {file.stat().st_size / 1e6:,.1f} MB)")
        if written:
            reporter.note(f"exported to be measured: {', '.join(written)}; --no-export measures existing models only")
    for reason, names in reasons.items():
        reporter.note(f"not exported, so not measured: {', '.join(names)} ({reason})")
