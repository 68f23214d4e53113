"""The model directory: a `transformers` directory with `bothways.json` beside the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError, OptionError
from bothways.inference.formats import from_format_1
from bothways.inference.onnx.record import EXPORT, FOLDER, ExportRecord, header_of, sample_of, stamp_of
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.model.families import ARCHITECTURES
from bothways.storage import write_text
from bothways.tasks import TASKS, TRAINED, Task, Trainable, as_trainable
from bothways.text.modelfiles import read_json
from bothways.text.sentence_transformers import SENTENCE_FILES
from bothways.text.tokenizer import Tokenizer

SETTINGS = "bothways.json"
RUN = "run.json"  # the options of a run
CHECKPOINT = "resume.safetensors"  # exists only while a run is not finished
TEACHER = "teacher.npy"  # the logits of its teacher, likewise
EVENTS = ".bothways"  # suffix of the TensorBoard files of a run
FORMAT = 2
_TOKENIZER = (  # the files of a tokenizer
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model"),
)


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """The contents of a model directory except the weights, which the engine reads.

    `facts` record how the model was made: base, data, recipe, versions. `default_task` is the default if it differs
    from the task that the model was trained for.
    """

    path: Path
    config: EncoderConfig
    task: Task
    tokenizer: Tokenizer
    facts: dict[str, Any] = field(default_factory=dict)
    default_task: str | None = None

    @classmethod
    def read(cls, directory: Path, task: str | None = None, changes: Mapping[str, Any] | None = None) -> ModelDirectory:
        """Read a directory written by bothways or `transformers`.

        `task` selects the task; the default is the recorded one, or the usual one for the head. `changes` override
        settings of the task.

        Raises `CheckpointError` if the directory has no trained head for the task, or mixes files of different
        models, and `OptionError` for an unknown task or a setting that is unknown, invalid or fixed by the weights.
        """
        if task is not None and task not in tuple(TASKS):
            raise OptionError(f"task {task!r} is not one of {', '.join(TASKS)}")
        config, raw, _ = EncoderConfig.read(directory)
        tokenizer = Tokenizer.from_directory(directory)
        config.check_vocabulary(tokenizer.vocab_size, directory)
        pad = config.pad_token_id
        if config.rules.position_offset and tokenizer.makes(pad):
            raise CheckpointError(
                f"{directory / 'config.json'}: pad_token_id is {pad}, expected {tokenizer.pad_id} as in the tokenizer; "
                "texts contain that token, and the positions of this family do not count padding"
            )
        own, facts, default_task = None, dict[str, Any](), None
        if (directory / SETTINGS).is_file():
            own, facts, default_task = _own(directory, raw, tokenizer)
        task = task or default_task
        if own is not None and task in TRAINED and task != own.name:
            raise OptionError(f"{directory} was fine-tuned for {own.name}, not for {task}")
        made: Task = (
            own if own is not None and task in (None, own.name) else _task_of(raw, config, directory, task, changes)
        )
        made = made.changed(**(changes or {}))
        if made.max_length > config.max_length:
            raise OptionError(f"found windows of {made.max_length} tokens; the model reads at most {config.max_length}")
        return cls(directory, config, made, tokenizer, facts, default_task)

    def write(self) -> None:
        """Write everything but the weights; `bothways.json` is written last, to mark the model as complete."""
        self.tokenizer.save(self.path)
        write_text(self.path / "config.json", _json(self._config_json()))
        task = as_trainable(self.task)
        settings = {"format": FORMAT, "task": task.name, "settings": task.as_json(), "facts": self.facts}
        settings |= {"default_task": self.default_task} if self.default_task else {}
        settings["tokenizer"] = {"files": _tokenizer_files(self.path), "made": self.tokenizer.fingerprint()}
        if (self.path / WEIGHTS).is_file():
            settings["weights"] = sample_of(self.path / WEIGHTS)
        write_text(self.path / SETTINGS, _json(settings))

    @staticmethod
    def stamps(directory: Path) -> dict[str, tuple[int, ...]]:
        """Return the stamps of a model's files; they change when a file is written or replaced."""
        names = ("config.json", SETTINGS, WEIGHTS, *_TOKENIZER, *SENTENCE_FILES, f"{FOLDER}/{EXPORT}")
        return {name: stamp_of(directory / name) for name in names if (directory / name).is_file()}

    def files(self) -> list[Path]:
        """Return the files needed for prediction besides the weights."""
        names = ("config.json", SETTINGS, "tokenizer.json", "tokenizer_config.json", *SENTENCE_FILES)
        return [self.path / name for name in names if (self.path / name).is_file()]

    def _config_json(self) -> dict[str, Any]:
        architecture = self.config.rules.class_stem + ARCHITECTURES[self.task.head]
        return self.config.to_json() | {"architectures": [architecture]} | as_trainable(self.task).config()


