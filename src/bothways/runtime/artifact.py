"""The model directory: a `transformers` directory with `bothways.json` beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.model.config import EncoderConfig
from bothways.model.families import ARCHITECTURES
from bothways.storage import write_text
from bothways.tasks import TASKS, TRAINED, Task, scored
from bothways.text.tokenizer import Tokenizer

SETTINGS = "bothways.json"
RUN = "run.json"  # what a run was started with
CHECKPOINT = "resume.safetensors"  # there only while a run is not finished
EVENTS = ".bothways"  # how the names of the TensorBoard files of a run end
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a model directory says about itself; the weights are the engine's business.

    `facts` tell how the model was made: base, data, recipe, versions.
    """

    directory: Path
    config: EncoderConfig
    task: Task
    tokenizer: Tokenizer
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, task: str | None = None, changes: Mapping[str, Any] | None = None) -> Artifact:
        """Read a directory that bothways or `transformers` wrote.

        `task` is what the model shall do; without it, what it was fine-tuned for, or what its head is usual for.
        `changes` are settings of the task.

        Raises `CheckpointError` where the directory has no trained head for the task, or parts of different
        models, `OptionError` for an unknown task or setting.
        """
        if task is not None and task not in TASKS:
            raise OptionError(f"task {task!r} is not one of {', '.join(TASKS)}")
        config, raw, _ = EncoderConfig.read(directory)
        tokenizer = Tokenizer.from_directory(directory)
        config.check_vocabulary(tokenizer.vocab_size, directory)
        path = directory / SETTINGS
        own, facts = None, {}
        if path.is_file():
            try:
                settings = json.loads(path.read_text(encoding="utf-8"))
                own = TRAINED[settings["task"]].from_json(settings["settings"])
                facts = dict(settings["facts"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path}: damaged, or of a newer bothways ({error!r})") from error
        if own is not None and task in TRAINED and task != own.name:
            raise OptionError(f"{directory} was fine-tuned for {own.name}, not for {task}")
        made: Task = own if own is not None and task in (None, own.name) else _task_of(raw, config, directory, task)
        try:
            made = replace(made, **(changes or {}))  # type: ignore[type-var]
        except TypeError:
            known = [item.name for item in fields(made)]  # type: ignore[arg-type]
            wrong = [name for name in changes or {} if name not in known]
            raise OptionError(f"the task {made.name} has no setting {wrong[0]!r}; it has {', '.join(known)}") from None
        if made.max_pieces > config.max_pieces:
            raise OptionError(f"found windows of {made.max_pieces} pieces; the model reads at most {config.max_pieces}")
        return cls(directory, config, made, tokenizer, facts)

    def write(self) -> None:
        """Write everything but the weights; `bothways.json` comes last, so that a whole one means a whole model."""
        self.tokenizer.save(self.directory)
        write_text(self.directory / "config.json", _json(self._config_json()))
        task = scored(self.task)
        settings = {"format": FORMAT, "task": task.name, "settings": task.as_json(), "facts": self.facts}
        write_text(self.directory / SETTINGS, _json(settings))

    def files(self) -> list[Path]:
        """The files that predicting needs besides the weights."""
        names = ("config.json", SETTINGS, "tokenizer.json", "tokenizer_config.json")
        return [self.directory / name for name in names if (self.directory / name).is_file()]

    def _config_json(self) -> dict[str, Any]:
        architecture = self.config.rules.class_stem + ARCHITECTURES[self.task.head]
        return self.config.to_json() | {"architectures": [architecture]} | scored(self.task).config()


def _task_of(raw: dict[str, Any], config: EncoderConfig, directory: Path, task: str | None) -> Task:
    """The task of a directory that `transformers` wrote, from its config; or `task`, if its head can do that."""
    architecture = str((raw.get("architectures") or ["an encoder alone"])[0])
    heads = [head for head, ending in ARCHITECTURES.items() if architecture.endswith(ending) and ending != "Model"]
    if architecture.endswith("ForPreTraining") and "next" in config.rules.heads:
        heads = ["masked", "next"]
    own: dict[str, Any] = {name: one.head for name, one in TASKS.items()}
    fit = [name for name, head in own.items() if head in heads]
    able = [*fit, *(name for name, head in own.items() if not isinstance(head, str))]  # these need no trained head
    wanted = task or next(iter(fit), None)
    if wanted is None or wanted not in able:
        raise CheckpointError(
            f"{directory}: holds {architecture}, which has no trained head for {wanted or 'any task'}, so its answers "
            f"would be random; as it is it can {' or '.join(able)} (say which), or fine-tune it first (bothways "
            "finetune TASK TRAIN --base ...)"
        )
    max_pieces = min(512, config.max_pieces)
    return TASKS[wanted].of_checkpoint(raw, max_pieces=max_pieces, overlap=max_pieces // 4)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
