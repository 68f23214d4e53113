"""How a model is run: the engine, precision, workers and tokens in a batch; the plans that were measured.

`onnx/tuned.json` holds a record for each processor and head. A plan that divides texts by their length is two:

    {"AMD ..., 2 cores; classify 2": {"plan": {...}, "long": {"from_tokens": 64, "plan": {...}}, ...}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.hardware import cores
from bothways.inference.engines.engine import FUSED_TOKENS, MAX_TOKENS, TORCH_TOKENS
from bothways.inference.onnx.record import FOLDER
from bothways.storage import write_text
from bothways.text.modelfiles import read_json

TUNED = "tuned.json"
MAX_WORKERS, MAX_BATCH_TOKENS = 1024, 10**9  # of a plan
LONG_FROM = 64  # tokens of a long window: about two sentences; below, starting a batch costs as much as its products
ONE_AT_A_TIME = {("torch", "fp32")}  # PyTorch's plain layers compute one batch with all threads, of a fixed budget
_NAMES = ("engine", "precision", "workers", "max_tokens")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is run: by which engine, in which precision, how many batches at a time and of how many tokens.

    With `long`, windows of `from_tokens` tokens and more are run by that plan, and only the shorter ones by this.

    Raises `OptionError` for a number out of range, or a name that is not a string.
    """

    engine: str
    precision: str
    workers: int
    max_tokens: int
    long: Plan | None = None
    from_tokens: int = LONG_FROM

    def __post_init__(self) -> None:
        for name, most in (
            ("workers", MAX_WORKERS),
            ("max_tokens", MAX_BATCH_TOKENS),
            ("from_tokens", MAX_BATCH_TOKENS),
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise OptionError(f"a plan with {name}={value!r}, expected a whole number from 1 to {most:,}")
        for name in ("engine", "precision"):
            if type(getattr(self, name)) is not str:
                raise OptionError(f"a plan with {name}={getattr(self, name)!r}, expected its name")
        if self.long is not None and (not isinstance(self.long, Plan) or self.long.long is not None):
            raise OptionError(f"a plan with long={self.long!r}, expected a Plan whose long is None")

    def __str__(self) -> str:
        own = f"{self.engine} {self.precision}, {self.workers} x {self.max_tokens} tokens"
        if self.long is not None and self.from_tokens == 1:
            return f"{self.long}; after a fork {own}" if self.long.engine == "openvino" else str(self.long)
        return own if self.long is None else f"{own}; from {self.from_tokens} tokens {self.long}"

    def parts(self) -> tuple[Plan, ...]:
        """The plan itself, or the one for short windows and the one for long windows."""
        return (self,) if self.long is None else (replace(self, long=None, from_tokens=LONG_FROM), self.long)

    def as_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        own = {name: getattr(self, name) for name in _NAMES}
        if self.long is None:
            return own
        return own | {"long": {"from_tokens": self.from_tokens, "plan": self.long.as_json()}}


def default_plan(engine: str, precision: str) -> Plan:
    """The workers and the tokens of a batch that an engine has before they are tuned."""
    if (engine, precision) in ONE_AT_A_TIME:
        return Plan(engine, precision, 1, TORCH_TOKENS)
    return Plan(engine, precision, cores(), FUSED_TOKENS if engine == "torch" else MAX_TOKENS)


def tuned_records(directory: Path) -> dict[str, Any]:
    """The measured plans of a model directory by their keys; a file that cannot be read counts as none."""
    try:
        return read_json(directory / FOLDER / TUNED)
    except (OSError, CheckpointError):
        return {}


def read_tuned(directory: Path, key: str) -> Plan | None:
    """The plan that was fastest here, if it was measured; a record that cannot be read counts as none."""
    try:
        record = tuned_records(directory)[key]
        own = _plan(record["plan"])
        if "long" not in record:
            return own
        return replace(own, long=_plan(record["long"]["plan"]), from_tokens=record["long"]["from_tokens"])
    except (KeyError, TypeError, ValueError, OptionError):
        return None


def _plan(raw: Any) -> Plan:
    found = dict(raw)
    if "streams" in found:  # as version 0.1 calls them
        found["workers"] = found.pop("streams")
    return Plan(**{name: found.pop(name) for name in _NAMES}, **found)


def write_tuned(
    directory: Path, key: str, plan: Plan, facts: dict[str, Any], long: dict[str, Any] | None = None
) -> None:
    """Remember the plan under a key, with facts of it and of its plan for long windows; what else is there stays."""
    own = plan.as_json()
    record: dict[str, Any] = {"plan": {name: own[name] for name in _NAMES}} | facts
    if "long" in own:
        record["long"] = own["long"] | (long or {})
    known = tuned_records(directory) | {key: record}
    write_text(directory / FOLDER / TUNED, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
