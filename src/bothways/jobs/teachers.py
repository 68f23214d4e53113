"""Knowledge distillation: logits of a teacher, which a student learns with the labels or, without labels, alone.

The teacher predicts as in serving, with its own tokenizer. Its logits for a text become rows for the student's windows
of that text, one for each token that the student's head reads:

classify, pairs   the average over the teacher's windows, for each window of the student
tag               one per word
answer            one per token; teacher and student must have the same tokens and windows

B windows, K tokens read by the head, L outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.columns import read_sentences
from bothways.data.examples import LABEL_COLUMNS, Example, Words
from bothways.data.labels import NUMBER_COLUMNS
from bothways.data.questions import ANSWER_COLUMNS
from bothways.data.sentences import SPAN_COLUMNS
from bothways.data.tables import Columns, Source, find_optional_column
from bothways.errors import BothwaysError, DataError, OptionError
from bothways.hardware import Device
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import EXPORT, FOLDER
from bothways.inference.predictor import Predictor, load
from bothways.jobs.settings import hash_of, name_of
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.storage import replacing
from bothways.tasks import TRAINED, Trainable
from bothways.tasks.classify import Kind, probabilities, shortened, window_weights
from bothways.tasks.logits import Answered, Logits
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.teacher import edges

FARTHEST = 30.0  # maximum logit of a probability


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher: its name, its model directory, and the hash of its weights or ONNX export."""

    name: str
    model: ModelDirectory
    sha256: str | None

    @property
    def has_weights(self) -> bool:
        """Whether it has PyTorch weights; otherwise it has only an ONNX model."""
        return (self.model.path / WEIGHTS).is_file()


def find_teacher(teacher: str | Path, student: Trainable, *, base: Path, out: Path) -> Teacher:
    """Return the teacher for a student that is fine-tuned from `base`.

    Raises `OptionError` if the teacher is the student itself, or has another task or other labels.
    """
    directory = find_model(teacher)
    name = name_of(teacher)
    weights = hash_of(directory / WEIGHTS)
    if directory.resolve() in (out.resolve(), base.resolve()) or (weights and weights == hash_of(base / WEIGHTS)):
        raise OptionError(f"teacher {name} is the student itself; give another model that was trained for this task")
    try:
        model = ModelDirectory.read(directory, student.name)
    except BothwaysError as error:
        raise OptionError(f"teacher {name} does not answer the task {student.name}: {error}") from error
    task = model.task
    assert isinstance(task, Trainable)
    theirs, ours = getattr(task, "kind", None), getattr(student, "kind", None)
    if theirs != ours:
        raise OptionError(
            f"teacher {name} is of kind {theirs!r}, the labels of the training texts are of kind {ours!r}"
        )
    if ours != "regression" and set(task.labels) != set(student.labels):
        theirs, ours = (shortened(sorted(each)) for each in (task.labels, student.labels))
        raise OptionError(f"teacher {name} has the labels {theirs}; the training texts have {ours}")
    if getattr(student, "handle_impossible_answer", False) and not getattr(task, "handle_impossible_answer", False):
        raise OptionError(
            f"teacher {name} always answers, and some questions of the training texts have no answer; give one that "
            "was trained on such questions"
        )
    return Teacher(name, model, weights or hash_of(directory / FOLDER / EXPORT))


def read_unlabelled(source: Source, task: Trainable, columns: Columns) -> tuple[list[Example], list[str]]:
    """Return the texts of a file for the teacher to label, without their labels, and notes for the user.

    Raises `DataError` if there is no text.
    """
    found: list[Example] = []
    broken: list[Example] = []
    notes = []
    for example in TRAINED[task.name].inputs(source, columns):
        reason = example.error or task.problem(example)
        (found if reason is None else broken).append(replace(example, reference=None))
    if not found:
        raise DataError(f"{name_of(source)}: no text to be labeled by the teacher was found")
    if broken:
        notes.append(
            f"{len(broken):,} row(s) of {name_of(source)} cannot be read and are left out, the first at "
            f"{broken[0].where}"
        )
    if _has_labels(source, task, columns, found[0]):
        notes.append(f"the labels in {name_of(source)} are ignored: the teacher labels its texts")
    return found, notes


def _has_labels(source: Source, task: Trainable, columns: Columns, example: Example) -> bool:
    """Return whether a file has labels, from the columns of its first row."""
    if isinstance(example.details, Words) and isinstance(source, str | Path) and list(example.row or {}) == ["words"]:
        try:
            return any(next(read_sentences(str(source))).tags)
        except (DataError, StopIteration):
            return True  # several columns that are not tags
    usual = {"tag": SPAN_COLUMNS, "answer": ANSWER_COLUMNS}.get(task.name, (*LABEL_COLUMNS, *NUMBER_COLUMNS))
    names = list(example.row or {})
    wanted = columns.label_column if columns.label_column in names else None
    return find_optional_column(names, wanted=wanted, usual=usual, purpose="label", where=example.where) is not None


