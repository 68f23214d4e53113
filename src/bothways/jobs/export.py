"""Exports a model to ONNX."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bothways.data.examples import Example
from bothways.data.tables import Columns, Source
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation.accuracy_check import MAX_DROP, CheckedExport
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.export import write_attentions_model
from bothways.inference.onnx.record import FOLDER, ONNX_PRECISIONS, ExportRecord, OnnxPrecision
from bothways.jobs.sources import columns_for
from bothways.model.catalogue import find_model
from bothways.progress import Reporter
from bothways.tasks import TRAINED, Trainable


def export(
    model: str | Path,
    *,
    precision: OnnxPrecision | None = None,
    calibrate: Source | None = None,
    task: str | None = None,
    columns: Columns | None = None,
    max_drop: float = MAX_DROP,
    out: str | Path | None = None,
    attentions: bool = False,
    reporter: Reporter | None = None,
) -> ExportRecord:
    """Export a model to ONNX, to run it without PyTorch, in the folder `onnx/` of its directory.

    With `out`, the model is first copied to that new directory; models in installed packages and in the hub cache are
    not modified. The accuracy of int8 and int8-static is checked on `calibrate`, a file for the model's task, with
    labels if the task has them; an ONNX model whose metric drops by more than `max_drop` is not used.

    `precision` defaults to int8. `attentions` adds an fp32 ONNX model that returns the attention probabilities of all
    layers; without `precision` and `calibrate`, only this model is written, and the other ONNX models stay.

    Raises `OptionError` for int8 without `calibrate`, `DataError` for a file that does not fit the model.
    """
    only_attentions = attentions and precision is None and calibrate is None
    precision = precision or "int8"
    if precision not in ONNX_PRECISIONS:
        raise OptionError(f"precision {precision!r} is not one of {', '.join(ONNX_PRECISIONS)}")
    if precision != "fp32" and calibrate is None and not only_attentions:
        raise OptionError(
            f"{precision} rounds the weights, so its accuracy is checked first: give --calibrate FILE, labeled texts "
            "like those that it will read (dev data, never test data)"
        )
    model_directory = exportable(model, task, out, with_onnx=only_attentions)
    reporter = reporter or Reporter(quiet=True)
    if only_attentions:
        return write_attentions_model(model_directory, reporter)
    examples: Sequence[Example] = ()
    if calibrate is not None:
        labeled = isinstance(model_directory.task, Trainable) and model_directory.task.name in TRAINED
        examples = model_directory.task.read(calibrate, columns_for(model_directory, columns), labeled=labeled)
        if isinstance(model_directory.task, Trainable) and labeled:
            model_directory.task.check(examples)
    made = CheckedExport(model_directory, examples, reporter, max_drop=max_drop)(precision)
    return write_attentions_model(model_directory, reporter) if attentions else made


def exportable(
    model: str | Path, task: str | None, out: str | Path | None = None, *, with_onnx: bool = False
) -> ModelDirectory:
    """Return the model to export, copied to `out` if given; raises `OptionError` if its directory is read-only."""
    if task == "zero_shot":
        raise OptionError(
            "zero_shot uses the ONNX model of pairs: give --task pairs, or no --task for a model trained with bothways"
        )
    directory = find_model(model)
    if out is not None:
        directory = _copied(directory, Path(out), task, with_onnx=with_onnx)
    elif not Path(model).is_dir():
        raise OptionError(
            f"{model} is in {directory}, which belongs to an installed package or the cache of the hub and is not "
            f"modified; export a copy instead: bothways export {model} --out DIR"
        )
    return ModelDirectory.read(directory, task)


def _copied(directory: Path, out: Path, task: str | None, *, with_onnx: bool) -> Path:
    """Copy a model, with its ONNX models if `with_onnx`; raises `OptionError` if `out` is not new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"{out} is there already, expected a new directory to copy {directory} to")
    ModelDirectory.read(directory, task)  # raises before the copy if the model cannot be exported
    left_out = shutil.ignore_patterns("tensorboard", ".*", *([] if with_onnx else [FOLDER]))
    try:
        shutil.copytree(directory, out, ignore=left_out, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise BothwaysError(f"{out}: {directory} cannot be copied there ({error})") from error
    return out
