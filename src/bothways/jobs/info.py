"""Describes a model directory without running the model."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from bothways.errors import BothwaysError
from bothways.inference.choice import choose, tuned_key
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import FILES, FOLDER, ExportRecord
from bothways.inference.plan import tuned_records
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.progress import Reporter

PACKAGES = ("bothways", "onnxruntime", "openvino", "torch", "tokenizers", "numpy")


def describe_model(model: str | Path, task: str | None = None) -> dict[str, Any]:
    """Return the task, labels, settings, encoder, exports, tuned plans, training facts, versions and engine.

    `task` is as in `load`. `engine` is the plan that `load` chooses on this machine (None if none works; see
    `problems`), `notes` are the notes on that choice. The values are JSON types.

    Raises `ModelNotFoundError` for a missing model, `CheckpointError` for a directory that is not a model.
    """
    directory = find_model(model)
    config, _, unknown = EncoderConfig.read(directory)
    weights = directory / WEIGHTS
    found: dict[str, Any] = {
        "directory": str(directory),
        "task": None,
        "encoder": {
            "family": config.family,
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "vocabulary": config.vocab_size,
            "max_tokens": config.max_length,
            "parameters": config.count_parameters(),
        },
        "weights": weights.stat().st_size if weights.is_file() else None,
        "exports": {},
        "tuned": [],
        "engine": None,
        "notes": [f"config keys not understood and ignored: {', '.join(unknown)}"] if unknown else [],
        "problems": [],
        "here": _versions(),
    }
    try:
        export = ExportRecord.read(directory)
        found["exports"] = {} if export is None else _exports(export)
        model_directory = ModelDirectory.read(directory, task)
    except BothwaysError as error:
        found["problems"].append(str(error))
        return found
    settings = {name: value for name, value in asdict(model_directory.task).items() if name != "labels"}  # type: ignore[call-overload]
    found |= {
        "task": model_directory.task.name,
        "labels": list(getattr(model_directory.task, "labels", ())),
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "made": model_directory.facts,
        "tuned": _tuned(model_directory),
    }
    heard = _Heard()
    try:
        _, plan = choose(model_directory, heard)
        found["engine"] = plan.as_json()
    except BothwaysError as error:
        found["problems"].append(str(error))
    found["notes"] += heard.lines
    return found


class _Heard(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def _exports(export: ExportRecord) -> dict[str, Any]:
    """Return the file, size (None if missing), head and accuracy check of each exported model."""
    found: dict[str, Any] = {}
    made = [(name, export.directory / FOLDER / FILES[name], onnx_model) for name, onnx_model in export.models.items()]
    others = [("attentions", export.attentions_file(), export.attentions)] if export.attentions is not None else []
    for name, path, onnx_model in [*made, *others]:
        size = path.stat().st_size if path.is_file() else None
        found[name] = {"file": f"{FOLDER}/{path.name}", "bytes": size, "head": export.head} | asdict(onnx_model)
    return found


def _tuned(model_directory: ModelDirectory) -> list[dict[str, Any]]:
    """Return the tuned plans; `here` is True for a plan for this processor and this task."""
    key, found = tuned_key(model_directory.task), []
    for name, record in tuned_records(model_directory.path).items():
        if isinstance(record, dict):
            found.append({"processor": name, "here": name == key} | record)
    return found


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages that run models."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
