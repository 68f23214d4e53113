"""Classifying one text: a single label, several labels (multi-label), or a number (regression).

B windows, L labels.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from bothways.errors import DataError, OptionError
from bothways.metrics import Scores, multi_label, regression, single_label
from bothways.tasks.golds import label_notes, skeleton
from bothways.tasks.picture import Picture
from bothways.tasks.split import contradictions
from bothways.tasks.task import (
    Example,
    Gold,
    Pieces,
    Prediction,
    Trainable,
    how_read,
    labels_in,
    labels_of,
)
from bothways.text.tokenizer import Encoded, Tokenizer

Kind = Literal["single", "multi", "regression"]
_HEADLINE: dict[Kind, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "spearman"}


_PROBLEMS: dict[str, Kind] = {
    "single_label_classification": "single",
    "multi_label_classification": "multi",
    "regression": "regression",
}


@dataclass(frozen=True, slots=True)
class Labelled(Prediction):
    """The class of one example.

    `label` is the best class ("" if none could be given), `score` its probability (for regression the
    number itself), `scores` every class's, `labels` all classes above the threshold (multi-label only).
    """

    label: str
    score: float
    scores: dict[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None

    def answer(self, *, every_score: bool) -> dict[str, Any]:
        """label, score; labels of a multi-label model; scores with `every_score`."""
        answer: dict[str, Any] = {"label": self.label, "score": self.score}
        if self.labels is not None:
            answer["labels"] = list(self.labels)
        return answer | ({"scores": self.scores} if every_score else {})

    def said(self) -> tuple[str, float]:
        """The label or labels, with the score."""
        return self.label if self.labels is None else ", ".join(self.labels), self.score

    def picture(self, example: Example) -> Picture:
        """The text or texts, with a bar for each class."""
        captions = ("",) if len(example.texts) == 1 else ("first text", "second text")
        bars = sorted(self.scores.items(), key=lambda item: -item[1])
        notes = [self.note()] if self.note() else []
        if len(bars) == 1:  # a number has no bar
            notes, bars = [f"{bars[0][0]} {bars[0][1]:.3f}", *notes], []
        texts = tuple(zip(captions, example.texts, strict=True))
        return Picture(texts, bars=tuple(bars), note=", ".join(notes), error=self.error)


@dataclass(frozen=True, slots=True)
class Classify(Trainable):
    """The classification of one text; holds all that its predictions depend on besides the weights.

    `labels` in the order of the outputs (for regression one, the name of the number), windows of `max_pieces`
    that share at least `overlap`, `long` "cut" reads only the first window, `threshold` for multi-label.
    """

    name = "classify"
    head = "classify"
    limits: ClassVar[dict[str, tuple[float, float]]] = Trainable.limits | {"threshold": (0.0, 1.0)}
    texts: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("text", "sentence", "review", "content", "utterance", "question", "comment", "body"),
    )
    labels: tuple[str, ...]
    kind: Kind = "single"
    max_pieces: int = 512
    overlap: int = 64
    long: Literal["window", "cut"] = "window"
    threshold: float = 0.5

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """The task that training examples describe: their kind and their labels in natural order.

        Raises `DataError` for a single class, or golds of several kinds.
        """
        kinds = {_kind(example.gold) for example in examples}
        if len(kinds) > 1:
            raise DataError(f"{examples[0].where} and below: some labels are lists, some are not; expected one kind")
        kind = kinds.pop()
        where = f"{examples[0].where} and below"
        if kind == "regression":
            if len({example.gold for example in examples}) < 2:
                raise DataError(f"{where}: every row has the number {examples[0].gold!r}; expected different numbers")
            return cls(labels=("score",), kind=kind, **settings)
        labels = {label for example in examples for label in labels_of(example.gold)}
        if len({labels_of(example.gold) for example in examples}) < 2:
            found = ", ".join(map(repr, sorted(labels))) or "no label"
            raise DataError(f"{where}: every row has {found}; expected at least two classes to tell apart")
        return cls(labels=tuple(sorted(labels, key=_natural)), kind=kind, **settings)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """The task that the `config.json` of a directory of `transformers` describes."""
        labels = labels_in(config)
        kind = "regression" if len(labels) == 1 else _PROBLEMS.get(str(config.get("problem_type")), "single")
        return cls(labels=labels, kind=kind, **settings)

    def config(self) -> dict[str, Any]:
        """Labels and kind, as `config.json` says them."""
        problem = next(name for name, kind in _PROBLEMS.items() if kind == self.kind)
        return super(Classify, self).config() | {"problem_type": problem}

    def describe(self) -> str:
        """Kind and labels."""
        return f"{self.kind}, {len(self.labels)} label(s): {shortened(self.labels, 200)}"

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """A number for each label."""
        return len(self.labels)

    @property
    def loss(self) -> str:  # type: ignore[override]
        """The loss is named like the kind."""
        return self.kind

    @property
    def headline(self) -> str:  # type: ignore[override]
        """The name of the metric that decides which checkpoint is better."""
        return _HEADLINE[self.kind]

    def example(self, given: Any) -> Example:
        """A text, or a tuple of as many texts as the task reads, as an example."""
        texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, tuple | list) else ()
        if len(texts) != len(self.texts) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"found {reprlib.repr(given)}, expected {len(self.texts)} text(s) for the task {self.name}")
        return Example(texts)

    def failure(self, reason: str) -> Labelled:
        """No label, and why."""
        return Labelled("", float("nan"), error=reason, windows=0)

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` at the first gold that this task cannot predict."""
        known = set(self.labels)
        for example in examples:
            if _kind(example.gold) != self.kind:
                raise DataError(
                    f"{example.where}: the label {example.gold!r} does not suit a model of kind {self.kind!r}; "
                    f"give --kind {self.kind} if it should"
                )
            for label in () if self.kind == "regression" else labels_of(example.gold):
                if label not in known:
                    alike = next((one for one in self.labels if skeleton(one) == skeleton(label)), None)
                    hint = "" if alike is None else f" (it looks like {alike!a})"
                    raise DataError(
                        f"{example.where}: label {label!r} is not one of the {len(known)} known: "
                        f"{shortened(self.labels)}{hint}; correct it or add training rows for it"
                    )

    def noticed(self, examples: Sequence[Example]) -> list[str]:
        """Labels that may not be meant: numbers, look-alikes, labels that occur once; texts with two labels."""
        return [*label_notes([example.gold for example in examples]), *contradictions(examples)]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Each example's windows, with its target where it has a gold: a class number, L 0/1 numbers, a number."""
        windows = self.windows(examples, tokenizer)
        places = {label: place for place, label in enumerate(self.labels)}
        targets = [self._target(example.gold, places) for example in examples]
        return [
            window if targets[window.example] is None else replace(window, target=targets[window.example])
            for window in windows
        ]

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(1, L) logits -> (L,)."""
        return rows[0]

    def decode(
        self,
        example: Example,
        parts: Sequence[np.ndarray],
        windows: Sequence[Encoded],
        pieces: Pieces,
    ) -> Labelled:
        """(L,) logits of each window of one example -> its prediction.

        The windows' probabilities (for regression: values) are averaged, each by how many pieces it holds.
        """
        logits = np.stack(parts)  # (B, L)
        weights = np.array([len(window.ids) for window in windows], dtype=np.float64)
        values = probabilities(logits, self.kind)
        average = (weights @ values) / weights.sum()  # (L,)
        scores = {label: float(score) for label, score in zip(self.labels, average, strict=True)}
        best = int(average.argmax())
        chosen = None
        if self.kind == "multi":
            chosen = tuple(label for label, score in scores.items() if score >= self.threshold)
        return Labelled(
            label=self.labels[best],
            score=float(average[best]),
            scores=scores,
            labels=chosen,
            **how_read(windows),
        )

    def score(
        self,
        predictions: Sequence[Labelled],
        golds: Sequence[Gold],
        *,
        rng: np.random.Generator,
        resamples: int = 2000,
    ) -> Scores:
        """The metrics of predictions against the humans' answers, with 95 % intervals."""
        if self.kind == "multi":
            chosen = [prediction.labels or () for prediction in predictions]
            return multi_label([labels_of(gold) for gold in golds], chosen, self.labels, rng=rng, resamples=resamples)
        if self.kind == "regression":
            return regression(
                [float(_number(gold)) for gold in golds], [x.score for x in predictions], rng=rng, resamples=resamples
            )
        return single_label(
            [str(gold) for gold in golds],
            [prediction.label for prediction in predictions],
            self.labels,
            confidences=[prediction.score for prediction in predictions],
            rng=rng,
            resamples=resamples,
        )

    def written(self, example: Example) -> str:
        """The label or labels."""
        return ", ".join(example.gold) if isinstance(example.gold, tuple) else str(example.gold)

    def right(self, prediction: Labelled, gold: Gold) -> bool:
        """Whether a prediction is wholly right (never, for a number)."""
        if self.kind == "multi":
            return set(prediction.labels or ()) == set(labels_of(gold))
        return self.kind == "single" and prediction.label == gold

    def _target(self, gold: Gold | None, places: dict[str, int]) -> Any:
        if gold is None:
            return None
        if self.kind == "regression":
            return float(_number(gold))
        if self.kind == "single":
            return places[str(gold)]
        target = np.zeros(len(places), dtype=np.float32)
        target[[places[label] for label in labels_of(gold)]] = 1.0
        return target


def probabilities(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """(B, L) logits -> (B, L) softmax (single), sigmoid (multi) or the numbers themselves (regression)."""
    if kind == "regression":
        return logits.astype(np.float64)
    logits = logits.astype(np.float64)
    if kind == "multi":
        return 1.0 / (1.0 + np.exp(-logits))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def shortened(labels: Sequence[str], most: int = 8) -> str:
    """The first few of many labels, and how many more there are."""
    rest = f", ... ({len(labels) - most} more)" if len(labels) > most else ""
    return ", ".join(labels[:most]) + rest


def _kind(gold: Gold | None) -> Kind:
    if isinstance(gold, str):
        return "single"
    return "multi" if isinstance(gold, tuple) else "regression"


def _number(gold: Gold) -> float:
    if isinstance(gold, float):
        return gold
    raise OptionError(f"a number was expected, found {gold!r}")


def _natural(label: str) -> tuple[float, str]:
    """Numbers by their value, then words by their letters."""
    try:
        value = float(label)
    except ValueError:
        return math.inf, label
    return (value, label) if math.isfinite(value) else (math.inf, label)
