"""Options from keyword arguments, and facts that a run records."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib import metadata
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from bothways.errors import OptionError
from bothways.evaluation.summary import machine, versions
from bothways.inference.model_directory import SETTINGS
from bothways.text.modelfiles import read_json
from bothways.training.recipe import parse_seconds

PACKAGES = ("onnxruntime", "onnx", "openvino", "safetensors")
SHORT_NAMES = {"lr": "learning_rate"}  # as on the command line
# Names of these options in `transformers` and elsewhere.
OTHER_NAMES = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "max_seq_length": "max_length",
    "max_steps": "steps",
    "early_stopping_patience": "patience",
    "output_dir": "out",
    "model": "base",
    "eval_dataset": "dev",
    "bf16": "precision",
}


def options_from(given: Mapping[str, Any], *records: Any, also: Collection[str] = ()) -> tuple[Any, ...]:
    """Return the records with the fields in `given` replaced; `lr` is short for `learning_rate`.

    Raises `OptionError` for an unknown name (its hint also considers the arguments in `also`) and for a value of the
    wrong type.
    """
    known = [item.name for record in records for item in fields(record)]
    given = {SHORT_NAMES.get(name, name): value for name, value in given.items()}
    for name in given:
        if name not in known:
            near = OTHER_NAMES.get(name) or next((one for one in known if one.startswith(f"{name}_")), None)
            near = near or next(iter(get_close_matches(name, [*known, *also], 1)), None)
            hint = f"did you mean {near!r}?" if near in {*known, *also} else f"expected one of {', '.join(known)}"
            raise OptionError(f"unknown option {name!r}; {hint}")
    made = []
    for record in records:
        own = {item.name: given[item.name] for item in fields(record) if item.name in given}
        hints = get_type_hints(type(record))
        for name, value in own.items():
            if not _suits(value, hints[name]):
                wanted = getattr(hints[name], "__name__", hints[name])
                raise OptionError(f"{name} is {value!r}, expected a value of the type {wanted}")
        made.append(replace(record, **own))
    return tuple(made)


def budget(given: float | str | None) -> float | None:
    """Return a time budget in seconds; raises `OptionError` if it is not a positive time."""
    seconds = parse_seconds(given) if isinstance(given, str) else given
    if seconds is not None and not seconds > 0:
        raise OptionError(f"time_budget is {seconds} seconds, expected more than 0")
    return seconds


def _suits(value: Any, hint: Any) -> bool:
    """Return whether a value has the annotated type; NumPy numbers are accepted."""
    parts = get_args(hint)
    if get_origin(hint) is Literal or hint is Any:
        return hint is Any or isinstance(value, str)  # the record checks its choices
    if parts:
        return any(_suits(value, part) for part in parts)
    kind = {float: Real, int: Integral}.get(hint, hint)
    return isinstance(value, kind) and (hint is bool or not isinstance(value, bool))


def name_of(source: object) -> str:
    """Return the name of a file, directory or model for published files: without parent folders.

    >>> name_of("/home/ann/data/train.csv"), name_of(Path("minilm-l6")), name_of([{"text": "a"}])
    ('train.csv', 'minilm-l6', 'rows in memory')
    """
    if not isinstance(source, str | Path):
        return "rows in memory"
    path = Path(source)
    return path.resolve().name if path.is_absolute() or path.exists() else str(source)


def hash_of(path: object) -> str | None:
    """Return the SHA-256 of a file; None if it is not a file."""
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_id(identity: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that all parts of a model contain, to detect mixed models.

    The ID is a hash of `identity` and the weights. A resumed or repeated run with identical weights has the same ID.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name].cpu().numpy()).data)
    return digest.hexdigest()[:32]


def revision_of(directory: Path) -> str | None:
    """Return the revision of a model in the Hugging Face hub cache, from its folder name; None elsewhere."""
    return directory.name if directory.parent.name == "snapshots" else None


def ancestors_of(directory: Path) -> list[str]:
    """Return the SHA-256 of the weights of a model's base, of the base's base, and so on."""
    if not (directory / SETTINGS).is_file():
        return []
    facts = read_json(directory / SETTINGS).get("facts")
    facts = facts if isinstance(facts, dict) else {}
    return [one for one in (facts.get("base_sha256"), *(facts.get("base_ancestors") or ())) if one]


def circumstances() -> dict[str, Any]:
    """Return the date, machine and package versions of a result."""
    installed = {"python": platform.python_version()} | versions()
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {"created": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "versions": installed}
