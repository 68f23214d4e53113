"""What the plans of a model directory read: its ONNX models, its weights, and compiled layers in the user's cache."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import processor
from bothways.inference.engines.engine import COMPILED
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import ONNX_PRECISIONS, ExportRecord, OnnxPrecision, sample_of
from bothways.inference.plan import Plan
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.storage import user_cache

COMPILED_FORMAT = 1  # of compiled layers; raise it when what is compiled changes
KEPT_SECONDS = 90 * 24 * 3600  # compiled layers are removed if they were not used for so long, when others are made


def export_for(model_directory: ModelDirectory) -> tuple[ExportRecord | None, str | None]:
    """The ONNX models, if they are for what the task asks; else why those that are there are not used."""
    export, task = ExportRecord.read(model_directory.path), model_directory.task
    reason = export.stale(model_directory.config) if export is not None else None
    if reason is not None and not (model_directory.path / WEIGHTS).is_file():
        raise CheckpointError(f"{reason}; restore the files that belong together")
    if reason is not None:
        return None, f"{reason}, so they are not used; bothways export {model_directory.path} makes others"
    if export is not None and (export.head, export.outputs) != (task.head, task.outputs):
        return None, (
            f"the ONNX models in {model_directory.path} have the head {export.head!r}, but {task.name} needs "
            f"{task.head!r}, so they are not used; export them: bothways export "
            f"{model_directory.path} --task {task.name}"
        )
    return export, None


def onnx_precision_of(plan: Plan) -> OnnxPrecision | None:
    """The ONNX model that a plan takes its numbers from; None for one that runs the weights themselves."""
    if plan.engine == "torch":
        return "int8-static" if plan.precision == "int8-static" else None
    return next((name for name in ONNX_PRECISIONS if name == plan.precision), "fp32")  # bf16 is made of fp32


def files_of(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> dict[str, str | None]:
    """The hashes of what a plan reads: its ONNX model, and the weights if PyTorch runs them (of a sample of them)."""
    onnx_precision, weights = onnx_precision_of(plan), model_directory.path / WEIGHTS
    onnx_model = export.models.get(onnx_precision) if export is not None and onnx_precision is not None else None
    return {
        "onnx_model": None if onnx_model is None else onnx_model.sha256,
        "weights": sample_of(weights) if plan.engine == "torch" and weights.is_file() else None,
    }


def compiled_layers(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> Path | None:
    """Where compiled layers of a plan are, or would be: in the cache of this user, as libraries are code.

    None for a plan that has none, and for a user without a home.
    """
    cache = user_cache()
    if plan.engine != "torch" or plan.precision == "fp32" or cache is None:
        return None
    from importlib.metadata import version

    facts = [COMPILED_FORMAT, processor(), version("torch"), plan.precision, model_directory.task.head]
    text = json.dumps([*facts, files_of(model_directory, export, plan)])
    return cache / "compiled" / hashlib.sha256(text.encode()).hexdigest()[:32]


def is_compiled(path: Path) -> bool:
    """Whether compiled layers are there."""
    return all(path.with_suffix(suffix).is_file() for suffix in COMPILED)


def compile_plan(model_directory: ModelDirectory, plan: Plan, reporter: Reporter) -> None:
    """Compile the layers that a plan of PyTorch in bf16 or int8-static runs; takes a minute, and a C++ compiler.

    Raises `BothwaysError` if that fails.
    """
    from bothways.inference.engines.compiled import compile_layers
    from bothways.inference.engines.torch import trained_model

    export, task = export_for(model_directory)[0], model_directory.task
    path = compiled_layers(model_directory, export, plan)
    if path is None:
        raise BothwaysError("this user has no home directory to keep compiled layers in")
    model = trained_model(model_directory.path, task.head, task.outputs, reporter)
    precision: Literal["bf16", "int8-static"] = "bf16" if plan.precision == "bf16" else "int8-static"
    compile_layers(model, precision, {} if export is None else export.ranges, path)
    for library in path.parent.glob("*.so"):
        with suppress(OSError):
            if library.stat().st_mtime < time.time() - KEPT_SECONDS:
                library.unlink()


def remove_compiled(model_directory: ModelDirectory, export: ExportRecord | None, plan: Plan) -> None:
    """Remove the compiled layers of a plan, if there are any."""
    path = compiled_layers(model_directory, export, plan)
    if path is not None:
        for suffix in COMPILED:
            path.with_suffix(suffix).unlink(missing_ok=True)
