"""The model directory: a `transformers` directory with `bothways.json` beside the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.model.families import ARCHITECTURES
from bothways.runtime.exports import FOLDER
from bothways.storage import write_text
from bothways.tasks import TASKS, TRAINED, Task, scored
from bothways.text.sentence_transformers import SENTENCE_FILES
from bothways.text.tokenizer import Tokenizer

SETTINGS = "bothways.json"
RUN = "run.json"  # what a run was started with
CHECKPOINT = "resume.safetensors"  # there only while a run is not finished
FORMAT = 1
_OF_A_RUN = (  # so that overwriting one removes nothing else
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "README.md", "evaluation.json", "metrics.jsonl", "report.html"),
    "curves.png",
    *(SETTINGS, RUN, CHECKPOINT),
)


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
        made: Task = (
            own if own is not None and task in (None, own.name) else _task_of(raw, config, directory, task, changes)
        )
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
        names = ("config.json", SETTINGS, "tokenizer.json", "tokenizer_config.json", *SENTENCE_FILES)
        return [self.directory / name for name in names if (self.directory / name).is_file()]

    def _config_json(self) -> dict[str, Any]:
        architecture = self.config.rules.class_stem + ARCHITECTURES[self.task.head]
        return self.config.to_json() | {"architectures": [architecture]} | scored(self.task).config()


def check_run_directory(out: Path, *, resume: bool, overwrite: bool, besides: tuple[str, ...] = ()) -> None:
    """Raise `OptionError` unless a run may write to `out`: a new or empty directory, or as the options say.

    What is called one of `besides` does not count.
    """
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file, expected a directory to write the run to")
    if resume and overwrite:
        raise OptionError("--resume goes on with a run and --overwrite throws it away; expected one of them")
    present = sorted(path.name for path in out.iterdir() if path.name not in besides) if out.is_dir() else []
    begun = CHECKPOINT in present
    finished = SETTINGS in present or {RUN, WEIGHTS} <= set(present)
    if resume and not begun:
        why = "holds a finished model" if finished else "has no checkpoint of a run"
        raise OptionError(f"{out} {why}, so there is nothing to resume; --overwrite starts anew")
    if overwrite and present and RUN not in present and SETTINGS not in present:
        raise OptionError(f"{out} holds {present[0]} and no run of bothways, so it is not overwritten; choose another")
    if present and not resume and not overwrite:
        state = "an unfinished run" if begun else "a finished model" if finished else "other files"
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
    for folder in ("tensorboard", FOLDER):
        shutil.rmtree(out / folder, ignore_errors=True)


def _task_of(
    raw: dict[str, Any],
    config: EncoderConfig,
    directory: Path,
    task: str | None,
    changes: Mapping[str, Any] | None = None,
) -> Task:
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
    beside: dict[str, Any] = {}
    if wanted == "embed":  # a sentence-transformers directory says how its vectors are made
        beside = {"directory": directory, "limit": config.max_pieces, "pooling": (changes or {}).get("pooling")}
    return TASKS[wanted].of_checkpoint(raw, max_pieces=max_pieces, overlap=max_pieces // 4, **beside)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
