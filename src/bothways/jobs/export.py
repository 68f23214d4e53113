"""Making a model run without PyTorch, and finding what runs it fastest here."""

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
    """Export the model to ONNX, so that it runs without PyTorch, into `onnx/` of its directory.

    With `out`, the model is copied into that new directory first; installed packages and the cache of the hub are not
    written to. The accuracy of int8 and int8-static is checked on `calibrate`, a file of the model's task, with labels
    if the task has them; an ONNX model whose metric falls by more than `max_drop` is not used.

    `precision` is int8 unless it is given. With `attentions`, an ONNX model of the attention probabilities of all
    layers is written as well (fp32); without `precision` and `calibrate` it is the only one, and the others stay.

    Raises `OptionError` for int8 without texts to check its accuracy on, `DataError` for a file that does not suit.
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
    """A model that can be exported, in `out` a copy of it; raises `OptionError` if its directory is not written to."""
    if task == "zero_shot":
        raise OptionError(
            "zero_shot runs the ONNX model of pairs: say --task pairs, or nothing for a model trained here"
        )
    directory = find_model(model)
    if out is not None:
        directory = _copied(directory, Path(out), task, with_onnx=with_onnx)
    elif not Path(model).is_dir():
        raise OptionError(
            f"{model} is in {directory}, which belongs to an installed package or the cache of the hub and is not "
            f"written to; make a copy of your own: bothways export {model} --out DIR"
        )
    return ModelDirectory.read(directory, task)


def _copied(directory: Path, out: Path, task: str | None, *, with_onnx: bool) -> Path:
    """A copy of a model, and of its ONNX models if asked; raises `OptionError` if there is something at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"{out} is there already, expected a new directory to copy {directory} to")
    ModelDirectory.read(directory, task)  # nothing is copied that cannot be exported
    left_out = shutil.ignore_patterns("tensorboard", ".*", *([] if with_onnx else [FOLDER]))
    try:
        shutil.copytree(directory, out, ignore=left_out, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise BothwaysError(f"{out}: {directory} cannot be copied there ({error})") from error
    return out
