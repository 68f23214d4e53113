"""Classifying one text: a single label, several labels (multi-label), or a number (regression).

B windows, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from bothways.errors import DataError, OptionError
from bothways.metrics import Scores, multi_label, regression, single_label
from bothways.tasks.task import Example, Gold, Prediction, labels_of, read_examples
from bothways.text.files import Columns, Source
from bothways.text.tokenizer import Encoded, Tokenizer

Kind = Literal["single", "multi", "regression"]
_HEADLINE: dict[Kind, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "spearman"}


@dataclass(frozen=True, slots=True)
class Classify:
    """The classification of one text; holds all that its predictions depend on besides the weights.

    `labels` in the order of the outputs (for regression one, the name of the number), windows of `max_pieces`
    that share at least `overlap`, `long` "cut" reads only the first window, `threshold` for multi-label.
    """

    name: ClassVar[str] = "classify"
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
    def read(cls, source: Source, columns: Columns, *, gold: bool = True) -> list[Example]:
        """The examples of a file or of rows in memory; with `gold`, each must carry the human's answer."""
        return read_examples(source, cls.texts, columns, gold=gold)

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """The task that training examples describe: their kind and their labels in natural order.

        Raises `DataError` for a single class, or golds of several kinds.
        """
        kinds = {_kind(example.gold) for example in examples}
        if len(kinds) > 1:
            raise DataError(f"{examples[0].where} and below: some labels are lists, some are not; expected one kind")
        kind = kinds.pop()
        if kind == "regression":
            return cls(labels=("score",), kind=kind, **settings)
        labels = {label for example in examples for label in labels_of(example.gold)}
        if len(labels) < 2:
            raise DataError(
                f"{examples[0].where} and below: every row has the label {next(iter(labels), '')!r}; "
                "expected at least two classes to tell apart"
            )
        return cls(labels=tuple(sorted(labels, key=_natural)), kind=kind, **settings)

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Self:
        """The task that `as_json` wrote."""
        return cls(**(settings | {"labels": tuple(settings["labels"])}))

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)

    @property
    def headline(self) -> str:
        """The name of the metric that decides which checkpoint is better."""
        return _HEADLINE[self.kind]

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` at the first gold that this task cannot predict."""
        known = set(self.labels)
        for example in examples:
            if _kind(example.gold) != self.kind:
                raise DataError(
                    f"{example.where}: the label {example.gold!r} does not suit a model of kind {self.kind!r}"
                )
            unknown = [] if self.kind == "regression" else [x for x in labels_of(example.gold) if x not in known]
            if unknown:
                raise DataError(
                    f"{example.where}: label {unknown[0]!r} is not one of the {len(known)} known: "
                    f"{shortened(self.labels)}; correct it or add training rows for it"
                )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Each example's windows, with its target where it has a gold: a class number, L 0/1 numbers, a number."""
        windows = tokenizer.windows(
            [example.texts for example in examples],
            max_pieces=self.max_pieces,
            overlap=self.overlap,
            long=self.long,
        )
        places = {label: place for place, label in enumerate(self.labels)}
        targets = [self._target(example.gold, places) for example in examples]
        return [
            window if targets[window.example] is None else replace(window, target=targets[window.example])
            for window in windows
        ]

    def decode(self, logits: np.ndarray, windows: Sequence[Encoded]) -> Prediction:
        """(B, L) logits of all windows of one example -> its prediction.

        The windows' probabilities (for regression: values) are averaged, each by how many pieces it holds.
        """
        weights = np.array([len(window.ids) for window in windows], dtype=np.float64)
        values = probabilities(logits, self.kind)
        average = (weights @ values) / weights.sum()  # (L,)
        scores = {label: float(score) for label, score in zip(self.labels, average, strict=True)}
        best = int(average.argmax())
        chosen = None
        if self.kind == "multi":
            chosen = tuple(label for label, score in scores.items() if score >= self.threshold)
        return Prediction(
            label=self.labels[best],
            score=float(average[best]),
            scores=scores,
            labels=chosen,
            windows=len(windows),
            truncated=windows[0].truncated,
        )

    def score(
        self,
        predictions: Sequence[Prediction],
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

    def right(self, prediction: Prediction, gold: Gold) -> bool:
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