def _own(directory: Path, raw: dict[str, Any], tokenizer: Tokenizer) -> tuple[Task, dict[str, Any], str | None]:
    """Read the fine-tuned task, the facts and the default task from `bothways.json`.

    Raises `CheckpointError` if the file is damaged, or if other files belong to another model.
    """
    path = directory / SETTINGS
    try:
        settings = from_format_1(read_json(path))
        if settings["format"] != FORMAT:
            raise ValueError(f"format {settings['format']!r}, expected {FORMAT}")  # noqa: TRY301
        own = TRAINED[settings["task"]].from_json(settings["settings"])
        facts = dict(settings["facts"])
        known, default_task = dict(settings.get("tokenizer") or {}), settings.get("default_task")
        if default_task is not None and default_task not in tuple(TASKS):
            raise ValueError(f"usual task {default_task!r}")  # noqa: TRY301
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
        raise CheckpointError(f"{path}: damaged, or written by a newer bothways ({error!r})") from error
    names, labels = raw.get("id2label"), own.config().get("id2label")
    if labels and names is not None and names != labels:
        raise CheckpointError(
            f"{path}: its labels are {', '.join(own.labels)}, those of config.json are {_named(names)}; they "
            "belong to different models; make both the same, or copy the model again"
        )
    if known and _tokenizer_files(directory) != known.get("files") and tokenizer.fingerprint() != known.get("made"):
        raise CheckpointError(
            f"{directory}: the tokenizer is not the one that the model was trained with (its hash in {SETTINGS} "
            "differs); copy the model's own tokenizer files again"
        )
    run, weights = facts.get("run"), directory / WEIGHTS
    if weights.is_file():
        other = (header_of(weights).get("__metadata__") or {}).get("run")
        if run is not None and other is not None and run != other:
            raise CheckpointError(
                f"{directory}: {WEIGHTS} is of the run {other}, {SETTINGS} of the run {run}; they belong to different "
                "models; copy the model again, or train it again with --overwrite"
            )
    elif settings.get("weights") is not None:
        export = ExportRecord.read(directory)
        if export is not None and export.weights != settings["weights"]:
            raise CheckpointError(
                f"{directory}: the ONNX models in {FOLDER} belong to other weights than {SETTINGS}; copy it again"
            )
    return own, facts, default_task


def continued(task: Trainable, base: Path) -> tuple[Trainable, bool]:
    """Adapt a task to the base model; returns the task and whether the base's head, if any, can be reused.

    If the base has the same labels, the task takes their order. A head for other labels, or for tags in another order,
    is not reused.
    """
    _, raw, _ = EncoderConfig.read(base)
    names = raw.get("id2label")
    if task.loss not in ("single", "multi", "tokens") or not isinstance(names, dict):
        return task, True
    try:
        before = tuple(str(names[place]) for place in sorted(names, key=int))
    except ValueError:
        return task, False
    if task.loss != "tokens" and set(before) == set(task.labels) and len(before) == len(task.labels):
        task = replace(task, labels=before)  # type: ignore[type-var]
    return task, before == task.labels


def _named(names: Any) -> str:
    return ", ".join(map(str, names.values() if isinstance(names, dict) else [names]))[:300]


def _tokenizer_files(directory: Path) -> str:
    """Return a hash of the tokenizer's files."""
    digest = hashlib.sha256()
    for name in _TOKENIZER:
        if (directory / name).is_file():
            content = (directory / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _task_of(
    raw: dict[str, Any],
    config: EncoderConfig,
    directory: Path,
    task: str | None,
    changes: Mapping[str, Any] | None = None,
) -> Task:
    """Return the task of a `transformers` directory from its config, or `task` if the head supports it."""
    architecture = str((raw.get("architectures") or ["an encoder alone"])[0])
    heads = [head for head, ending in ARCHITECTURES.items() if architecture.endswith(ending) and ending != "Model"]
    if architecture.endswith("ForPreTraining") and "next" in config.rules.heads:
        heads = ["masked", "next"]
    own: dict[str, Any] = {name: one.head for name, one in TASKS.items()}
    fit = [name for name, head in own.items() if head in heads]
    able = [*fit, *(name for name, head in own.items() if not isinstance(head, str))]  # tasks without a trained head
    wanted = task or next(iter(fit), None)
    if wanted is None or wanted not in able:
        raise CheckpointError(
            f"{directory}: holds {architecture}, which has no trained head for {wanted or 'any task'}, so its "
            f"predictions would be random; without fine-tuning it can do {' or '.join(able)} (name the task); else "
            "fine-tune it (bothways finetune TASK TRAIN --base ...)"
        )
    max_length = min(512, config.max_length)
    beside: dict[str, Any] = {}
    if wanted == "embed":  # a sentence-transformers directory defines its pooling
        beside = {"directory": directory, "limit": config.max_length, "pooling": (changes or {}).get("pooling")}
    return TASKS[wanted].of_checkpoint(raw, max_length=max_length, stride=max_length // 4, **beside)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