def write_logits(
    path: Path,
    teacher: Teacher,
    student: Trainable,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    windows: Sequence[Encoded],
    *,
    reporter: Reporter,
    device: Device | None = None,
) -> None:
    """Write the teacher's logits for the student's windows: (K of all windows, L), in the order of the windows.

    Logits are fp16, numbers (regression) fp32. Raises `DataError` for an example with different tokens for the teacher,
    or without a prediction.
    """
    task = teacher.model.task
    assert isinstance(task, Trainable)
    predictor = load(teacher.model.path, task=student.name, device=device, reporter=reporter)
    if student.name == "answer":
        task = _same_windows(task, predictor.tokenizer, student, tokenizer, teacher)
    reporter.say(f"teacher {teacher.name}: {predictor.engine.describe()}; its answers are computed once")
    asked = Predictor(Logits(task), predictor.tokenizer, predictor.engine)
    first = edges(windows)
    order = [task.labels.index(label) for label in student.labels] if student.labels else [0, 1]
    own: list[list[int]] = [[] for _ in examples]
    for number, window in enumerate(windows):
        own[window.example].append(number)
    shape, dtype = (int(first[-1]), len(order)), np.float32 if student.loss == "regression" else np.float16
    with replacing(path) as temporary:
        rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        answers = _named(teacher, asked.stream(examples, total=len(examples), reporter=reporter))
        for example, numbers, answer in zip(examples, own, answers, strict=True):
            if not numbers:
                continue
            made = None if answer.error else _aligned(answer, [windows[number] for number in numbers], student)
            if made is None:
                raise DataError(
                    f"{example.where}: teacher {teacher.name} produces different tokens from the student"
                    f"{f' ({answer.error})' if answer.error else ''}; for the task {student.name} it must tokenize "
                    "texts in the same way, and must not truncate them"
                )
            for number, part in zip(numbers, made, strict=True):
                rows[first[number] : first[number + 1]] = part[:, order]
        rows.flush()
        del rows


def _named(teacher: Teacher, answers: Iterator[Any]) -> Iterator[Any]:
    """Yield the answers of a teacher, and add its name to errors."""
    try:
        yield from answers
    except BothwaysError as error:
        raise DataError(f"teacher {teacher.name}: {error}") from error


def _same_windows(
    task: Trainable, theirs: Tokenizer, student: Trainable, tokenizer: Tokenizer, teacher: Teacher
) -> Trainable:
    """Return the teacher's task with windows like the student's, if both tokenize alike."""
    more = len(theirs.layout(2)) - len(tokenizer.layout(2))
    length = student.max_length + more
    if length > teacher.model.config.max_length:
        raise OptionError(
            f"teacher {teacher.name} reads at most {teacher.model.config.max_length} tokens, and the student's windows "
            f"have {length} tokens for it; lower --max-length"
        )
    return task.changed(max_length=length, stride=student.stride, truncation=student.truncation)


def _aligned(answer: Answered, windows: Sequence[Encoded], student: Trainable) -> Sequence[np.ndarray] | None:
    """Return (K, L) logits of an example for each student window; None if the teacher's tokens differ."""
    if student.loss == "tokens":
        return _of_words(answer, windows)
    if student.loss == "spans":
        return _of_tokens(answer, windows)
    return [_of_text(answer, getattr(student, "kind", "single"))] * len(windows)


def _of_text(answer: Answered, kind: Kind) -> np.ndarray:
    """Return (1, L) logits of the average over the teacher's windows, as in serving."""
    average = window_weights(answer.read) @ probabilities(np.concatenate(answer.parts), kind)  # (L,)
    if kind == "regression":
        return average[None]
    with np.errstate(divide="ignore"):
        against = np.log1p(-average) if kind == "multi" else 0.0
        return np.clip(np.log(average) - against, -FARTHEST, FARTHEST)[None]


def _of_words(answer: Answered, windows: Sequence[Encoded]) -> list[np.ndarray] | None:
    """Return the logits of the words of each window; None if the teacher did not read all of them."""
    found = {
        int(window.word_ids[place]): row
        for window, part in zip(answer.read, answer.parts, strict=True)
        for place, row in zip(window.head_positions, part, strict=True)
    }
    words = [window.word_ids[window.head_positions].tolist() for window in windows]
    if not found.keys() >= {word for some in words for word in some}:
        return None
    return [np.stack([found[word] for word in some]) for some in words]


def _of_tokens(answer: Answered, windows: Sequence[Encoded]) -> Sequence[np.ndarray] | None:
    """Return the logits of the tokens of each window; None if the teacher's tokens or windows differ."""
    places = [[window.offsets[window.head_positions] for window in some] for some in (answer.read, windows)]
    same = len(places[0]) == len(places[1]) and all(map(np.array_equal, *places))
    return answer.parts if same else None
