"""How a model is run: the engine, precision, workers and tokens in a batch; the plans that were measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.inference.onnx.record import FOLDER
from bothways.storage import write_text
from bothways.text.modelfiles import read_json

TUNED = "tuned.json"
MAX_WORKERS, MAX_BATCH_TOKENS = 1024, 10**9  # of a plan


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is run: by which engine, in which precision, how many batches at a time and of how many tokens.

    Raises `OptionError` for a number out of range, or a name that is not a string.
    """

    engine: str
    precision: str
    workers: int
    max_tokens: int

    def __post_init__(self) -> None:
        for name, most in (("workers", MAX_WORKERS), ("max_tokens", MAX_BATCH_TOKENS)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise OptionError(f"a plan with {name}={value!r}, expected a whole number from 1 to {most:,}")
        for name in ("engine", "precision"):
            if type(getattr(self, name)) is not str:
                raise OptionError(f"a plan with {name}={getattr(self, name)!r}, expected its name")

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}, {self.workers} x {self.max_tokens} tokens"


def tuned_records(directory: Path) -> dict[str, Any]:
    """The measured plans of a model directory by their keys; a file that cannot be read counts as none."""
    try:
        return read_json(directory / FOLDER / TUNED)
    except (OSError, CheckpointError):
        return {}


def read_tuned(directory: Path, key: str) -> Plan | None:
    """The plan that was fastest here, if it was measured; a record that cannot be read counts as none."""
    try:
        found = dict(tuned_records(directory)[key]["plan"])
        if "streams" in found:  # as version 0.1 calls them
            found["workers"] = found.pop("streams")
        return Plan(**found)
    except (KeyError, TypeError, OptionError):
        return None


def write_tuned(directory: Path, key: str, plan: Plan, facts: dict[str, Any]) -> None:
    """Remember the plan under a key; what was measured elsewhere stays."""
    known = tuned_records(directory) | {key: {"plan": asdict(plan)} | facts}
    write_text(directory / FOLDER / TUNED, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
