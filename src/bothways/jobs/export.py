"""Making a model run without PyTorch, and finding what runs it fastest here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bothways.data.examples import Example
from bothways.data.tables import Columns, Source
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation.accuracy_check import MOST_FALL, export_judged
from bothways.inference.model_directory import Artifact
from bothways.inference.onnx.record import FOLDER, FORMS, Export, Form
from bothways.jobs.sources import columns_for
from bothways.model.catalogue import find_model
from bothways.progress import Reporter
from bothways.tasks import TRAINED, Trainable


def export(
    model: str | Path,
    *,
    precision: Form = "int8",
    calibrate: Source | None = None,
    task: str | None = None,
    columns: Columns | None = None,
    most_fall: float = MOST_FALL,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Export:
    """Write the model as one ONNX graph that runs without PyTorch, into `onnx/` of its directory.

    With `out`, the model is copied into that new directory first: where its own is an installed package or the cache
    of the hub, which are not written to. int8 and int8-static are judged on `calibrate`, a file of the model's task
    with gold where it has any, and are not used where the metric falls by more than `most_fall`.

    Raises `OptionError` for 8 bits without texts to judge them on, `DataError` for a file that does not suit.
    """
    if precision not in FORMS:
        raise OptionError(f"precision {precision!r} is not one of {', '.join(FORMS)}")
    if precision != "fp32" and calibrate is None:
        raise OptionError(
            f"{precision} rounds the model, so its answers are judged before it is used: give --calibrate FILE, texts "
            "like those that it will read, with labels (dev data, never test data)"
        )
    artifact = exportable(model, task, out)
    examples: Sequence[Example] = ()
    if calibrate is not None:
        gold = isinstance(artifact.task, Trainable) and artifact.task.name in TRAINED
        examples = artifact.task.read(calibrate, columns_for(artifact, columns), gold=gold)
        if isinstance(artifact.task, Trainable) and gold:
            artifact.task.check(examples)
    return export_judged(artifact, precision, examples, reporter or Reporter(quiet=True), most_fall=most_fall)


def exportable(model: str | Path, task: str | None, out: str | Path | None = None) -> Artifact:
    if task == "zero_shot":
        raise OptionError("zero_shot runs the graph of pairs: say --task pairs, or nothing for a model trained here")
    directory = find_model(model)
    if out is not None:
        directory = _copied(directory, Path(out), task)
    elif not Path(model).is_dir():
        raise OptionError(
            f"{model} is in {directory}, which belongs to an installed package or the cache of the hub and is not "
            f"written to; make a copy of your own: bothways export {model} --out DIR"
        )
    return Artifact.read(directory, task)


def _copied(directory: Path, out: Path, task: str | None) -> Path:
    """A copy of a model without its graphs in a new directory; raises `OptionError` where there is something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"{out} is there already, expected a new directory to copy {directory} to")
    Artifact.read(directory, task)  # nothing is copied that cannot be exported
    try:
        shutil.copytree(directory, out, ignore=shutil.ignore_patterns(FOLDER, "tensorboard", ".*"), dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise BothwaysError(f"{out}: {directory} cannot be copied there ({error})") from error
    return out
