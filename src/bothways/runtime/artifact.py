"""The model directory: a `transformers` directory with `bothways.json` beside the weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.model.config import EncoderConfig
from bothways.storage import write_text
from bothways.tasks import TASKS
from bothways.tasks.classify import Classify
from bothways.text.tokenizer import Tokenizer

SETTINGS = "bothways.json"
RUN = "run.json"  # what a run was started with
CHECKPOINT = "resume.safetensors"  # there only while a run is not finished
FORMAT = 1
_OF_A_RUN = (  # so that overwriting one removes nothing else
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "README.md", "evaluation.json", "metrics.jsonl", "report.html"),
    *(SETTINGS, RUN, CHECKPOINT),
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a model directory says about itself; the weights are the engine's business.

    `facts` tell how the model was made: base, data, recipe, versions.
    """

    directory: Path
    config: EncoderConfig
    task: Classify
    tokenizer: Tokenizer
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, task: str | None = None) -> Artifact:
        """Read a directory that bothways or `transformers` wrote; the latter do not say whether they read pairs.

        `task` is what such a directory does, "classify" without it.

        Raises `CheckpointError` where it holds no model with a trained head, or parts of different models.
        """
        if task is not None and task not in TASKS:
            raise OptionError(f"task {task!r} is not one of {', '.join(TASKS)}")
        config, raw, _ = EncoderConfig.read(directory)
        tokenizer = Tokenizer.from_directory(directory)
        config.check_vocabulary(tokenizer.vocab_size, directory)
        path = directory / SETTINGS
        if not path.is_file():
            return cls(directory, config, _task_of(raw, config, directory, task or "classify"), tokenizer)
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            made = TASKS[settings["task"]].from_json(settings["settings"])
            facts = dict(settings["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged, or of a newer bothways ({error!r})") from error
        if task not in (None, made.name):
            raise OptionError(f"{directory} was fine-tuned for {made.name}, not for {task}")
        return cls(directory, config, made, tokenizer, facts)

    def write(self) -> None:
        """Write everything but the weights; `bothways.json` comes last, so that a whole one means a whole model."""
        self.tokenizer.save(self.directory)
        write_text(self.directory / "config.json", _json(self._config_json()))
        settings = {
            "format": FORMAT,
            "task": self.task.name,
            "settings": self.task.as_json(),
            "facts": self.facts,
        }
        write_text(self.directory / SETTINGS, _json(settings))

    def files(self) -> list[Path]:
        """The files that predicting needs."""
        names = ("config.json", SETTINGS, "tokenizer.json", "tokenizer_config.json", "model.safetensors")
        return [self.directory / name for name in names if (self.directory / name).is_file()]

    def _config_json(self) -> dict[str, Any]:
        labels = dict(enumerate(self.task.labels))
        kinds = {"single": "single_label_classification", "multi": "multi_label_classification"}
        return self.config.to_json() | {
            "architectures": [f"{self.config.rules.class_stem}ForSequenceClassification"],
            "id2label": {str(place): label for place, label in labels.items()},
            "label2id": {label: place for place, label in labels.items()},
            "problem_type": kinds.get(self.task.kind, self.task.kind),
        }


def check_run_directory(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `OptionError` unless a run may write to `out`: a new or empty directory, or as the options say."""
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file, expected a directory to write the run to")
    if resume and overwrite:
        raise OptionError("--resume goes on with a run and --overwrite throws it away; expected one of them")
    present = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    begun = CHECKPOINT in present
    if resume and not begun:
        why = "holds a finished model" if SETTINGS in present else "has no checkpoint of a run"
        raise OptionError(f"{out} {why}, so there is nothing to resume; --overwrite starts anew")
    if overwrite and present and RUN not in present and SETTINGS not in present:
        raise OptionError(f"{out} holds {present[0]} and no run of bothways, so it is not overwritten; choose another")
    if present and not resume and not overwrite:
        state = "an unfinished run" if begun else "a finished model" if SETTINGS in present else "other files"
        advice = "--resume to go on with it, or " if begun else ""
        raise OptionError(
            f"{out} holds {state} ({', '.join(present[:3])}{' ...' if len(present) > 3 else ''}); "
            f"choose another directory, or {advice}--overwrite to replace it"
        )


def clear_run_directory(out: Path) -> None:
    """Make the directory, and remove from it what an earlier run wrote."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _OF_A_RUN:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)


def _task_of(raw: dict[str, Any], config: EncoderConfig, directory: Path, task: str) -> Classify:
    """The task of a directory that `transformers` wrote, from its config."""
    architecture = (raw.get("architectures") or ["nothing"])[0]
    if not str(architecture).endswith("ForSequenceClassification"):
        raise CheckpointError(
            f"{directory}: holds {architecture}, which has no trained classification head, so its answers would "
            "be random; fine-tune it first (bothways finetune classify TRAIN --base ...)"
        )
    names = raw.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    kind = {"regression": "regression", "multi_label_classification": "multi"}.get(
        str(raw.get("problem_type")), "single"
    )
    if len(labels) == 1:
        kind = "regression"
    max_pieces = min(512, config.max_pieces)
    settings = {"labels": labels, "kind": kind, "max_pieces": max_pieces, "overlap": max_pieces // 4}
    return TASKS[task].from_json(settings)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
