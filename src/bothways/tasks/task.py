"""The base classes of tasks and predictions, and helpers that several tasks share."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, get_type_hints

import numpy as np

from bothways.data.examples import Example, Reference, input_examples, read_examples
from bothways.data.tables import Columns, Source
from bothways.errors import CheckpointError, DataError, OptionError
from bothways.metrics import Scores
from bothways.options import check_options
from bothways.tasks.picture import Picture
from bothways.text.tokenizer import Encoded, Tokenizer

MAX_LABELS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The fields of every prediction: the number of windows, the number of truncated tokens.

    `error` is the reason if the example could not be answered.
    """

    windows: int = 1
    truncated: int = 0
    error: str | None = None

    def as_json(self, *, all_scores: bool = False) -> dict[str, Any]:
        """Return the prediction as a JSON object; `all_scores` adds the scores that are usually left out."""
        answer = self.answer(all_scores=all_scores and self.error is None)
        if self.error is not None:
            answer = dict.fromkeys(answer) | {"error": self.error}
        return answer | {"windows": self.windows, "truncated": self.truncated}

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """Return the answer as a dict with the task's keys."""
        raise NotImplementedError

    def summary(self) -> tuple[str, float]:
        """Return a short text for the answer, and the model's confidence."""
        raise NotImplementedError

    def picture(self, example: Example) -> Picture:
        """Return the data to draw the prediction."""
        raise NotImplementedError

    def note(self) -> str:
        """Return a note about several windows or truncated tokens; "" if there is nothing to report."""
        parts = [f"read in {self.windows} windows"] if self.windows > 1 else []
        return ", ".join(parts + ([f"{self.truncated} tokens not read"] if self.truncated else []))


