"""The model directory: a `transformers` directory with `bothways.json` beside the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError
from bothways.model.config import EncoderConfig
from bothways.storage import write_text
from bothways.tasks import TASKS
from bothways.tasks.classify import Classify
from bothways.text.tokenizer import Tokenizer

SETTINGS = "bothways.json"
CHECKPOINT = "resume.safetensors"  # there only while a run is not finished
FORMAT = 1


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
    def read(cls, directory: Path) -> Artifact:
        """Read a directory that bothways or `transformers` wrote.

        Raises `CheckpointError` where it holds no model with a trained head, or parts of different models.
        """
        config, raw, _ = EncoderConfig.read(directory)
        tokenizer = Tokenizer.from_directory(directory)
        if tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(
                f"{directory}: the vocabulary has {tokenizer.vocab_size} pieces, the embedding table "
                f"{config.vocab_size} rows; they are not of the same model"
            )
        path = directory / SETTINGS
        if not path.is_file():
            return cls(directory, config, _task_of(raw, config, directory), tokenizer)
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            task = TASKS[settings["task"]].from_json(settings["settings"])
            facts = dict(settings["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged, or of a newer bothways ({error!r})") from error
        return cls(directory, config, task, tokenizer, facts)

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


def _task_of(raw: dict[str, Any], config: EncoderConfig, directory: Path) -> Classify:
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
    return TASKS["classify"].from_json({"labels": labels, "kind": kind, "max_pieces": min(512, config.max_pieces)})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