class Task(ABC):
    """The interface for prediction and serving. Tasks are frozen dataclasses; their fields are the settings.

    `head` is the name of the model's head, `outputs` its output size. `fixed` lists the settings that the trained
    weights determine, `limits` the minimum and maximum of numeric settings. The defaults suit tasks with one text.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"labels", "kind", "scheme", "nli", "handle_impossible_answer"})
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "max_length": (1, math.inf),
        "stride": (0, math.inf),
        "top_k": (1, math.inf),
        "max_answer_len": (1, math.inf),
    }
    name: str
    head: str
    outputs: int = 0
    texts: ClassVar[tuple[tuple[str, ...], ...]] = (("text", "sentence", "review", "content"),)  # column names per text
    max_length: int
    stride: int
    truncation: bool

    def __post_init__(self) -> None:
        """Raise `OptionError` if a setting has the wrong type, exceeds its limits or is not one of its choices.

        A subclass that defines `__post_init__` calls `Task.__post_init__(self)` first.
        """
        kinds = get_type_hints(type(self))
        names = [item.name for item in fields(self)]  # type: ignore[arg-type]
        for name in names:
            value = getattr(self, name)
            if kinds[name] == tuple[str, ...] and isinstance(value, list):
                object.__setattr__(self, name, value := tuple(value))
            if not _suits(value, kinds[name]):
                expected = getattr(kinds[name], "__name__", str(kinds[name]))
                expected = "a sequence of strings" if expected == "tuple" else expected
                raise OptionError(f"{name} is {reprlib.repr(value)}, expected {expected}")
        check_options(self, {name: limit for name, limit in self.limits.items() if name in names})

    def changed(self, **settings: Any) -> Self:
        """Return the task with other settings; raises `OptionError` for an unknown or `fixed` setting."""
        known = [item.name for item in fields(self)]  # type: ignore[arg-type]
        free = ", ".join(name for name in known if name not in self.fixed)
        for name, value in settings.items():
            if name not in known:
                raise OptionError(f"the task {self.name} has no setting {name!r}; choose from {free}")
            value = tuple(value) if isinstance(value, list) else value
            own = getattr(self, name)
            if name in self.fixed and value != own:
                given = ", ".join(own) if isinstance(own, tuple) else repr(own)
                raise OptionError(
                    f"{name} is fixed by the trained weights of this {self.name} model, found {reprlib.repr(value)}, "
                    f"expected {given}; leave it out (settings that can be changed: {free})"
                )
        return replace(self, **settings)  # type: ignore[type-var]

    @classmethod
    def read(cls, source: Source, columns: Columns, *, labeled: bool = True) -> list[Example]:
        """Read examples from a file or from rows in memory; with `labeled`, every row needs a label."""
        return read_examples(source, cls.texts, columns) if labeled else list(cls.inputs(source, columns))

    @classmethod
    def inputs(cls, source: Source, columns: Columns) -> Iterator[Example]:
        """Iterate over the examples to predict, one per row and in order, reading lazily.

        A row that cannot be read becomes an example with an `error`.
        """
        return input_examples(source, cls.texts, columns)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Return the task that a model directory's `config.json` describes."""
        return cls(**settings)

    def example(self, given: Any) -> Example:
        """Convert a caller's input to an example; raises `DataError` if it has the wrong type."""
        if not isinstance(given, str):
            raise DataError(f"found {reprlib.repr(given)}, expected a text for the task {self.name}")
        return Example((given,))

    def problem(self, example: Example) -> str | None:
        """Return the reason why an example cannot be answered, or None."""
        return None if any(text.strip() for text in example.texts) else "the text is empty"

    def size(self, example: Example) -> int:
        """Return the approximate number of characters that the model reads for an example."""
        return sum(map(len, example.texts))

    def windows(
        self, examples: Sequence[Example], tokenizer: Tokenizer, sliding: Literal[0, 1] | None = None
    ) -> list[Encoded]:
        """Tokenize examples into windows, with the task's settings."""
        texts = [example.texts for example in examples]
        return tokenizer.windows(
            texts, max_length=self.max_length, stride=self.stride, truncation=self.truncation, sliding=sliding
        )

    @abstractmethod
    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return the windows of all examples with their `head_positions`, and targets for labeled examples."""

    @abstractmethod
    def reduce(self, rows: np.ndarray, window: Encoded) -> Any:
        """(K, L) logits of one window -> the part to keep until all windows of the example have run."""

    @abstractmethod
    def decode(
        self, example: Example, parts: Sequence[Any], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> Prediction:
        """Combine the kept parts of all windows of one example into its prediction."""

    @abstractmethod
    def failure(self, reason: str) -> Prediction:
        """Return the prediction for an example that cannot be answered."""


class Trainable(Task):
    """The interface for training and evaluation, in addition to `Task`.

    `loss` is the name of the training loss, `headline` the metric that selects the best checkpoint; `window` holds
    the default maximum length and stride, in tokens. A dev split keeps examples together that have the same text at
    index `split_by` (None: the same texts). `tunable` is False if `tune_on` does nothing.
    """

    loss: str
    headline: str
    labels: tuple[str, ...] = ()
    window: tuple[int, int] = (256, 64)
    split_by: int | None = None
    tunable: bool = False

    @classmethod
    @abstractmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """Infer the task from training examples; raises `DataError` if there is nothing to learn."""

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Self:
        """Return the task from the output of `as_json`; raises `ValueError` for invalid settings."""
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
        except OptionError as problem:
            raise ValueError(str(problem)) from problem

    def as_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """Return the task's entries in `config.json`, under the keys of `transformers`."""
        return {
            "id2label": {str(place): label for place, label in enumerate(self.labels)},
            "label2id": {label: place for place, label in enumerate(self.labels)},
        }

    @abstractmethod
    def describe(self) -> str:
        """Return a short description of the main settings."""

    @abstractmethod
    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` for the first reference that the task cannot predict."""

    def training_notes(self, examples: Sequence[Example]) -> list[str]:
        """Return notes for the user on how the training examples were interpreted, one per line."""
        return []

    def tune_on(self, predictions: Sequence[Any], references: Sequence[Reference]) -> Self:
        """Return the task with its threshold tuned on these predictions and references."""
        return self

    def redecided(self, predictions: Sequence[Any]) -> Sequence[Any]:
        """Apply this task's threshold to predictions that were made with another threshold."""
        return predictions

    @abstractmethod
    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Reference],
        *,
        rng: np.random.Generator,
        resamples: int = 2000,
    ) -> Scores:
        """Compute the metrics of predictions against references, with 95 % confidence intervals."""

    @abstractmethod
    def reference_summary(self, example: Example) -> str:
        """Return a short text for the reference."""

    @abstractmethod
    def is_correct(self, prediction: Any, reference: Reference) -> bool:
        """Whether a prediction is entirely correct."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., L) logits -> (..., L) log-probabilities in float64; NaN for rows with NaN or +infinity.

    >>> np.exp(log_softmax(np.array([0.0, 0.0]))).tolist()
    [0.5, 0.5]
    """
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def reading_stats(windows: Sequence[Encoded]) -> dict[str, Any]:
    """Return `windows` and `truncated` of the prediction for one example."""
    return {"windows": max(window.window for window in windows) + 1, "truncated": max(w.truncated for w in windows)}


def _suits(value: Any, kind: Any) -> bool:
    """Whether a setting has the type of its field; True for types that are not checked here."""
    if kind in (int, float):
        number = Integral if kind is int else Real
        return type(value) is not bool and isinstance(value, number) and not math.isnan(value)
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    return isinstance(value, kind) if kind in (bool, str) else True


def labels_of_config(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the labels of a `transformers` `config.json` in order; LABEL_0, ... if it has no names.

    Raises `CheckpointError` if the ids are not 0, 1, 2, ..., a name is invalid or repeated, or `num_labels` differs.
    """
    names, number = config.get("id2label"), config.get("num_labels")
    if not names:
        number = config.get("_num_labels", 2) if number is None else number
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_LABELS:
            raise CheckpointError(f"config.json: num_labels is {number!r}, expected a whole number from 1")
        return tuple(f"LABEL_{place}" for place in range(number))
    if isinstance(names, list):
        names = {str(place): name for place, name in enumerate(names)}
    if not isinstance(names, dict):
        raise CheckpointError(f"config.json: id2label is {reprlib.repr(names)}, expected names by their numbers")
    for place in range(len(names)):
        if str(place) not in names:
            keys = reprlib.repr(sorted(names))
            raise CheckpointError(
                f"config.json: id2label has the keys {keys}, expected 0 to {len(names) - 1}, each once"
            )
    found = tuple(names[str(place)] for place in range(len(names)))
    for name in found:
        if isinstance(name, list | dict | bool) or name is None:
            raise CheckpointError(f"config.json: id2label has the name {name!r}, expected a text")
    labels = tuple(map(str, found))
    if len(set(labels)) < len(labels):
        double = next(name for name in labels if labels.count(name) > 1)
        raise CheckpointError(f"config.json: id2label names two outputs {double!r}; name each differently")
    if number is not None and number != len(labels):
        raise CheckpointError(
            f"config.json: id2label names {len(labels)} labels, num_labels is {number!r}; correct one"
        )
    return labels


def grouped(windows: Sequence[Encoded]) -> Iterator[tuple[int, list[Encoded]]]:
    """Group windows by example: yield each example's index and its windows."""
    group: list[Encoded] = []
    for window in windows:
        if group and window.example != group[0].example:
            yield group[0].example, group
            group = []
        group.append(window)
    if group:
        yield group[0].example, group


def with_most_context(windows: Sequence[Encoded], text: int) -> Iterator[tuple[Encoded, np.ndarray]]:
    """Yield each window of one example with the positions of the tokens of `text` that it owns.

    The first half of the overlap of two windows belongs to the earlier one, the rest to the later one, so each token
    belongs to the window with more context around it.
    """
    places = [np.flatnonzero(window.sequence_ids == text) for window in windows]
    for number, (window, own) in enumerate(zip(windows, places, strict=True)):
        begin, end = 0, len(own)
        if number:
            before = windows[number - 1]
            begin = (before.skipped + len(places[number - 1]) - window.skipped) // 2
        if number + 1 < len(windows):
            after = windows[number + 1]
            shared = window.skipped + len(own) - after.skipped
            end = len(own) - shared + shared // 2
        yield window, own[begin:end]
